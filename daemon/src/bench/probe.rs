//! What this machine can do at most, measured.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use kernels::DeviceError;
use kernels::cpu::probe::{ReadBuffer, f32_products, int8_products, read};
use serde::Serialize;

use super::report::Limit;

/// Bytes of the read probe: far more than any cache keeps from one round to the next.
const BUFFER: usize = 512 << 20;

/// How long one round of the arithmetic probes takes, about.
const ROUND: Duration = Duration::from_millis(15);

/// Rounds of every probe in one measurement. The best counts.
const ROUNDS: usize = 5;

/// The most this machine has been seen to do with all its worker threads, in billions per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes read from memory, 10^9 per second.
    pub read_gb_s: f64,
    /// Products of 8-bit integers, 10^9 per second.
    pub int8_gmac_s: f64,
    /// Products of f32 numbers, 10^9 per second.
    pub f32_gmac_s: f64,
}

impl Limits {
    /// The greater of both, limit by limit.
    pub fn max(self, other: Self) -> Self {
        Self {
            read_gb_s: self.read_gb_s.max(other.read_gb_s),
            int8_gmac_s: self.int8_gmac_s.max(other.int8_gmac_s),
            f32_gmac_s: self.f32_gmac_s.max(other.f32_gmac_s),
        }
    }
}

/// Measures limits as often as asked: a busy moment makes one measurement too low, so the best of
/// several, spread over a run, is the limit.
pub struct Prober {
    threads: usize,
    buffer: ReadBuffer,
    int8_repeats: u64,
    f32_repeats: u64,
    best: Limits,
}

impl Prober {
    /// Prepares probes with `threads` threads. Takes 512 MiB.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            threads: threads.max(1),
            buffer: ReadBuffer::new(BUFFER)?,
            int8_repeats: repeats_of(int8_products),
            f32_repeats: repeats_of(f32_products),
            best: Limits::default(),
        })
    }

    /// The best of all measurements so far.
    pub fn limits(&self) -> Limits {
        self.best
    }

    /// Measures once more; takes a quarter of a second.
    pub fn measure(&mut self) {
        let part = self.buffer.bytes().len().div_ceil(self.threads);
        let parts: Vec<_> = self.buffer.bytes().chunks(part).collect();
        let (int8, f32) = (self.int8_repeats, self.f32_repeats);
        let best = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
        let seen = Limits {
            read_gb_s: best(rates(parts.len(), ROUNDS, |thread| {
                black_box(read(parts[thread]));
                parts[thread].len() as u64
            })),
            int8_gmac_s: best(rates(self.threads, ROUNDS, |_| int8_products(int8))),
            f32_gmac_s: best(rates(self.threads, ROUNDS, |_| f32_products(f32))),
        };
        self.best = self.best.max(seen);
    }

    /// What the machine does of one kind right now, 10^9 per second: one round, some ten milliseconds.
    pub fn sample(&self, limit: Limit) -> f64 {
        let part = self.buffer.bytes().len().div_ceil(self.threads);
        let parts: Vec<_> = self.buffer.bytes().chunks(part).collect();
        let seen = match limit {
            Limit::Read => rates(parts.len(), 1, |thread| {
                black_box(read(parts[thread]));
                parts[thread].len() as u64
            }),
            Limit::Int8 => rates(self.threads, 1, |_| int8_products(self.int8_repeats)),
            Limit::F32 => rates(self.threads, 1, |_| f32_products(self.f32_repeats)),
        };
        seen.into_iter().sum()
    }
}

/// How many repeats take about [`ROUND`].
fn repeats_of(work: fn(u64) -> u64) -> u64 {
    let mut repeats = 1000;
    loop {
        let start = Instant::now();
        black_box(work(repeats));
        let spent = start.elapsed();
        if spent >= ROUND {
            return repeats;
        }
        // Doubling ends within a few steps however fast the machine is.
        repeats *= if spent * 8 < ROUND { 8 } else { 2 };
    }
}

/// Does `work` on each of `threads` threads at once, `count` times; returns for each time the sum of
/// what they report, in 10^9 per second from the first start to the last end.
fn rates(threads: usize, count: usize, work: impl Fn(usize) -> u64 + Sync) -> Vec<f64> {
    let barrier = Barrier::new(threads);
    let rounds = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    let round = |_| {
                        barrier.wait();
                        let start = Instant::now();
                        let done = work(thread);
                        (start, Instant::now(), done)
                    };
                    (0..count).map(round).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a probe does not panic")).collect::<Vec<_>>()
    });
    let rate = |round: usize| {
        let round = || rounds.iter().map(|worker| worker[round]);
        let done: u64 = round().map(|(_, _, done)| done).sum();
        let start = round().map(|(start, _, _)| start).min();
        let end = round().map(|(_, end, _)| end).max();
        let spent = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
        done as f64 / spent.as_secs_f64().max(1e-9) / 1e9
    };
    (0..count).map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_all_threads() {
        let pause = Duration::from_millis(5);
        let work = |_| {
            thread::sleep(pause);
            1_000_000
        };
        let most = 2.0 * 1e6 / pause.as_secs_f64() / 1e9;
        let rates = rates(2, 3, work);
        assert!(rates.len() == 3 && rates.iter().all(|&rate| rate > 0.0 && rate <= most), "{rates:?}");
    }

    #[test]
    fn measuring_again_never_lowers_a_limit() {
        let one = Limits { read_gb_s: 1.0, int8_gmac_s: 5.0, f32_gmac_s: 3.0 };
        let other = Limits { read_gb_s: 2.0, int8_gmac_s: 4.0, f32_gmac_s: 3.0 };
        assert_eq!(one.max(other), Limits { read_gb_s: 2.0, int8_gmac_s: 5.0, f32_gmac_s: 3.0 });
    }
}
