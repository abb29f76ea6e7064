//! Rotary position embedding from a table.

use crate::device::Pairing;
use crate::tensor::HostTensor;

pub(super) fn rope(
    x: &mut HostTensor,
    heads: usize,
    table: &HostTensor,
    positions: &[u32],
    pairing: Pairing,
) {
    assert_eq!(x.rows(), positions.len(), "one position for each row");
    let head_dim = table.cols();
    assert_eq!(x.cols(), heads * head_dim, "width of the heads");
    assert!(head_dim.is_multiple_of(2), "a head of {head_dim} has no pairs");
    let half = head_dim / 2;
    for (r, &position) in positions.iter().enumerate() {
        let (cosines, sines) = table.row(position as usize).split_at(half);
        for head in x.row_mut(r).chunks_exact_mut(head_dim) {
            for i in 0..half {
                let (first, second) = match pairing {
                    Pairing::Halves => (i, i + half),
                    Pairing::Neighbours => (2 * i, 2 * i + 1),
                };
                let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                let (cos, sin) = (f64::from(cosines[i]), f64::from(sines[i]));
                head[first] = (a * cos - b * sin) as f32;
                head[second] = (a * sin + b * cos) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_pairs() {
        let table = HostTensor::from_rows(&[1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0], 4);
        let rows = [1.0, 2.0, 3.0, 4.0];
        for (pairing, want) in
            [(Pairing::Halves, [-3.0, 2.0, 1.0, 4.0]), (Pairing::Neighbours, [-2.0, 1.0, 3.0, 4.0])]
        {
            let mut x = HostTensor::from_rows(&[rows, rows].concat(), 4);
            rope(&mut x, 1, &table, &[0, 1], pairing);
            assert_eq!((x.row(0), x.row(1)), (&rows[..], &want[..]), "{pairing:?}");
        }
    }
}
