//! Foreign frames: JPEG, PNG and images of ROS 2 in CDR. Nothing panics, and what is read can be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobilevlmd::camera::PixelFormat;
use mobilevlmd::camera::network::frame_of;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((frame, _)) = frame_of(bytes) {
        frame.check().expect("what is read is whole");
        // A JPEG picture may be damaged inside.
        assert!(frame.rgb().is_ok() || frame.format == PixelFormat::Mjpeg);
    }
});
