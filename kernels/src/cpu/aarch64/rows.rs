//! Vectors of 32-bit numbers of a tile, whose rows lie side by side.

use std::arch::aarch64::*;

/// Calls of intrinsics that touch no memory.
macro_rules! with_neon {
    ($call:expr) => {
        // SAFETY: every aarch64 processor has NEON, and no pointer is followed.
        unsafe { $call }
    };
}
pub(super) use with_neon;

/// Outputs of a vector.
pub(super) const QUARTER: usize = 4;

/// One vector for each row of a tile.
pub(super) type Integers<const R: usize> = [int32x4_t; R];

/// One vector for each row of a tile.
pub(super) type Floats<const R: usize> = [float32x4_t; R];

/// Zeros.
#[inline(always)]
pub(super) fn zeros<const R: usize>() -> Integers<R> {
    [with_neon!(vdupq_n_s32(0)); R]
}

/// Four numbers.
#[inline(always)]
pub(super) fn load(numbers: &[i32; 4]) -> int32x4_t {
    // SAFETY: there are four numbers; any alignment will do.
    unsafe { vld1q_s32(numbers.as_ptr()) }
}

/// Something done with one number of a vector.
pub(super) trait Step {
    /// Adds to `sum` what number `WORD` of `numbers` gives; as 16-bit numbers it is `LOW` and
    /// `HIGH`. The number belongs to group `group`. Implementations are `#[inline(always)]`.
    fn add<const WORD: i32, const LOW: i32, const HIGH: i32>(
        &self,
        group: usize,
        numbers: int32x4_t,
        sum: int32x4_t,
    ) -> int32x4_t;
}

/// Takes a step with each number of `N` groups, for the sums of its row; whole vectors are loaded.
#[inline(always)]
pub(super) fn each<const R: usize, const N: usize>(
    step: &impl Step,
    groups: &[[i32; R]; N],
    sums: &mut Integers<R>,
) {
    let vectors = groups.as_flattened().as_chunks::<4>().0;
    match R {
        1 => {
            for (v, numbers) in vectors.iter().enumerate() {
                let (numbers, group) = (load(numbers), 4 * v);
                sums[0] = step.add::<0, 0, 1>(group, numbers, sums[0]);
                sums[0] = step.add::<1, 2, 3>(group + 1, numbers, sums[0]);
                sums[0] = step.add::<2, 4, 5>(group + 2, numbers, sums[0]);
                sums[0] = step.add::<3, 6, 7>(group + 3, numbers, sums[0]);
            }
        }
        2 => {
            for (v, numbers) in vectors.iter().enumerate() {
                let (numbers, group) = (load(numbers), 2 * v);
                sums[0] = step.add::<0, 0, 1>(group, numbers, sums[0]);
                sums[1] = step.add::<1, 2, 3>(group, numbers, sums[1]);
                sums[0] = step.add::<2, 4, 5>(group + 1, numbers, sums[0]);
                sums[1] = step.add::<3, 6, 7>(group + 1, numbers, sums[1]);
            }
        }
        _ => {
            for (group, numbers) in groups.iter().enumerate() {
                for (numbers, sums) in numbers.as_chunks::<4>().0.iter().zip(sums.as_chunks_mut::<4>().0) {
                    let numbers = load(numbers);
                    sums[0] = step.add::<0, 0, 1>(group, numbers, sums[0]);
                    sums[1] = step.add::<1, 2, 3>(group, numbers, sums[1]);
                    sums[2] = step.add::<2, 4, 5>(group, numbers, sums[2]);
                    sums[3] = step.add::<3, 6, 7>(group, numbers, sums[3]);
                }
            }
        }
    }
}
