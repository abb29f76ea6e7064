//! The controls of a device: what there is, and setting them from the configuration.

use std::collections::BTreeMap;
use std::io;

use v4l::v4l_sys::*;
use v4l::v4l2::vidioc;

use super::MOST_ENTRIES;
use super::device::{Device, Plain, text};
use crate::camera::tuning::ControlValue;

/// What values a control takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlKind {
    /// Numbers.
    Integer,
    /// 0 or 1.
    Switch,
    /// The number of an item.
    Menu,
    /// Bits of a number.
    Bits,
    /// None: it is pressed.
    Button,
    /// Nothing that fits 32 bits.
    Other,
}

/// A control of a device.
#[derive(Clone, Debug)]
pub(super) struct Control {
    id: u32,
    /// Its name as `v4l2-ctl` writes it.
    pub(super) name: String,
    pub(super) kind: ControlKind,
    pub(super) least: i32,
    pub(super) most: i32,
    pub(super) step: i32,
    pub(super) default: i32,
    /// Items by number.
    pub(super) menu: Vec<(i32, String)>,
    /// Whether it can be set at all.
    pub(super) is_settable: bool,
    /// Whether it has an effect now: an exposure time has none while exposure is automatic.
    pub(super) is_active: bool,
}

/// Why a control is not set.
#[derive(Debug, thiserror::Error)]
#[error("control {name} = {value}: {problem}")]
pub(super) struct ControlError {
    name: String,
    value: ControlValue,
    problem: String,
}

const TYPE_INTEGER: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
const TYPE_BOOLEAN: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN;
const TYPE_MENU: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU;
const TYPE_INTEGER_MENU: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU;
const TYPE_BITMASK: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK;
const TYPE_BUTTON: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON;
const TYPE_CTRL_CLASS: u32 = v4l2_ctrl_type_V4L2_CTRL_TYPE_CTRL_CLASS;

// SAFETY: C structures of integers, integer arrays and unions of such.
unsafe impl Plain for v4l2_queryctrl {}
// SAFETY: as above.
unsafe impl Plain for v4l2_querymenu {}
// SAFETY: as above.
unsafe impl Plain for v4l2_control {}

impl Device {
    /// VIDIOC_QUERYCTRL and VIDIOC_QUERYMENU: all controls but headings. A device without any has an
    /// empty list.
    pub(super) fn controls(&self) -> Vec<Control> {
        let mut controls = Vec::new();
        let mut id = 0;
        for _ in 0..MOST_ENTRIES {
            let mut query = v4l2_queryctrl { id: id | V4L2_CTRL_FLAG_NEXT_CTRL, ..Plain::zeroed() };
            if self.ioctl(vidioc::VIDIOC_QUERYCTRL, &mut query).is_err() || query.id <= id {
                break;
            }
            id = query.id;
            let is_hidden = query.flags & V4L2_CTRL_FLAG_DISABLED != 0 || query.type_ == TYPE_CTRL_CLASS;
            if !is_hidden {
                controls.push(self.control(&query));
            }
        }
        controls
    }

    fn control(&self, query: &v4l2_queryctrl) -> Control {
        let kind = match query.type_ {
            TYPE_INTEGER => ControlKind::Integer,
            TYPE_BOOLEAN => ControlKind::Switch,
            TYPE_MENU | TYPE_INTEGER_MENU => ControlKind::Menu,
            TYPE_BITMASK => ControlKind::Bits,
            TYPE_BUTTON => ControlKind::Button,
            _ => ControlKind::Other,
        };
        let menu = match kind {
            ControlKind::Menu => self.menu(query),
            _ => Vec::new(),
        };
        Control {
            id: query.id,
            name: variable_name(&text(&query.name)),
            kind,
            least: query.minimum,
            most: query.maximum,
            step: query.step,
            default: query.default_value,
            menu,
            is_settable: query.flags & V4L2_CTRL_FLAG_READ_ONLY == 0 && kind != ControlKind::Other,
            is_active: query.flags & V4L2_CTRL_FLAG_INACTIVE == 0,
        }
    }

    /// The items of a menu; numbers without an item are left out.
    fn menu(&self, query: &v4l2_queryctrl) -> Vec<(i32, String)> {
        let first = query.minimum.max(0).cast_unsigned();
        let last = query.maximum.max(0).cast_unsigned().min(first.saturating_add(MOST_ENTRIES));
        let mut items = Vec::new();
        for index in first..=last {
            let mut item = v4l2_querymenu { id: query.id, index, ..Plain::zeroed() };
            if self.ioctl(vidioc::VIDIOC_QUERYMENU, &mut item).is_err() {
                continue;
            }
            let union = item.__bindgen_anon_1;
            let name = if query.type_ == TYPE_INTEGER_MENU {
                // SAFETY: menus of numbers have this member; any bytes are a number.
                unsafe { union.value }.to_string()
            } else {
                // SAFETY: menus of names have this member; any bytes are bytes.
                text(&unsafe { union.name })
            };
            items.push((index.cast_signed(), name));
        }
        items
    }

    /// VIDIOC_G_CTRL: the value in force, if the control can be read.
    pub(super) fn control_value(&self, control: &Control) -> Option<i32> {
        let mut value = v4l2_control { id: control.id, value: 0 };
        let is_readable = !matches!(control.kind, ControlKind::Button | ControlKind::Other);
        (is_readable && self.ioctl(vidioc::VIDIOC_G_CTRL, &mut value).is_ok()).then_some(value.value)
    }

    /// VIDIOC_S_CTRL
    fn set_control(&self, control: &Control, value: i32) -> io::Result<()> {
        self.ioctl(vidioc::VIDIOC_S_CTRL, &mut v4l2_control { id: control.id, value })
    }

    /// Sets controls by name: switches and menus first, since they decide whether numbers have an
    /// effect.
    pub(super) fn set_controls(&self, values: &BTreeMap<String, ControlValue>) -> Result<(), ControlError> {
        if values.is_empty() {
            return Ok(());
        }
        let controls = self.controls();
        let mut settings = Vec::new();
        for (name, value) in values {
            let refused = |problem| ControlError { name: name.clone(), value: value.clone(), problem };
            let control = find(&controls, name).map_err(refused)?;
            settings.push((control, control.number(value).map_err(refused)?, value));
        }
        settings.sort_by_key(|(control, ..)| control.kind == ControlKind::Integer);
        for (control, number, value) in settings {
            self.set_control(control, number).map_err(|error| ControlError {
                name: control.name.clone(),
                value: value.clone(),
                problem: format!("the device refuses it: {error}"),
            })?;
        }
        Ok(())
    }
}

fn find<'a>(controls: &'a [Control], name: &str) -> Result<&'a Control, String> {
    controls.iter().find(|control| control.name == name).ok_or_else(|| {
        let known: Vec<_> = controls.iter().filter(|c| c.is_settable).map(|c| c.name.as_str()).collect();
        match known.as_slice() {
            [] => "the device has no controls".to_owned(),
            known => format!("no such control, the device has {}", known.join(", ")),
        }
    })
}

impl Control {
    /// The number to set for a value of the configuration, or what is wrong with it.
    fn number(&self, value: &ControlValue) -> Result<i32, String> {
        if !self.is_settable {
            return Err("it can only be read".to_owned());
        }
        let number = match value {
            ControlValue::Switch(value) if self.kind == ControlKind::Switch => i64::from(*value),
            ControlValue::Number(value) => *value,
            ControlValue::Item(name) => {
                let item = self.menu.iter().find(|(_, item)| item.eq_ignore_ascii_case(name));
                item.map(|(number, _)| i64::from(*number)).ok_or_else(|| self.accepted())?
            }
            ControlValue::Switch(_) => return Err(self.accepted()),
        };
        let number = i32::try_from(number).map_err(|_| self.accepted())?;
        let is_accepted = match self.kind {
            ControlKind::Menu => self.menu.iter().any(|(item, _)| *item == number),
            ControlKind::Bits | ControlKind::Button => true,
            _ => {
                let offset = i64::from(number) - i64::from(self.least);
                (self.least..=self.most).contains(&number) && offset % i64::from(self.step.max(1)) == 0
            }
        };
        if is_accepted { Ok(number) } else { Err(self.accepted()) }
    }

    /// The values it takes, in words.
    pub(super) fn range(&self) -> String {
        match self.kind {
            ControlKind::Switch => "true or false".to_owned(),
            ControlKind::Menu => {
                let items: Vec<_> =
                    self.menu.iter().map(|(number, name)| format!("{number} \"{name}\"")).collect();
                format!("one of {}", items.join(", "))
            }
            ControlKind::Bits => format!("bits of {:#x}", self.most),
            ControlKind::Button => "any number presses it".to_owned(),
            ControlKind::Other => "not a number".to_owned(),
            ControlKind::Integer if self.step > 1 => {
                format!("{} to {} in steps of {}", self.least, self.most, self.step)
            }
            ControlKind::Integer => format!("{} to {}", self.least, self.most),
        }
    }

    fn accepted(&self) -> String {
        format!("not accepted, expected {}", self.range())
    }
}

/// The name as `v4l2-ctl` writes it: small letters and digits, everything else as one underscore.
fn variable_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(kind: ControlKind, (least, most, step): (i32, i32, i32)) -> Control {
        let menu = match kind {
            ControlKind::Menu => {
                vec![(0, "Disabled".to_owned()), (1, "50 Hz".to_owned()), (3, "Auto".to_owned())]
            }
            _ => Vec::new(),
        };
        let name = "a_control".to_owned();
        let (is_settable, is_active) = (true, true);
        Control { id: 1, name, kind, least, most, step, default: least, menu, is_settable, is_active }
    }

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        for (name, want) in [
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("  Power Line Frequency ", "power_line_frequency"),
            ("64 bit", "64_bit"),
        ] {
            assert_eq!(variable_name(name), want);
        }
    }

    #[test]
    fn values_within_the_range_are_accepted() {
        let number = control(ControlKind::Integer, (-64, 64, 2));
        assert_eq!(number.number(&ControlValue::Number(-62)), Ok(-62));
        let switch = control(ControlKind::Switch, (0, 1, 1));
        assert_eq!(switch.number(&ControlValue::Switch(true)), Ok(1));
        assert_eq!(switch.number(&ControlValue::Number(0)), Ok(0));
        let menu = control(ControlKind::Menu, (0, 3, 1));
        assert_eq!(menu.number(&ControlValue::Item("50 hz".into())), Ok(1));
        assert_eq!(menu.number(&ControlValue::Number(3)), Ok(3));
    }

    #[test]
    fn other_values_are_refused_with_the_range() {
        let number = control(ControlKind::Integer, (-64, 64, 2));
        for value in [ControlValue::Number(65), ControlValue::Number(1), ControlValue::Number(i64::MAX)] {
            let problem = number.number(&value).unwrap_err();
            assert_eq!(problem, "not accepted, expected -64 to 64 in steps of 2", "{value}");
        }
        let menu = control(ControlKind::Menu, (0, 3, 1));
        for value in [ControlValue::Number(2), ControlValue::Item("60 Hz".into()), ControlValue::Switch(true)]
        {
            let problem = menu.number(&value).unwrap_err();
            assert_eq!(
                problem, "not accepted, expected one of 0 \"Disabled\", 1 \"50 Hz\", 3 \"Auto\"",
                "{value}"
            );
        }
        let fixed = Control { is_settable: false, ..control(ControlKind::Integer, (0, 1, 1)) };
        assert_eq!(fixed.number(&ControlValue::Number(0)).unwrap_err(), "it can only be read");
        let widest = control(ControlKind::Integer, (i32::MIN, i32::MAX, 0));
        assert_eq!(widest.number(&ControlValue::Number(7)), Ok(7));
    }

    #[test]
    fn an_unknown_control_is_refused_with_the_known_ones() {
        let controls = [control(ControlKind::Integer, (0, 9, 1))];
        let problem = find(&controls, "gian").unwrap_err();
        assert_eq!(problem, "no such control, the device has a_control");
        assert_eq!(find(&[], "gain").unwrap_err(), "the device has no controls");
    }
}
