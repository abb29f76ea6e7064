//! What a camera is told beside size and rate: its controls, and what the samples of a bare sensor
//! stand for.

use std::collections::BTreeMap;
use std::fmt;

use kernels::pixels::{SensorColor, ToneCurve, WhiteBalance};
use serde::{Deserialize, Serialize};

use crate::config::CameraConfig;

/// The value of a control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a control is a whole number, true, false, or the name of a menu item")]
pub enum ControlValue {
    /// On or off.
    Switch(bool),
    /// A number, or the number of a menu item.
    Number(i64),
    /// A menu item by name.
    Item(String),
}

impl fmt::Display for ControlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Item(value) => write!(f, "\"{value}\""),
        }
    }
}

/// From light to code values, for the samples of bare sensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SensorCurve {
    /// As the driver says: the curve of sRGB if its samples are linear.
    #[default]
    Auto,
    /// None: samples are code values already.
    None,
    /// That of sRGB.
    Srgb,
}

/// What a device is told whenever it is opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Tuning {
    /// Values of controls by name.
    pub(super) controls: BTreeMap<String, ControlValue>,
    black: u16,
    balance: WhiteBalance,
    curve: SensorCurve,
}

impl Tuning {
    /// What the configuration says.
    pub(super) fn new(config: &CameraConfig) -> Self {
        let balance = match *config.white_balance {
            [red, green, blue] => {
                WhiteBalance::Gains([red, green, blue].map(|gain| (gain * 256.0).round() as u16))
            }
            _ => WhiteBalance::GreyWorld,
        };
        let black = (config.black_level * 1023.0).round() as u16;
        Self { controls: config.controls.clone(), black, balance, curve: config.tone_curve }
    }

    /// What the samples of a sensor stand for, if its driver says whether they are linear.
    pub(super) fn sensor(&self, is_linear: bool) -> SensorColor {
        let curve = match self.curve {
            SensorCurve::Auto if is_linear => ToneCurve::Srgb,
            SensorCurve::Srgb => ToneCurve::Srgb,
            SensorCurve::Auto | SensorCurve::None => ToneCurve::None,
        };
        SensorColor { black: self.black, balance: self.balance, curve }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_follows_the_driver_unless_it_is_given() {
        let tuning = |tone_curve| Tuning::new(&CameraConfig { tone_curve, ..CameraConfig::default() });
        for (curve, linear, coded) in [
            (SensorCurve::Auto, ToneCurve::Srgb, ToneCurve::None),
            (SensorCurve::None, ToneCurve::None, ToneCurve::None),
            (SensorCurve::Srgb, ToneCurve::Srgb, ToneCurve::Srgb),
        ] {
            let tuning = tuning(curve);
            assert_eq!((tuning.sensor(true).curve, tuning.sensor(false).curve), (linear, coded));
        }
    }

    #[test]
    fn gains_and_black_are_those_of_the_configuration() {
        let white_balance = vec![2.0, 1.0, 1.5];
        let tuning = Tuning::new(&CameraConfig { white_balance, black_level: 0.0625, ..Default::default() });
        let sensor = tuning.sensor(false);
        assert_eq!((sensor.black, sensor.balance), (64, WhiteBalance::Gains([512, 256, 384])));
        assert_eq!(Tuning::default().sensor(false).balance, WhiteBalance::GreyWorld);
    }
}
