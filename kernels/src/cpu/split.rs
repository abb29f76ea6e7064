//! Blocks of activations that are quantized twice, see [`Arithmetic::Int8Split`].
//!
//! One entry far above the other 31 of its block leaves them few of the 255 steps. What the first
//! integers leave over is quantized again, as a tile of its own for each such block, which has a row of
//! zeros where a row of the tile needs none. There are few such blocks, so their products are taken one
//! by one with the kernels of whole tiles.
//!
//! [`Arithmetic::Int8Split`]: crate::Arithmetic::Int8Split

use super::packed::{Coding, UNIT};
use super::tiles::{MAX_HEIGHT, SIGN, Tile, TileLayout, quantize32};

/// A block is split if fewer of its 32 magnitudes than this ...
const FEWEST: i32 = 16;

/// ... reach the largest divided by this.
const RATIO: f32 = 16.0;

/// Numbers before the tiles: how many there are, then block and rows of each.
const HEAD: usize = 1;
const ENTRY: usize = 2;

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

    /// Finds the blocks of a tile of `height` rows whose rows, maybe fewer, are `x`; quantizes what is
    /// left over of them with `fill`.
    pub(crate) fn fill(
        self,
        x: &[f32],
        height: usize,
        numbers: &mut [i32],
        fill: impl Fn(TileLayout, &[f32], usize, &mut [i32]),
    ) {
        let (head, tiles) = numbers.split_at_mut(HEAD + self.blocks * ENTRY);
        let (count, entries) = head.split_at_mut(HEAD);
        count[0] = 0;
        let mut free =
            tiles.chunks_exact_mut(self.tile.row_len() * height).zip(entries.chunks_exact_mut(ENTRY));
        for block in 0..self.blocks {
            let rows = || x.chunks_exact(self.blocks * UNIT).map(|row| &row.as_chunks::<UNIT>().0[block]);
            let mask = rows().enumerate().fold(0, |mask, (r, row)| mask | u32::from(is_split(row)) << r);
            if mask == 0 {
                continue;
            }
            let Some((tile, entry)) = free.next() else { return };
            let mut left = [[0.0; UNIT]; MAX_HEIGHT];
            for (r, (row, left)) in rows().zip(&mut left).enumerate() {
                if mask >> r & 1 == 1 {
                    *left = left_over(row);
                }
            }
            fill(self.tile, left[..height].as_flattened(), height, tile);
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

/// Whether one entry or few leave the others too few steps.
#[inline(always)]
fn is_split(x: &[f32; UNIT]) -> bool {
    // Bits of magnitudes have the order of the magnitudes.
    let magnitude = |x: &f32| (x.to_bits() & !SIGN).cast_signed();
    let largest = f32::from_bits(x.iter().fold(0, |top, x| top.max(magnitude(x))).cast_unsigned());
    let least = magnitude(&(largest / RATIO));
    let loud = x.iter().fold(0, |count, x| count + i32::from(magnitude(x) >= least));
    loud < FEWEST && largest.is_finite()
}

/// What the integers of a block leave over.
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
        let mut numbers = vec![-1; layout.len(4)];
        layout.fill(&x, 4, &mut numbers, TileLayout::fill);
        let found: Vec<_> = layout.splits(4, &numbers).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].block, found[0].rows), (1, 0b10));
        // Ones are left over but for the step of the first integers.
        let scales: Vec<f32> =
            found[0].tile.scales.iter().map(|bits| f32::from_bits(bits.cast_unsigned())).collect();
        assert!(scales[0] == 0.0 && scales[1] > 0.0 && scales[2] == 0.0, "{scales:?}");
        let even: Vec<f32> = (0..UNIT).map(|i| (i as f32 * 0.7).cos()).collect();
        layout.fill(&even.repeat(9), 4, &mut numbers, TileLayout::fill);
        assert_eq!(layout.splits(4, &numbers).count(), 0);
        assert!(SplitLayout::new(256, Coding::of(DType::Q4K)).is_none());
        assert!(SplitLayout::new(256, Coding::of(DType::F16)).is_none());
    }
}
