//! Foreign bytes for `ros::frames`.

#![no_main]

#[path = "../src/ros.rs"]
#[allow(dead_code, reason = "each target is one of its functions")]
mod ros;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ros::frames(bytes);
});
