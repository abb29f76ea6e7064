//! Rotary position embedding from a table.

use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::rows::least_rows;
use super::threads::Pool;
use crate::device::Pairing;
use crate::tensor::HostTensor;

pub(super) fn rope(
    (isa, pool): (Isa, &Pool),
    x: &mut HostTensor,
    heads: usize,
    table: &HostTensor,
    positions: &[u32],
    pairing: Pairing,
) {
    assert_eq!(x.rows(), positions.len(), "one position for each row");
    let (head_dim, width) = (table.cols(), x.cols());
    assert_eq!(width, heads * head_dim, "width of the heads");
    assert!(head_dim.is_multiple_of(2), "a head of {head_dim} has no pairs");
    pool.rows(x.data_mut(), width, least_rows(width), &|first, rows| {
        for (row, &position) in rows.chunks_exact_mut(width).zip(&positions[first..]) {
            let (cosines, sines) = table.row(position as usize).split_at(head_dim / 2);
            dispatch(isa, Row { row, cosines, sines, pairing });
        }
    });
}

/// All heads of one row.
struct Row<'a> {
    row: &'a mut [f32],
    /// Half as many as a head has numbers, as are `sines`.
    cosines: &'a [f32],
    sines: &'a [f32],
    pairing: Pairing,
}

impl Kernel for Row<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for head in self.row.chunks_exact_mut(2 * self.cosines.len()) {
            match self.pairing {
                Pairing::Halves => halves(lanes, head, self.cosines, self.sines),
                Pairing::Neighbours => neighbours(lanes, head, self.cosines, self.sines),
            }
        }
    }
}

#[inline(always)]
fn halves<L: Lanes>(lanes: L, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let half = cosines.len();
    assert!(head.len() == 2 * half && sines.len() == half);
    let (first, second) = head.split_at_mut(half);
    let mut i = 0;
    while i < half {
        let n = L::LANES.min(half - i);
        // SAFETY: numbers `i .. i + n` lie inside all four slices, which have `half` numbers.
        unsafe {
            let (a_at, b_at) = (first.as_mut_ptr().add(i), second.as_mut_ptr().add(i));
            let (a, b) = (lanes.load_first(a_at, n), lanes.load_first(b_at, n));
            let cos = lanes.load_first(cosines.as_ptr().add(i), n);
            let sin = lanes.load_first(sines.as_ptr().add(i), n);
            let minus = lanes.sub(lanes.splat(0.0), lanes.mul(b, sin));
            lanes.store_first(lanes.fma(a, cos, minus), a_at, n);
            lanes.store_first(lanes.fma(b, cos, lanes.mul(a, sin)), b_at, n);
        }
        i += n;
    }
}

#[inline(always)]
fn neighbours<L: Lanes>(lanes: L, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    assert!(head.len() == 2 * cosines.len() && sines.len() == cosines.len());
    let mut i = 0;
    while i + L::LANES <= head.len() {
        // SAFETY: numbers `i .. i + LANES` lie inside the head, half as many inside the table.
        unsafe {
            let at = head.as_mut_ptr().add(i);
            let cos = lanes.load_twice(cosines.as_ptr().add(i / 2));
            let sin = lanes.load_twice(sines.as_ptr().add(i / 2));
            lanes.store(lanes.rotate_pairs(lanes.load(at), cos, sin), at);
        }
        i += L::LANES;
    }
    for (pair, (cos, sin)) in head[i..].chunks_exact_mut(2).zip(cosines[i / 2..].iter().zip(&sines[i / 2..]))
    {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a.mul_add(*cos, -(b * sin));
        pair[1] = b.mul_add(*cos, a * sin);
    }
}
