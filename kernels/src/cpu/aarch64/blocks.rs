//! The loops over blocks, for every aarch64 instruction set.
//!
//! Everything is `#[inline(always)]`, so that it becomes part of functions compiled for an
//! instruction set: those that `entry_points` makes.

use std::arch::aarch64::*;
use std::array;

use super::rows::{Floats, Integers, QUARTER, Step, each, with_neon, zeros};
use super::unpack::{bytes, groups, halves, pairs};
use crate::cpu::matmul::Sums;
use crate::cpu::packed::PANEL;
use crate::cpu::tiles::Tile;

/// Quarters of a panel.
const QUARTERS: usize = PANEL / QUARTER;

/// How an instruction set adds up products of bytes. A value is the proof that this processor has it.
///
/// Sums of `R` rows and four outputs are `R` vectors. Which sum is where is up to the instruction
/// set, the same for integers and floats. Methods are `#[inline(always)]`.
pub(super) trait Dots: Copy {
    /// One number of each row, at all its sums.
    fn rows<const R: usize>(self, numbers: &[i32; R]) -> Integers<R>;

    /// One number of each output, at its sums: in vectors 0, 2, 4 and so on, and in the others.
    fn outputs(self, numbers: int32x4_t) -> [int32x4_t; 2];

    /// Puts a vector of outputs for each row to where sums are.
    fn place<const R: usize>(self, by_row: Integers<R>) -> Integers<R>;

    /// The opposite of [`Dots::place`].
    fn by_row<const R: usize>(self, placed: Integers<R>) -> Integers<R>;

    /// Adds the products of `N` groups of codes and activations. `UNIT` is the bytes of 32 codes of
    /// a panel, which says how large codes are.
    fn add_groups<const UNIT: usize, const R: usize, const N: usize>(
        self,
        codes: &[uint8x16_t; N],
        words: &[[i32; R]; N],
        sums: &mut Integers<R>,
    );
}

/// Functions that pick the loop for a height and a type, compiled for `$features`; `$token` is a
/// [`Dots`].
macro_rules! entry_points {
    ($token:ident, $features:literal, [$($height:literal),+]) => {
        /// The outputs of one panel for one tile of integers.
        fn blocks_product(token: $token, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
            // SAFETY: the token proves the features.
            unsafe {
                match tile.height {
                    $($height => product_of::<$height>(token, dtype, panel, tile, out),)+
                    height => unreachable!("a tile of {height} rows"),
                }
            }
        }

        /// `R` is the height of the tile.
        #[target_feature(enable = $features)]
        fn product_of<const R: usize>(
            token: $token,
            dtype: DType,
            panel: &[u8],
            tile: Tile<'_>,
            out: &mut Sums,
        ) {
            match dtype {
                DType::F32 | DType::F16 | DType::BF16 => unreachable!("{dtype} in blocks"),
                DType::Q4_0 => blocks_of_32::<256, 32, R>(token, panel, tile, out),
                DType::Q4_1 => blocks_of_32::<256, 64, R>(token, panel, tile, out),
                DType::Q5_0 => blocks_of_32::<320, 32, R>(token, panel, tile, out),
                DType::Q5_1 => blocks_of_32::<320, 64, R>(token, panel, tile, out),
                DType::Q8_0 => blocks_of_32::<512, 32, R>(token, panel, tile, out),
                DType::Q2K => blocks_of_256::<256, 576, 8, 2, R>(token, panel, tile, out),
                DType::Q3K => blocks_of_256::<256, 288, 16, 2, R>(token, panel, tile, out),
                DType::Q4K => blocks_of_256::<256, 320, 4, 1, R>(token, panel, tile, out),
                DType::Q5K => blocks_of_256::<320, 320, 4, 1, R>(token, panel, tile, out),
                DType::Q6K => blocks_of_256::<384, 288, 16, 2, R>(token, panel, tile, out),
            }
        }

        #[inline(never)]
        #[target_feature(enable = $features)]
        fn blocks_of_32<const UNIT: usize, const PARAMETERS: usize, const R: usize>(
            token: $token,
            panel: &[u8],
            tile: Tile<'_>,
            out: &mut Sums,
        ) {
            blocks::blocks_of_32::<$token, UNIT, PARAMETERS, R>(token, panel, tile, out);
        }

        #[inline(never)]
        #[target_feature(enable = $features)]
        fn blocks_of_256<
            const UNIT: usize,
            const PARAMETERS: usize,
            const SUMS: usize,
            const SUBS: usize,
            const R: usize,
        >(
            token: $token,
            panel: &[u8],
            tile: Tile<'_>,
            out: &mut Sums,
        ) {
            blocks::blocks_of_256::<$token, UNIT, PARAMETERS, SUMS, SUBS, R>(token, panel, tile, out);
        }
    };
}
pub(super) use entry_points;

/// The outputs of a panel, in the making.
type Outputs<const R: usize> = [Floats<R>; QUARTERS];

#[inline(always)]
fn nothing<const R: usize>() -> Outputs<R> {
    [[with_neon!(vdupq_n_f32(0.0)); R]; QUARTERS]
}

/// Hands out what was summed up.
#[inline(always)]
fn store<D: Dots, const R: usize>(dots: D, acc: Outputs<R>, out: &mut Sums) {
    for (q, acc) in acc.into_iter().enumerate() {
        let by_row = dots.by_row(acc.map(|acc| with_neon!(vreinterpretq_s32_f32(acc))));
        for (out, sums) in out.iter_mut().zip(by_row) {
            let out = &mut out.as_chunks_mut::<QUARTER>().0[q];
            // SAFETY: `out` is four f32.
            unsafe { vst1q_f32(out.as_mut_ptr(), vreinterpretq_f32_s32(sums)) };
        }
    }
}

/// Products of one number of each output and one of each row, at their sums.
#[inline(always)]
fn factors<D: Dots, const R: usize>(dots: D, outputs: float32x4_t, rows: &[i32; R]) -> Floats<R> {
    let outputs = dots.outputs(with_neon!(vreinterpretq_s32_f32(outputs)));
    let rows = dots.rows(rows);
    array::from_fn(|i| {
        with_neon!(vmulq_f32(vreinterpretq_f32_s32(outputs[i % 2]), vreinterpretq_f32_s32(rows[i])))
    })
}

/// Blocks of 32 that high tiles take together: weights and activations stay in the first-level cache
/// while quarters take turns.
const TOGETHER: usize = 32;

/// Types with blocks of 32. `UNIT` and `PARAMETERS` are the bytes of a block; 64 bytes of parameters
/// are scales and minimums.
#[inline(always)]
pub(super) fn blocks_of_32<D: Dots, const UNIT: usize, const PARAMETERS: usize, const R: usize>(
    dots: D,
    panel: &[u8],
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0;
    let scales = tile.scales.as_chunks::<R>().0;
    let sums = tile.sums.as_chunks::<R>().0;
    let size = const { PARAMETERS + UNIT };
    let mut acc = nothing::<R>();
    if R < 8 {
        let numbers = words.iter().zip(scales.iter().zip(sums));
        for (block, (words, numbers)) in panel.chunks_exact(size).zip(numbers) {
            for q in 0..QUARTERS {
                acc[q] = add_block::<D, UNIT, PARAMETERS, R>(dots, (block, q), words, numbers, acc[q]);
            }
        }
        return store(dots, acc, out);
    }
    // The registers hold the outputs of one quarter.
    let numbers = words.chunks(TOGETHER).zip(scales.chunks(TOGETHER).zip(sums.chunks(TOGETHER)));
    for (panel, (words, (scales, sums))) in panel.chunks(TOGETHER * size).zip(numbers) {
        for q in 0..QUARTERS {
            let mut quarter = acc[q];
            let numbers = words.iter().zip(scales.iter().zip(sums));
            for (block, (words, numbers)) in panel.chunks_exact(size).zip(numbers) {
                quarter = add_block::<D, UNIT, PARAMETERS, R>(dots, (block, q), words, numbers, quarter);
            }
            acc[q] = quarter;
        }
    }
    store(dots, acc, out);
}

/// Adds what a block of 32 gives to the outputs of a quarter; `x_scales` and `sums` are those of the
/// activations.
#[inline(always)]
fn add_block<D: Dots, const UNIT: usize, const PARAMETERS: usize, const R: usize>(
    dots: D,
    (block, q): (&[u8], usize),
    words: &[[i32; R]; 8],
    (x_scales, sums): (&[i32; R], &[i32; R]),
    mut acc: Floats<R>,
) -> Floats<R> {
    let minimums = const { PARAMETERS == 64 };
    // Signed bytes take no zero point; other codes begin with its sum.
    let start = const { PARAMETERS == 32 && UNIT != 512 };
    let (parameters, unit) = block.split_at(PARAMETERS);
    let (parameters, unit) = (parameters.as_chunks::<32>().0, &unit.as_chunks::<UNIT>().0[0]);
    let mut products = if start { dots.rows(sums) } else { zeros() };
    dots.add_groups::<UNIT, R, 8>(&groups(unit, q), words, &mut products);
    let factor = factors(dots, halves(&parameters[0], q), x_scales);
    for i in 0..R {
        acc[i] = with_neon!(vfmaq_f32(acc[i], vcvtq_f32_s32(products[i]), factor[i]));
    }
    if minimums {
        let factor = factors(dots, halves(&parameters[1], q), x_scales);
        let sums = dots.rows(sums);
        for i in 0..R {
            acc[i] = with_neon!(vfmaq_f32(acc[i], factor[i], vreinterpretq_f32_s32(sums[i])));
        }
    }
    acc
}

/// K types. `UNIT` is the bytes of 32 codes of a panel, `PARAMETERS` those of the parameters of a
/// block, `SUMS` the words of sums of a block, `SUBS` the sub-blocks of a unit. Only types with
/// minimums have fewer sums than sub-blocks.
#[inline(always)]
pub(super) fn blocks_of_256<
    D: Dots,
    const UNIT: usize,
    const PARAMETERS: usize,
    const SUMS: usize,
    const SUBS: usize,
    const R: usize,
>(
    dots: D,
    panel: &[u8],
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let minimums = const { SUMS < 8 * SUBS };
    let blocks = panel.chunks_exact(const { PARAMETERS + 8 * UNIT });
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0.as_chunks::<8>().0;
    let sums = tile.sums.as_chunks::<R>().0.as_chunks::<SUMS>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(sums);
    let mut acc = nothing::<R>();
    for ((block, words), (x_scales, sums)) in blocks.zip(words).zip(scales) {
        let (parameters, units) = block.split_at(PARAMETERS);
        let units = units.as_chunks::<UNIT>().0;
        let (floats, integers) = parameters.split_at(if minimums { 64 } else { 32 });
        let floats = floats.as_chunks::<32>().0;
        let (sub_scales, sub_minimums) = integers.split_at(8 * SUBS * PANEL);
        let sub_scales = sub_scales.as_chunks::<PANEL>().0.as_chunks::<SUBS>().0;
        for q in 0..QUARTERS {
            let mut products = zeros::<R>();
            for (u, ((unit, words), scales)) in units.iter().zip(words).zip(sub_scales).enumerate() {
                let codes = groups(unit, q);
                for s in 0..SUBS {
                    let mut part = if minimums { zeros() } else { dots.rows(&sums[u * SUBS + s]) };
                    if SUBS == 1 {
                        dots.add_groups::<UNIT, R, 8>(&codes, words, &mut part);
                    } else {
                        let (codes, words) = (&codes.as_chunks::<4>().0[s], &words.as_chunks::<4>().0[s]);
                        dots.add_groups::<UNIT, R, 4>(codes, words, &mut part);
                    }
                    let scale = dots.outputs(bytes(&scales[s], q));
                    for i in 0..R {
                        products[i] = with_neon!(vmlaq_s32(products[i], part[i], scale[i % 2]));
                    }
                }
            }
            let factor = factors(dots, halves(&floats[0], q), x_scales);
            for i in 0..R {
                acc[q][i] = with_neon!(vfmaq_f32(acc[q][i], vcvtq_f32_s32(products[i]), factor[i]));
            }
            if minimums {
                let products = dots.place(minimum_products(sub_minimums, q, sums));
                let factor = factors(dots, halves(&floats[1], q), x_scales);
                for i in 0..R {
                    acc[q][i] = with_neon!(vfmsq_f32(acc[q][i], vcvtq_f32_s32(products[i]), factor[i]));
                }
            }
        }
    }
    store(dots, acc, out);
}

/// Minimums of a quarter, for each two sub-blocks.
struct Minimums<const N: usize>([[int16x4_t; 2]; N]);

impl<const N: usize> Step for Minimums<N> {
    #[inline(always)]
    fn add<const WORD: i32, const LOW: i32, const HIGH: i32>(
        &self,
        group: usize,
        sums: int32x4_t,
        total: int32x4_t,
    ) -> int32x4_t {
        let [first, second] = self.0[group];
        with_neon!({
            let sums = vreinterpretq_s16_s32(sums);
            vmlal_laneq_s16::<HIGH>(vmlal_laneq_s16::<LOW>(total, first, sums), second, sums)
        })
    }
}

/// Minimums of sub-blocks of quarter `q` times the sums of activations there, by row.
#[inline(always)]
fn minimum_products<const R: usize, const SUMS: usize>(
    minimums: &[u8],
    q: usize,
    sums: &[[i32; R]; SUMS],
) -> Integers<R> {
    let minimums = minimums.as_chunks::<{ 2 * PANEL }>().0;
    let mut total = zeros();
    each(&Minimums::<SUMS>(array::from_fn(|j| pairs(&minimums[j], q))), sums, &mut total);
    total
}
