//! Rows of several sequences on their way through the layers.
//!
//! Between two layers a [`Pass`] is all there is to keep, so that one pass can wait while another one
//! runs. It knows the pages of its sequences itself: until its last layer none of them may be
//! extended, forked or rewound, unless its rows are withdrawn first.

use std::ops::Range;

use kernels::{Device, DeviceError, PAGE, PageId, Slot, Span};

use super::kv_cache::{KvCache, OutOfPages, Sequence};

/// Rows of a pass at most: the 144 visual tokens of a picture with a short question fit.
pub const MAX_ROWS: usize = 192;

/// Parts of a pass at most, each the rows of one placement.
pub const MAX_PARTS: usize = 64;

/// Consecutive rows of one sequence.
#[derive(Clone, Debug)]
struct Part {
    /// Rows of the pass.
    rows: Range<usize>,
    /// Position of the first of them.
    position: usize,
    /// Where in [`Pass::pages`] the pages of the sequence are.
    pages: Range<usize>,
}

/// Rows on their way through the layers.
pub struct Pass<D: Device> {
    positions: Vec<u32>,
    slots: Vec<Slot>,
    parts: Vec<Part>,
    pages: Vec<PageId>,
    x: D::Tensor, // (rows, hidden)
}

/// What a layer works on.
pub(super) struct Layered<'a, D: Device> {
    /// Position of each row.
    pub(super) positions: &'a [u32],
    /// Where the keys and values of each row go.
    pub(super) slots: &'a [Slot],
    /// Which sequence each row belongs to.
    pub(super) spans: &'a [Span<'a>],
    /// The rows `(rows, hidden)`.
    pub(super) x: &'a mut D::Tensor,
}

impl<D: Device> Pass<D> {
    /// Room for [`MAX_ROWS`] rows of `hidden` numbers, of sequences of up to `context` positions.
    pub(super) fn new(device: &D, hidden: usize, context: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            positions: Vec::with_capacity(MAX_ROWS),
            slots: Vec::with_capacity(MAX_ROWS),
            parts: Vec::with_capacity(MAX_PARTS),
            pages: Vec::with_capacity(MAX_PARTS * context.div_ceil(PAGE)),
            x: device.tensor(MAX_ROWS, hidden)?,
        })
    }

    /// Rows of the pass.
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// Positions that each of its rows sees, its own among them, summed up.
    pub(super) fn seen(&self) -> usize {
        self.positions.iter().map(|&position| position as usize + 1).sum()
    }

    /// Rows that can be added; none when the pass has all the parts it may have.
    pub fn room(&self) -> usize {
        if self.parts.len() < MAX_PARTS { MAX_ROWS - self.rows() } else { 0 }
    }

    /// The rows `(rows, hidden)`.
    pub(super) fn x(&self) -> &D::Tensor {
        &self.x
    }

    /// The rows `(rows, hidden)`.
    pub(super) fn x_mut(&mut self) -> &mut D::Tensor {
        &mut self.x
    }

    /// Takes all rows out.
    pub(super) fn clear(&mut self, device: &D) {
        self.positions.clear();
        self.slots.clear();
        self.parts.clear();
        self.pages.clear();
        device.set_rows(&mut self.x, 0);
    }

    /// Makes room for `count` rows, at most [`Pass::room`], at the end of `sequence`. Their numbers
    /// are undefined. On error nothing has changed.
    pub(super) fn place(
        &mut self,
        device: &D,
        cache: &mut KvCache<D>,
        sequence: &mut Sequence,
        count: usize,
    ) -> Result<Range<usize>, OutOfPages> {
        assert!(count <= self.room(), "{count} rows for a pass with room for {}", self.room());
        let (rows, position) = (self.rows()..self.rows() + count, sequence.len());
        cache.extend(device, sequence, count, &mut self.slots)?;
        self.positions.extend((position..position + count).map(|position| position as u32));
        let first = self.pages.len();
        self.pages.extend_from_slice(sequence.pages());
        self.parts.push(Part { rows: rows.clone(), position, pages: first..self.pages.len() });
        device.set_rows(&mut self.x, rows.end);
        Ok(rows)
    }

    /// Takes one part out, `rows` being what [`Pass::place`] returned less what was withdrawn before
    /// it: later rows move down. `spare` is scratch with room for [`MAX_ROWS`].
    pub(super) fn withdraw(&mut self, device: &D, rows: Range<usize>, spare: &mut D::Tensor) {
        let part = self.parts.iter().position(|part| part.rows == rows);
        self.parts.remove(part.expect("rows are one part of the pass"));
        let later = rows.end..self.rows();
        if !later.is_empty() {
            device.set_rows(spare, later.len());
            device.copy_rows(&self.x, later.clone(), spare, 0);
            device.copy_rows(spare, 0..later.len(), &mut self.x, rows.start);
        }
        for part in self.parts.iter_mut().filter(|part| part.rows.start >= rows.end) {
            part.rows = part.rows.start - rows.len()..part.rows.end - rows.len();
        }
        self.positions.drain(rows.clone());
        self.slots.drain(rows);
        device.set_rows(&mut self.x, self.positions.len());
    }

    /// Gives `work` what a layer needs. Parts without rows are left out; sequences with a common
    /// beginning stand beside each other.
    pub(super) fn layered<R>(&mut self, work: impl FnOnce(Layered<'_, D>) -> R) -> R {
        let mut spans = [const { Span { rows: 0..0, position: 0, pages: &[] } }; MAX_PARTS];
        let parts = self.parts.iter().filter(|part| !part.rows.is_empty());
        let mut count = 0;
        for (span, Part { rows, position, pages }) in spans.iter_mut().zip(parts) {
            *span = Span { rows: rows.clone(), position: *position, pages: &self.pages[pages.clone()] };
            count += 1;
        }
        spans[..count].sort_unstable_by(|a, b| a.pages.cmp(b.pages));
        let Self { positions, slots, x, .. } = self;
        work(Layered { positions, slots, spans: &spans[..count], x })
    }
}
