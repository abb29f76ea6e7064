//! The choice of format, size and rate: the cheapest that is adequate.
//!
//! 1. Size: the smallest that covers what is wanted in both directions, or else the largest.
//! 2. Rate: formats that reach the wanted rate at that size go before those that do not, of which the
//!    fastest goes first.
//! 3. Format: the cheapest of these.
//!
//! Nothing wanted means 640x480, which the 336 pixels of the vision tower need, at 15 frames per
//! second or more, 30 if there is a choice.

use std::cmp::Reverse;

use super::fourcc::{FourCc, Layout};
use crate::camera::pace::Fps;
use crate::camera::source::Wanted;

const DEFAULT_SIZE: (u32, u32) = (640, 480);
/// A rate that is good enough, and the one chosen among several, if none is wanted.
const ADEQUATE_FPS: f64 = 15.0;
const CHOSEN_FPS: f64 = 30.0;
/// 29.97 counts as 30.
const FPS_TOLERANCE: f64 = 0.99;

/// A format of a device.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    /// Its name.
    pub(super) fourcc: FourCc,
    /// How it lies in memory, if that is understood.
    pub(super) layout: Option<Layout>,
    /// The driver's words for it.
    pub(super) description: String,
    /// Its sizes. None: the driver does not tell, any may do.
    pub(super) sizes: Vec<SizeRange>,
}

/// Sizes of a format: one, or all from least to most in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SizeRange {
    /// Smallest width and height.
    pub(super) least: (u32, u32),
    /// Largest width and height.
    pub(super) most: (u32, u32),
    /// Steps in between.
    pub(super) step: (u32, u32),
}

impl SizeRange {
    /// One size.
    pub(super) fn one(width: u32, height: u32) -> Self {
        Self { least: (width, height), most: (width, height), step: (1, 1) }
    }

    /// The smallest size that covers `wanted`, as far as there is one.
    fn fit(self, wanted: (u32, u32)) -> (u32, u32) {
        (
            fit_side(self.least.0, self.most.0, self.step.0, wanted.0),
            fit_side(self.least.1, self.most.1, self.step.1, wanted.1),
        )
    }
}

fn fit_side(least: u32, most: u32, step: u32, wanted: u32) -> u32 {
    let steps = wanted.saturating_sub(least).div_ceil(step.max(1));
    steps.saturating_mul(step.max(1)).saturating_add(least).min(most)
}

/// Seconds per frame as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Numerator of the interval.
    pub(super) numerator: u32,
    /// Denominator of the interval.
    pub(super) denominator: u32,
}

impl Rate {
    /// Frames per second; 0 for a fraction without meaning.
    pub(super) fn fps(self) -> f64 {
        if self.numerator == 0 { 0.0 } else { f64::from(self.denominator) / f64::from(self.numerator) }
    }
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// Format by name.
    pub(super) fourcc: FourCc,
    /// Pixels across and down.
    pub(super) size: (u32, u32),
    /// Rate to ask for, if the driver lists any.
    pub(super) rate: Option<Rate>,
    /// Why, in words.
    pub(super) reason: String,
}

/// Chooses among the understood offers; `rates` lists the rates of a format at a size.
pub(super) fn choose(
    offers: &[Offer],
    wanted: Wanted,
    mut rates: impl FnMut(FourCc, (u32, u32)) -> Vec<Rate>,
) -> Option<Mode> {
    let size = wanted_size(wanted);
    let needed = if wanted.fps > 0.0 { wanted.fps } else { ADEQUATE_FPS };
    let understood = offers.iter().filter_map(|offer| offer.layout.map(|layout| (offer, layout)));
    let rated = understood.map(|(offer, layout)| {
        let fitted = fit_size(&offer.sizes, size);
        let rate = fit_rate(&rates(offer.fourcc, fitted), wanted.fps);
        // A driver that lists no rates gets the benefit of the doubt.
        let slow = rate.filter(|rate| rate.fps() < needed * FPS_TOLERANCE);
        let missing_millis = slow.map_or(0, |rate| ((needed - rate.fps()) * 1e3) as u64);
        let adequacy = (size_cost(fitted, size), missing_millis);
        ((adequacy, layout.order), Mode { fourcc: offer.fourcc, size: fitted, rate, reason: String::new() })
    });
    let rated: Vec<_> = rated.collect();
    let ((adequacy, _), mode) = rated.iter().min_by_key(|(key, _)| *key)?;
    let equals = rated.iter().filter(|((other, _), _)| other == adequacy).count();
    let size = match (adequacy.0.0, mode.size == size) {
        (true, _) => "the largest size".to_owned(),
        (false, true) if (wanted.width, wanted.height) == (0, 0) => "the size the model needs".to_owned(),
        (false, true) => "the size asked for".to_owned(),
        (false, false) => format!("the smallest size that covers {}x{}", size.0, size.1),
    };
    let format = match (adequacy.1, equals) {
        (1.., _) => format!("no format reaches {} fps, this is the fastest", Fps(needed)),
        (0, 1) => format!("the only format with it at {} fps or more", Fps(needed)),
        (0, _) => format!("the cheapest of {equals} formats at {} fps or more", Fps(needed)),
    };
    Some(Mode { reason: format!("{size}; {format}"), ..mode.clone() })
}

/// The wanted size; one side alone sets the other by the shape of the default.
fn wanted_size(wanted: Wanted) -> (u32, u32) {
    match (wanted.width, wanted.height) {
        (0, 0) => DEFAULT_SIZE,
        (width, 0) => (width, 1),
        (0, height) => (1, height),
        size => size,
    }
}

fn fit_size(sizes: &[SizeRange], wanted: (u32, u32)) -> (u32, u32) {
    let fitted = sizes.iter().map(|range| range.fit(wanted));
    fitted.min_by_key(|&size| size_cost(size, wanted)).unwrap_or(wanted)
}

/// Order of sizes: those that cover `wanted` by their area, then the others from the largest down.
fn size_cost((width, height): (u32, u32), wanted: (u32, u32)) -> (bool, u64, Reverse<u64>) {
    let area = u64::from(width) * u64::from(height);
    let is_small = width < wanted.0 || height < wanted.1;
    if is_small { (true, 0, Reverse(area)) } else { (false, area, Reverse(0)) }
}

/// The slowest rate that is fast enough, or else the fastest.
fn fit_rate(rates: &[Rate], wanted_fps: f64) -> Option<Rate> {
    let wanted = if wanted_fps > 0.0 { wanted_fps } else { CHOSEN_FPS };
    let is_enough = |rate: &&Rate| rate.fps() >= wanted * FPS_TOLERANCE;
    let by_fps = |a: &&Rate, b: &&Rate| a.fps().total_cmp(&b.fps());
    rates.iter().filter(is_enough).min_by(by_fps).or_else(|| rates.iter().max_by(by_fps)).copied()
}

#[cfg(test)]
mod tests {
    use super::super::fourcc::understood;
    use super::*;

    type Row = (&'static str, &'static [(u32, u32, &'static [u32])]);

    /// A typical USB camera: raw pictures are slow at large sizes.
    const USB: &[Row] = &[
        ("MJPG", &[(640, 480, &[30, 15]), (1280, 720, &[30, 10]), (1920, 1080, &[30])]),
        ("YUYV", &[(320, 240, &[30]), (640, 480, &[5, 30, 60]), (1280, 720, &[10]), (1920, 1080, &[5])]),
        ("H264", &[(640, 480, &[30])]),
    ];

    /// Chooses from a table and writes the choice down.
    fn chosen(table: &'static [Row], width: u32, height: u32, fps: f64) -> String {
        let offer = |(name, sizes): &Row| {
            let fourcc = FourCc::parse(name).unwrap();
            let sizes = sizes.iter().map(|&(width, height, _)| SizeRange::one(width, height)).collect();
            Offer { fourcc, layout: understood(fourcc), description: String::new(), sizes }
        };
        let offers: Vec<_> = table.iter().map(offer).collect();
        let rates = |fourcc: FourCc, size: (u32, u32)| {
            let row = table.iter().find(|(name, _)| FourCc::parse(name) == Some(fourcc)).unwrap();
            let fps = row.1.iter().find(|&&(w, h, _)| (w, h) == size).map_or(&[][..], |entry| entry.2);
            fps.iter().map(|&fps| Rate { numerator: 1, denominator: fps }).collect()
        };
        match choose(&offers, Wanted { width, height, fps }, rates) {
            None => "nothing".into(),
            Some(mode) => {
                let fps = mode.rate.map_or_else(|| "any".into(), |rate| rate.fps().to_string());
                format!("{} {}x{} {fps}", mode.fourcc, mode.size.0, mode.size.1)
            }
        }
    }

    #[test]
    fn the_cheapest_adequate_mode_is_chosen() {
        for (width, height, fps, want) in [
            (0, 0, 0.0, "YUYV 640x480 30"),
            (0, 0, 10.0, "YUYV 640x480 30"),
            (0, 0, 5.0, "YUYV 640x480 5"),
            (0, 0, 120.0, "YUYV 640x480 60"),
            (1280, 720, 0.0, "MJPG 1280x720 30"),
            (1280, 720, 10.0, "YUYV 1280x720 10"),
            (1280, 720, 8.0, "YUYV 1280x720 10"),
            (1000, 0, 0.0, "MJPG 1280x720 30"),
            (0, 200, 0.0, "YUYV 320x240 30"),
            (4000, 3000, 30.0, "MJPG 1920x1080 30"),
            (320, 240, 0.0, "YUYV 320x240 30"),
        ] {
            assert_eq!(chosen(USB, width, height, fps), want, "wanted {width}x{height} at {fps}");
        }
    }

    #[test]
    fn a_choice_has_a_reason() {
        let reason = |width, height, fps| {
            let sizes = |sizes: &[(u32, u32)]| sizes.iter().map(|&(w, h)| SizeRange::one(w, h)).collect();
            let offer = |name, list: &[(u32, u32)]| {
                let fourcc = FourCc::parse(name).unwrap();
                let layout = understood(fourcc);
                Offer { fourcc, layout, description: String::new(), sizes: sizes(list) }
            };
            let offers = [
                offer("YUYV", &[(640, 480), (1280, 720)]),
                offer("MJPG", &[(640, 480), (1280, 720), (1920, 1080)]),
            ];
            let rates = |fourcc: FourCc, size: (u32, u32)| {
                let fps = if fourcc.0 == *b"YUYV" && size.0 > 640 { 10 } else { 30 };
                vec![Rate { numerator: 1, denominator: fps }]
            };
            choose(&offers, Wanted { width, height, fps }, rates).unwrap().reason
        };
        for (width, height, fps, want) in [
            (0, 0, 0.0, "the size the model needs; the cheapest of 2 formats at 15 fps or more"),
            (1280, 720, 30.0, "the size asked for; the only format with it at 30 fps or more"),
            (
                1000,
                700,
                60.0,
                "the smallest size that covers 1000x700; no format reaches 60 fps, this is the fastest",
            ),
            (4000, 3000, 0.0, "the largest size; the only format with it at 15 fps or more"),
        ] {
            assert_eq!(reason(width, height, fps), want, "wanted {width}x{height} at {fps}");
        }
    }

    #[test]
    fn grey_is_the_last_resort_and_unknown_formats_are_none() {
        const GREY: &[Row] = &[("GREY", &[(640, 480, &[30])]), ("MJPG", &[(640, 480, &[30])])];
        assert_eq!(chosen(GREY, 0, 0, 0.0), "MJPG 640x480 30");
        assert_eq!(chosen(&GREY[..1], 0, 0, 0.0), "GREY 640x480 30");
        assert_eq!(chosen(&USB[2..], 0, 0, 0.0), "nothing");
        assert_eq!(chosen(&[], 0, 0, 0.0), "nothing");
    }

    #[test]
    fn a_driver_that_lists_neither_sizes_nor_rates_is_asked_for_the_wanted_size() {
        const SILENT: &[Row] = &[("NV12", &[])];
        assert_eq!(chosen(SILENT, 0, 0, 0.0), "NV12 640x480 any");
        assert_eq!(chosen(SILENT, 800, 600, 0.0), "NV12 800x600 any");
    }

    #[test]
    fn stepwise_sizes_are_rounded_up_to_a_step() {
        let range = SizeRange { least: (32, 32), most: (1920, 1080), step: (16, 8) };
        assert_eq!(range.fit((640, 480)), (640, 480));
        assert_eq!(range.fit((641, 479)), (656, 480));
        assert_eq!(range.fit((1, 1)), (32, 32));
        assert_eq!(range.fit((9999, u32::MAX)), (1920, 1080));
    }
}
