//! Blocks of activations that are quantized twice, see [`Arithmetic::Int8Split`].
//!
//! One entry far above the other 31 of its block leaves them few of the 255 steps. What the first
//! integers leave over is quantized again, as a tile of its own for each such block, which has a row of
//! zeros where a row of the tile needs none. There are few such blocks, so their products are taken one
//! by one.
//!
//! [`Arithmetic::Int8Split`]: crate::Arithmetic::Int8Split

use super::packed::{Coding, UNIT};
use super::tiles::{MAX_HEIGHT, Tile, TileLayout, quantize32};
use crate::device::Arithmetic;

/// A block is split if fewer of its 32 integers than this ...
const FEWEST: u8 = 16;

/// ... have this magnitude.
const LEAST: u8 = 4;

/// Numbers before the tiles: how many there are, then block and rows of each.
const HEAD: usize = 1;
const ENTRY: usize = 2;

/// How a tile is laid out, and behind it what its split blocks leave over, if they are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layouts {
    pub(crate) tile: TileLayout,
    pub(crate) split: Option<SplitLayout>,
}

impl Layouts {
    /// For weights of `cols` inputs coded as `coding` says, or floats.
    pub(crate) fn new(cols: usize, coding: Option<Coding>, arithmetic: Arithmetic) -> Self {
        let is_split = arithmetic == Arithmetic::Int8Split;
        let split = if is_split { SplitLayout::new(cols, coding) } else { None };
        Self { tile: TileLayout::new(cols, coding), split }
    }

    /// Most numbers of a tile of `height` rows.
    pub(crate) fn len(self, height: usize) -> usize {
        self.tile.row_len() * height + self.split.map_or(0, |split| split.len(height))
    }

    /// The split blocks of a filled tile of `height` rows.
    pub(crate) fn splits(self, height: usize, numbers: &[i32]) -> impl Iterator<Item = Split<'_>> {
        let behind = &numbers[self.tile.row_len() * height..];
        self.split.into_iter().flat_map(move |split| split.splits(height, behind))
    }

    /// Fills a tile of `height` rows, see [`TileLayout::fill`], and what is behind it.
    #[inline(always)]
    pub(crate) fn fill(self, x: &[f32], height: usize, numbers: &mut [i32]) {
        self.fill_by(x, height, numbers, TileLayout::fill);
    }

    /// The same with a function of its own for the tile.
    #[inline(always)]
    pub(crate) fn fill_by(
        self,
        x: &[f32],
        height: usize,
        numbers: &mut [i32],
        fill: impl Fn(TileLayout, &[f32], usize, &mut [i32]),
    ) {
        let (tile, behind) = numbers.split_at_mut(self.tile.row_len() * height);
        fill(self.tile, x, height, tile);
        if let Some(split) = self.split {
            split.fill(x, self.tile.tile(height, tile), behind, TileLayout::fill);
        }
    }
}

/// How the split blocks of a tile are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitLayout {
    blocks: usize,
    /// Of one block.
    tile: TileLayout,
}

/// A block of a tile that some rows need twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split<'a> {
    /// Which block of the inputs.
    pub(crate) block: usize,
    /// Bit `r` is set if row `r` needs it.
    pub(crate) rows: u32,
    /// What was left over.
    pub(crate) tile: Tile<'a>,
}

impl SplitLayout {
    /// For weights of `cols` inputs; `None` where blocks are not of 32.
    pub(crate) fn new(cols: usize, coding: Option<Coding>) -> Option<Self> {
        let coding = coding.filter(|coding| coding.block == UNIT)?;
        Some(Self { blocks: cols / UNIT, tile: TileLayout::new(UNIT, Some(coding)) })
    }

    /// Most numbers that the split blocks of a tile of `height` rows take.
    pub(crate) fn len(self, height: usize) -> usize {
        HEAD + self.blocks * (ENTRY + self.tile.row_len() * height)
    }

    /// Finds the split blocks of a filled tile of the rows `x`, maybe fewer than its height, whose words are
    /// still in the order of rows; quantizes what is left over of them with `fill`.
    #[inline(always)]
    pub(crate) fn fill(
        self,
        x: &[f32],
        filled: Tile<'_>,
        numbers: &mut [i32],
        fill: impl Fn(TileLayout, &[f32], usize, &mut [i32]),
    ) {
        match filled.height {
            1 => self.fill_rows::<1>(x, filled, numbers, fill),
            2 => self.fill_rows::<2>(x, filled, numbers, fill),
            4 => self.fill_rows::<4>(x, filled, numbers, fill),
            8 => self.fill_rows::<8>(x, filled, numbers, fill),
            height => unreachable!("a tile of {height} rows"),
        }
    }

    #[inline(always)]
    fn fill_rows<const H: usize>(
        self,
        x: &[f32],
        filled: Tile<'_>,
        numbers: &mut [i32],
        fill: impl Fn(TileLayout, &[f32], usize, &mut [i32]),
    ) {
        let (head, tiles) = numbers.split_at_mut(HEAD + self.blocks * ENTRY);
        let (count, entries) = head.split_at_mut(HEAD);
        count[0] = 0;
        let mut free = tiles.chunks_exact_mut(self.tile.row_len() * H).zip(entries.chunks_exact_mut(ENTRY));
        let words = filled.words.as_chunks::<H>().0.as_chunks::<{ UNIT / 4 }>().0;
        for (block, (words, scales)) in words.iter().zip(filled.scales.as_chunks::<H>().0).enumerate() {
            let mask = split_rows(words, scales);
            if mask == 0 {
                continue;
            }
            let Some((tile, entry)) = free.next() else { return };
            let mut left = [[0.0; UNIT]; MAX_HEIGHT];
            for (r, (row, left)) in x.chunks_exact(self.blocks * UNIT).zip(&mut left).enumerate() {
                if mask >> r & 1 == 1 {
                    *left = left_over(&row.as_chunks().0[block]);
                }
            }
            fill(self.tile, left[..H].as_flattened(), H, tile);
            entry.copy_from_slice(&[block as i32, mask.cast_signed()]);
            count[0] += 1;
        }
    }

    /// The split blocks of a filled tile, in ascending order.
    pub(crate) fn splits(self, height: usize, numbers: &[i32]) -> impl Iterator<Item = Split<'_>> {
        let (head, tiles) = numbers.split_at(HEAD + self.blocks * ENTRY);
        let entries = head[HEAD..].chunks_exact(ENTRY).take(head[0] as usize);
        let tiles = tiles.chunks_exact(self.tile.row_len() * height);
        entries.zip(tiles).map(move |(entry, numbers)| Split {
            block: entry[0] as usize,
            rows: entry[1].cast_unsigned(),
            tile: self.tile.tile(height, numbers),
        })
    }
}

/// Rows of a block in which one entry or few leave the others too few steps.
#[inline(always)]
fn split_rows<const H: usize>(words: &[[i32; H]; UNIT / 4], scales: &[i32; H]) -> u32 {
    let mut loud = [[0_u8; 4]; H];
    for words in words {
        for (loud, word) in loud.iter_mut().zip(words) {
            for (count, byte) in loud.iter_mut().zip(word.to_le_bytes()) {
                *count += u8::from(byte.wrapping_add(LEAST - 1) > 2 * (LEAST - 1));
            }
        }
    }
    let mut mask = 0;
    for (r, (loud, scale)) in loud.iter().zip(scales).enumerate() {
        let scale = f32::from_bits(scale.cast_unsigned());
        let is_split = loud.iter().sum::<u8>() < FEWEST && scale > 0.0 && scale.is_finite();
        mask |= u32::from(is_split) << r;
    }
    mask
}

/// What the integers of a block leave over.
#[inline(always)]
fn left_over(x: &[f32; UNIT]) -> [f32; UNIT] {
    let mut q = [0; UNIT];
    let scale = quantize32(x, &mut q);
    std::array::from_fn(|i| x[i] - f32::from(q[i]) * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn one_loud_entry_splits_its_block_in_its_row_only() {
        let layout = SplitLayout::new(3 * UNIT, Coding::of(DType::Q8_0)).expect("blocks of 32");
        let mut x = vec![1.0; 3 * 3 * UNIT];
        x[3 * UNIT + UNIT + 5] = 100.0; // Row 1, block 1.
        let whole = TileLayout::new(3 * UNIT, Coding::of(DType::Q8_0));
        let splits = |x: &[f32], numbers: &mut [i32]| {
            let mut tile = vec![-1; whole.row_len() * 4];
            whole.fill(x, 4, &mut tile);
            layout.fill(x, whole.tile(4, &tile), numbers, TileLayout::fill);
        };
        let mut numbers = vec![-1; layout.len(4)];
        splits(&x, &mut numbers);
        let found: Vec<_> = layout.splits(4, &numbers).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].block, found[0].rows), (1, 0b10));
        // Ones are left over but for the step of the first integers.
        let scales: Vec<f32> =
            found[0].tile.scales.iter().map(|bits| f32::from_bits(bits.cast_unsigned())).collect();
        assert!(scales[0] == 0.0 && scales[1] > 0.0 && scales[2] == 0.0, "{scales:?}");
        let even: Vec<f32> = (0..UNIT).map(|i| (i as f32 * 0.7).cos()).collect();
        splits(&even.repeat(9), &mut numbers);
        assert_eq!(layout.splits(4, &numbers).count(), 0);
        assert!(SplitLayout::new(256, Coding::of(DType::Q4K)).is_none());
        assert!(SplitLayout::new(256, Coding::of(DType::F16)).is_none());
    }
}
