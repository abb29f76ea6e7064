//! Foreign messages of ROS 2: nothing panics, and what is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobilevlmd::ros::message::{Classification, CompressedImage, DiagnosticArray, Image, Words};
use mobilevlmd::ros::{RosMessage, cdr, speech};
use serde::{Deserialize, Serialize};

fn read<'a, M: RosMessage + Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Option<Vec<u8>> {
    cdr::decode::<M>(bytes).ok().map(|message| cdr::encode(&message))
}

macro_rules! check {
    ($bytes:expr, $($message:ty),*) => {
        $(if let Some(once) = read::<$message>($bytes) {
            assert_eq!(read::<$message>(&once).expect("what was read can be written and read"), once);
        })*
    };
}

fuzz_target!(|bytes: &[u8]| {
    check!(bytes, Words<'_>, Image<'_>, CompressedImage<'_>, Classification<'_>, DiagnosticArray<'_>);
    if let Ok((_, question)) = speech::question(bytes) {
        question.check().expect("questions are checked when they are read");
    }
});
