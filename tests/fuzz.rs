//! Foreign bytes for every decoder of the bus: seeds that were made once, damaged by chance over and over. Whatever
//! is still accepted is kept for a while and damaged further.
//!
//! The suite takes some thousands for each decoder. `FUZZ_INPUTS=10000000` takes ten million, `FUZZ_SEED=N` others,
//! `FUZZ_TARGET=NAME` one decoder. The same functions and seeds serve libFuzzer, in `tests/fuzz`.

#[path = "fuzz/src/bus.rs"]
mod bus;
#[path = "fuzz/src/ros.rs"]
mod ros;

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::random::Random;

/// Takes bytes in and tells whether they were accepted.
type Target = fn(&[u8]) -> bool;

/// The decoders, each with a folder of seeds.
const TARGETS: [(&str, Target); 7] = [
    ("postcard", bus::postcard),
    ("json", bus::json),
    ("question", bus::question),
    ("control", bus::control),
    ("key", bus::key),
    ("cdr", ros::cdr),
    ("frames", ros::frames),
];

/// Inputs for each decoder in the suite.
const INPUTS: u64 = 20_000;

/// Accepted inputs that are kept.
const KEPT: usize = 256;

/// Longest input in bytes.
const LONGEST: usize = 4096;

/// Words of the formats, which chance would not find.
const WORDS: [&[u8]; 20] = [
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"1e-330",
    b"\\ud800",
    b"\"\"",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"get",
    b"set",
    b"reset",
    b"latest",
    b"picture",
    b"json",
    b"/*/",
    b"@",
    b"\xf0\x9f\x92\xa9",
    b"application/json;",
];

/// What lengths and numbers break at, as varints and as they are.
const EDGES: [&[u8]; 8] = [
    &[0xff; 10],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0x03],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02],
    &[0x80, 0x00],
    &[0x00, 0x00, 0xc0, 0x7f],
    &[0x00, 0x00, 0x80, 0xff],
    &[0x7f; 4],
];

/// The seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Damages an input in one way.
fn damage(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let below = |random: &mut Random, end: usize| random.below(end.max(1) as u64) as usize;
    let at = below(random, input.len());
    let to = (at + 1 + below(random, 16)).min(input.len());
    match random.below(10) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.below(256) as u8,
        2 if !input.is_empty() => input[at] = input[at].wrapping_add(if random.one_in(2) { 1 } else { 255 }),
        3 => input.insert(at, random.below(256) as u8),
        4 => drop(input.drain(at.min(to)..to)),
        5 => input.truncate(at),
        6 => {
            let copy = input[at.min(to)..to].to_vec();
            let place = below(random, input.len() + 1);
            input.splice(place..place, copy);
        }
        7 => {
            let word = WORDS[below(random, WORDS.len())];
            input.splice(at..at, word.iter().copied());
        }
        8 => {
            let edge = EDGES[below(random, EDGES.len())];
            input.splice(at..to.max(at), edge.iter().copied());
        }
        _ => {
            let from = below(random, other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
    input.truncate(LONGEST);
}

/// Shows the input that a decoder did not survive.
struct Culprit<'a>(&'a str, &'a [u8]);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} fails on {:?}, in hexadecimal {hex}", self.0, String::from_utf8_lossy(self.1));
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")))
}

/// Gives a decoder so many inputs. Returns how many of them were accepted.
fn fuzz(name: &str, target: Target, inputs: u64, seed: u64) -> u64 {
    let random = &mut Random(seed | 1);
    let mut pool = seeds(name);
    let first = pool.len();
    assert!(pool.iter().any(|seed| target(seed)), "no seed of {name} is accepted");
    let mut accepted = 0;
    let mut input = Vec::with_capacity(LONGEST);
    for _ in 0..inputs {
        let chosen = random.below(pool.len() as u64) as usize;
        let other = random.below(pool.len() as u64) as usize;
        input.clear();
        input.extend_from_slice(&pool[chosen]);
        for _ in 0..=random.below(4) {
            damage(&mut input, &pool[other], random);
        }
        let culprit = Culprit(name, &input);
        let is_accepted = target(culprit.1);
        drop(culprit);
        if is_accepted {
            accepted += 1;
            if pool.len() < first + KEPT {
                pool.push(input.clone());
            } else {
                let place = first + random.below(KEPT as u64) as usize;
                pool[place].clone_from(&input);
            }
        }
    }
    accepted
}

#[test]
fn no_bytes_from_the_bus_do_harm() {
    let (inputs, seed) = (number("FUZZ_INPUTS", INPUTS), number("FUZZ_SEED", 0x5eed));
    let only = std::env::var("FUZZ_TARGET").ok();
    for (name, target) in TARGETS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
    {
        let start = Instant::now();
        let accepted = fuzz(name, *target, inputs, seed);
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {inputs} inputs, {accepted} accepted, nothing found, {seconds:.0} s");
        assert!(accepted > 0, "chance never makes anything that {name} accepts");
    }
}
