//! A model under measurement: its stages, timed in rounds.

use std::time::{Duration, Instant};

use kernels::{Arithmetic, Device, KvDtype, PAGE};

use crate::model::files::{LoadOptions, ModelFiles, ProjectorKind};
use crate::model::kv_cache::Sequence;
use crate::model::language::LanguageConfig;
use crate::model::pass::Pass;
use crate::model::vision::VisionConfig;
use crate::model::{Input, KvOptions, MobileVlm};

use super::BenchError;
use super::dims::{
    attention_macs, head_macs, kv_bytes, layer_macs, projector_macs, projector_parameters, vision_macs,
};
use super::probe::Prober;
use super::report::{Limit, ProjectorShare, Report, TOLERANCE, Timing};
use super::stage::{Work, language_arithmetic, vision_arithmetic};

/// Positions of a sequence: the longest stage and some to spare.
const CONTEXT: usize = 272;

/// Pages of the KV cache: all sequences of the stage with most of them.
const PAGES: usize = CONTEXT.div_ceil(PAGE) + 3 * Work::TOGETHER;

/// Weights below this may stay in a cache from token to token, so that the memory is no limit.
const LARGEST_CACHE: u64 = 256 << 20;

/// Bytes of a cached number.
const F16_BYTES: usize = 2;

/// What a stage asks of the machine.
pub(super) struct Demand {
    pub(super) tokens: usize,
    macs: u64,
    bytes: u64,
    pub(super) limit: Limit,
}

impl Demand {
    /// Bytes or products, whichever bound it.
    pub(super) fn of_limit(&self) -> f64 {
        match self.limit {
            Limit::Read => self.bytes as f64,
            Limit::Int8 | Limit::F32 => self.macs as f64,
        }
    }
}

/// A loaded model.
pub(super) struct Bench<D: Device> {
    model: MobileVlm<D>,
    pass: Pass<D>,
    sequence: Sequence,
    /// Those that decode together.
    others: [Sequence; Work::TOGETHER],
    pixels: Vec<f32>,
    vision: VisionConfig,
    language: LanguageConfig,
    projector: ProjectorKind,
    vision_limit: Limit,
    language_limit: Limit,
    longest_unit: Duration,
    projector_time: Duration,
}

impl<D: Device> Bench<D> {
    /// Loads a model and makes room for its stages.
    pub(super) fn load(files: &ModelFiles, device: D, load: &LoadOptions) -> Result<Self, BenchError> {
        let kv = KvOptions { context: CONTEXT, pages: PAGES, dtype: KvDtype::F16 };
        let model = MobileVlm::load(files, device, load, kv)?;
        let pass = model.pass()?;
        Ok(Self {
            pass,
            sequence: Sequence::default(),
            others: Default::default(),
            pixels: pixels(files.vision.image),
            vision: files.vision.clone(),
            language: files.language.clone(),
            projector: files.projector,
            vision_limit: limit_of(vision_arithmetic(files, load)),
            language_limit: limit_of(language_arithmetic(files, load)),
            longest_unit: Duration::ZERO,
            projector_time: Duration::ZERO,
            model,
        })
    }

    /// Times a stage and adds it to `report`, with a probe of what bounds it before each round and
    /// behind the last.
    pub(super) fn measure(
        &mut self,
        work: Work,
        name: &str,
        rounds: usize,
        prober: &mut Prober,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        if !self.round(work)?.1 {
            return Err(BenchError::NotFinite { stage: name.into() });
        }
        self.longest_unit = Duration::ZERO;
        prober.measure();
        let Demand { tokens, macs, bytes, limit } = self.demand(work);
        let mut probes = vec![prober.sample(limit)];
        let mut times = Vec::with_capacity(rounds);
        let mut projector_times = Vec::with_capacity(rounds);
        for _ in 0..rounds.max(1) {
            times.push(self.round(work)?.0);
            probes.push(prober.sample(limit));
            projector_times.push(self.projector_time);
        }
        prober.measure();
        let (mut times, discarded, rate) = steady(&times, &probes);
        let time = median(&mut times);
        let span = times[times.len() - 1] - times[0];
        let spread = span.as_secs_f64() / time.as_secs_f64();
        let longest_unit = self.longest_unit;
        report.add(name, Timing { time, spread, discarded, rate, tokens, macs, bytes, limit, longest_unit });
        if work == Work::Encode {
            report.projector(ProjectorShare {
                parameters: projector_parameters(self.projector, &self.vision, self.language.hidden),
                share: median(&mut projector_times).as_secs_f64() / time.as_secs_f64(),
            });
        }
        Ok(())
    }

    /// Does the work once; returns how long it took, and whether what came out is finite.
    pub(super) fn round(&mut self, work: Work) -> Result<(Duration, bool), BenchError> {
        let shared = match work {
            Work::DecodeDeep => Work::DEEP,
            Work::TogetherShared => Work::PREFIX,
            _ => 0,
        };
        if shared > 0 {
            let longest_unit = self.longest_unit;
            self.tokens(0, shared)?;
            self.longest_unit = longest_unit;
        }
        let start = Instant::now();
        let finite = match work {
            Work::Encode => self.encode(),
            Work::Prefill => self.tokens(0, Work::PREFILL_TOKENS)?,
            Work::Decode | Work::DecodeDeep => {
                let mut finite = true;
                for position in shared..shared + Work::DECODE_TOKENS {
                    finite &= self.tokens(position, 1)?;
                }
                finite
            }
            Work::Together | Work::TogetherShared => self.together()?,
        };
        let spent = start.elapsed();
        self.model.release(&mut self.sequence);
        self.others.iter_mut().for_each(|other| self.model.release(other));
        Ok((spent, finite))
    }

    /// Lets sequences go on together from where the one sequence is.
    fn together(&mut self) -> Result<bool, BenchError> {
        let mut finite = true;
        let rows: [usize; Work::TOGETHER] = std::array::from_fn(|row| row);
        for other in &mut self.others {
            self.model.fork(&self.sequence, other);
        }
        let mut clock = UnitClock::start();
        for step in 0..Work::STEPS {
            self.model.begin(&mut self.pass);
            for (index, other) in self.others.iter_mut().enumerate() {
                let id = ((step * Work::TOGETHER + index) * 7919 % self.language.vocabulary) as u32;
                self.model.push(&mut self.pass, other, Input::Tokens(&[id]))?;
            }
            for index in 0..self.model.layers() {
                self.model.pass_layer(&mut self.pass, index);
            }
            let mut logits = self.model.logits_of(&self.pass, &rows);
            finite &= rows.iter().all(|&row| logits.row(row).iter().all(|value| value.is_finite()));
            clock.unit();
        }
        self.longest_unit = self.longest_unit.max(clock.longest);
        Ok(finite)
    }

    fn encode(&mut self) -> bool {
        let mut clock = UnitClock::start();
        self.model.begin_image(&self.pixels);
        clock.unit();
        for index in 0..self.model.image_halves() {
            self.model.image_half(index);
            clock.unit();
        }
        let encoded = self.model.finish_image();
        self.projector_time = clock.unit();
        self.longest_unit = self.longest_unit.max(clock.longest);
        encoded.tokens().iter().all(|value| value.is_finite())
    }

    /// Appends `count` tokens and takes the logits of the last.
    fn tokens(&mut self, position: usize, count: usize) -> Result<bool, BenchError> {
        // Ids far apart, so that no row of the embedding is in a cache already.
        let id = |place: usize| (place * 7919 % self.language.vocabulary) as u32;
        let ids: Vec<u32> = (position..position + count).map(id).collect();
        let mut clock = UnitClock::start();
        self.model.begin_pass(&mut self.pass, &mut self.sequence, Input::Tokens(&ids))?;
        for index in 0..self.model.layers() {
            self.model.pass_layer(&mut self.pass, index);
            if count > 1 {
                clock.unit(); // A decoded token is one unit.
            }
        }
        let finite = self.model.logits(&self.pass).iter().all(|value| value.is_finite());
        clock.unit();
        self.longest_unit = self.longest_unit.max(clock.longest);
        Ok(finite)
    }

    /// Visual tokens of the picture, row by row.
    pub(super) fn rows(&mut self) -> Vec<f32> {
        self.model.encode(&self.pixels).tokens()
    }

    /// Logits behind the prompt.
    pub(super) fn logits(&mut self) -> Result<Vec<f32>, BenchError> {
        self.tokens(0, Work::PREFILL_TOKENS)?;
        let logits = self.model.logits(&self.pass).to_vec();
        self.model.release(&mut self.sequence);
        Ok(logits)
    }

    pub(super) fn demand(&self, work: Work) -> Demand {
        let (vision, language) = (&self.vision, &self.language);
        match work {
            Work::Encode => Demand {
                tokens: self.model.visual_tokens(),
                macs: vision_macs(vision) + projector_macs(self.projector, vision, language.hidden),
                bytes: self.model.vision_bytes() as u64,
                limit: self.vision_limit,
            },
            Work::Prefill => Demand {
                tokens: Work::PREFILL_TOKENS,
                macs: Work::PREFILL_TOKENS as u64 * layer_macs(language)
                    + attention_macs(language, positions_seen(Work::PREFILL_TOKENS))
                    + head_macs(language),
                bytes: self.model.language_bytes() as u64,
                limit: self.language_limit,
            },
            Work::Decode => self.decoded(Work::DECODE_TOKENS, 1, (0, 0)),
            Work::DecodeDeep => self.decoded(Work::DECODE_TOKENS, 1, (Work::DEEP, 0)),
            Work::Together => self.decoded(Work::STEPS, Work::TOGETHER, (0, 0)),
            Work::TogetherShared => self.decoded(Work::STEPS, Work::TOGETHER, (0, Work::PREFIX)),
        }
    }

    /// Steps of `rows` sequences, each with `own` positions before, and `shared` ones that are read
    /// once for all.
    fn decoded(&self, steps: usize, rows: usize, (own, shared): (usize, usize)) -> Demand {
        let language = &self.language;
        let weights = self.model.language_bytes() as u64;
        let seen = rows * (positions_seen(steps) + steps * own);
        let tokens = (steps * rows) as u64;
        Demand {
            tokens: steps * rows,
            macs: tokens * (layer_macs(language) + head_macs(language))
                + attention_macs(language, seen + steps * rows * shared),
            bytes: steps as u64 * weights + kv_bytes(language, F16_BYTES) * (seen + steps * shared) as u64,
            limit: if weights < LARGEST_CACHE { self.language_limit } else { Limit::Read },
        }
    }
}

/// Rounds that count, how many do not, and the median of `probes`, of which there is one before each
/// round and one behind the last: a round with a probe beside it that is off the median is left out.
/// If none would be left, all count.
fn steady(times: &[Duration], probes: &[f64]) -> (Vec<Duration>, usize, f64) {
    let mut sorted = probes.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let rate =
        if sorted.len().is_multiple_of(2) { (sorted[half - 1] + sorted[half]) / 2.0 } else { sorted[half] };
    let off = |probe: &f64| (probe / rate - 1.0).abs() > TOLERANCE;
    let beside = times.iter().zip(probes.windows(2));
    let kept: Vec<Duration> =
        beside.filter(|(_, beside)| !beside.iter().any(off)).map(|(time, _)| *time).collect();
    if kept.is_empty() {
        return (times.to_vec(), times.len(), rate);
    }
    let discarded = times.len() - kept.len();
    (kept, discarded, rate)
}

/// Positions that `tokens` tokens from position 0 see, summed up.
fn positions_seen(tokens: usize) -> usize {
    tokens * (tokens + 1) / 2
}

/// Times one unit after the other.
struct UnitClock {
    last: Instant,
    longest: Duration,
}

impl UnitClock {
    fn start() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    /// Ends a unit; returns how long it took.
    fn unit(&mut self) -> Duration {
        let now = Instant::now();
        let spent = now - self.last;
        self.last = now;
        self.longest = self.longest.max(spent);
        spent
    }
}

fn limit_of(arithmetic: Arithmetic) -> Limit {
    match arithmetic {
        Arithmetic::Int8 | Arithmetic::Int8Split => Limit::Int8,
        Arithmetic::F32 => Limit::F32,
    }
}

/// A picture `(3, side, side)` as the tower expects it, smooth with some texture.
fn pixels(side: usize) -> Vec<f32> {
    let pixel = |index: usize| {
        let (x, y) = ((index % side) as f32, (index / side % side) as f32);
        let channel = (index / (side * side)) as f32;
        (x * 0.05 + channel).sin() + 0.5 * (y * 0.31).cos()
    };
    (0..3 * side * side).map(pixel).collect()
}

/// The middle time, of an even number the mean of the two in the middle.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let half = times.len() / 2;
    match times.len() % 2 {
        _ if times.is_empty() => Duration::ZERO,
        0 => (times[half - 1] + times[half]) / 2,
        _ => times[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_beside_a_disturbed_probe_do_not_count() {
        let times: Vec<Duration> = (1..=4).map(Duration::from_millis).collect();
        let (kept, discarded, rate) = steady(&times, &[50.0, 51.0, 30.0, 50.0, 49.0]);
        assert_eq!((kept, discarded, rate), (vec![times[0], times[3]], 2, 50.0));
        let (kept, discarded, _) = steady(&times[..1], &[50.0, 80.0]);
        assert_eq!((kept, discarded), (times[..1].to_vec(), 1));
    }

    #[test]
    fn a_median_ignores_the_outlier() {
        let times = |millis: &[u64]| millis.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
        assert_eq!(median(&mut times(&[900, 10, 12])), Duration::from_millis(12));
        assert_eq!(median(&mut times(&[10, 20, 900, 30])), Duration::from_millis(25));
        assert_eq!(median(&mut times(&[])), Duration::ZERO);
    }

    #[test]
    fn pictures_are_normalized() {
        let values = pixels(28);
        assert_eq!(values.len(), 3 * 28 * 28);
        assert!(values.iter().all(|value| value.abs() <= 1.5));
    }
}
