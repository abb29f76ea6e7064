//! How text looks on a terminal, and where there is none.

use crate::config::wants_plain_text;

/// Rows are taken to be so long where a terminal does not tell.
const COLUMNS: usize = 80;

/// What the reader's side can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Whether there are colours.
    pub(super) has_colors: bool,
    /// Columns of a row that can be written again, if any can.
    pub(super) columns: Option<fn() -> usize>,
}

impl Look {
    /// A file, a pipe: lines and nothing else.
    pub(super) fn plain() -> Self {
        Self { has_colors: false, columns: None }
    }

    /// The terminal behind standard output.
    pub(super) fn of_terminal() -> Self {
        let columns = || terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0.into());
        Self { has_colors: !wants_plain_text(), columns: Some(columns) }
    }

    /// Text in a colour or style, by its number among the SGR codes of ECMA-48.
    pub(super) fn paint(&self, code: u8, text: &str) -> String {
        if self.has_colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }
}

/// Codes for [`Look::paint`].
pub(super) const FAINT: u8 = 2;
/// Bold red.
pub(super) const ALERT: u8 = 91;

/// A colour that stays with a name.
pub(super) fn color_of(name: &str) -> u8 {
    const COLORS: [u8; 6] = [36, 32, 33, 35, 34, 96];
    let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLORS[sum % COLORS.len()]
}

/// Time of day in UTC, of nanoseconds since the Unix epoch.
pub(super) fn time_of_day(nanoseconds: u64) -> String {
    let milliseconds = nanoseconds / 1_000_000;
    let seconds = milliseconds / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z", seconds % 60, milliseconds % 1000)
}
