//! Times the conversion of pictures of 1280x720 to R, G, B, every layout on every instruction set this
//! processor has and by the reference.
//!
//! `cargo bench -p mobilevlm-kernels --bench pixels -- [WORD]...` runs the cases whose line holds all
//! words. Each time is the least of several rounds on one thread. GB/s counts what is read and written.

#[path = "../tests/parity/pictures.rs"]
mod pictures;

use std::hint::black_box;
use std::time::{Duration, Instant};

use kernels::pixels::{Color, Converter, PlaneMut, Size};
use kernels::{Cpu, reference};

use pictures::Bytes;

const SIZE: Size = Size { width: 1280, height: 720 };

/// Rounds of each case.
const ROUNDS: usize = 5;

/// Time a round takes at least.
const ROUND: Duration = Duration::from_millis(10);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |label: &str| words.iter().all(|word| label.contains(word.as_str()));
    let mut rgb = vec![0; 3 * SIZE.width * SIZE.height];
    println!("{:<44} {:>10} {:>10} {:>8}", "layout", "us", "Mpixel/s", "GB/s");
    for layout in pictures::layouts() {
        let bytes = Bytes::new(layout, SIZE, 0, |i| (i * 37 + i / 977) as u8);
        let picture = bytes.picture(Color::default());
        let traffic = bytes.len() + rgb.len();
        let mut timed = |name: &str, convert: &dyn Fn(PlaneMut<'_>)| {
            let label = format!("{layout:?} {name}");
            if wanted(&label) {
                report(&label, traffic, time(&mut rgb, convert));
            }
        };
        for level in Cpu::available() {
            let converter = Converter::new(Some(level));
            let convert = |out: PlaneMut<'_>| converter.rgb(&picture, out).expect("whole planes");
            timed(level.name(), &convert);
        }
        timed("reference", &|out| reference::pixels::rgb(&picture, out).expect("whole planes"));
    }
}

fn report(label: &str, traffic: usize, seconds: f64) {
    let pixels = (SIZE.width * SIZE.height) as f64;
    println!(
        "{label:<44} {:>10.1} {:>10.0} {:>8.2}",
        seconds * 1e6,
        pixels / seconds / 1e6,
        traffic as f64 / seconds / 1e9
    );
}

/// Seconds of one conversion, the least mean of the rounds.
fn time(rgb: &mut [u8], convert: &dyn Fn(PlaneMut<'_>)) -> f64 {
    let mut round = || {
        let (start, mut calls) = (Instant::now(), 0_u32);
        while calls == 0 || start.elapsed() < ROUND {
            convert(PlaneMut { bytes: black_box(&mut *rgb), stride: 3 * SIZE.width });
            calls += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(calls)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min)
}
