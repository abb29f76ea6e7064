//! Foreign bytes for `bus::key`.

#![no_main]

#[path = "../src/bus.rs"]
#[allow(dead_code, reason = "each target is one of its functions")]
mod bus;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bus::key(bytes);
});
