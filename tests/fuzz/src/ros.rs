//! Foreign messages of ROS 2 and foreign frames, one function for each: nothing panics, what is read can be written and
//! read again, and a frame that is read is whole. Each tells whether the bytes were accepted.

use mobilevlmd::camera::PixelFormat;
use mobilevlmd::camera::network::frame_of;
use mobilevlmd::ros::message::{Classification, CompressedImage, DiagnosticArray, Image, Words};
use mobilevlmd::ros::{RosMessage, cdr as codec, speech};
use serde::{Deserialize, Serialize};

fn read<'a, M: RosMessage + Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Option<Vec<u8>> {
    codec::decode::<M>(bytes).ok().map(|message| codec::encode(&message))
}

macro_rules! is_any {
    ($bytes:expr, $($message:ty),*) => {
        [$(read::<$message>($bytes).is_some_and(|once| {
            assert_eq!(read::<$message>(&once).expect("what was read can be written and read"), once);
            true
        })),*]
        .contains(&true)
    };
}

/// Messages in CDR, and questions in them.
pub(super) fn cdr(bytes: &[u8]) -> bool {
    let is_question = speech::question(bytes).is_ok_and(|(_, question)| {
        question.check().expect("questions are checked when they are read");
        true
    });
    is_any!(bytes, Words<'_>, Image<'_>, CompressedImage<'_>, Classification<'_>, DiagnosticArray<'_>)
        || is_question
}

/// Frames: JPEG, PNG and images of ROS 2.
pub(super) fn frames(bytes: &[u8]) -> bool {
    let Ok((frame, _)) = frame_of(bytes) else { return false };
    frame.check().expect("what is read is whole");
    // A JPEG picture may be damaged inside.
    assert!(frame.rgb().is_ok() || frame.format == PixelFormat::Mjpeg);
    true
}
