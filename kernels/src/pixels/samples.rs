//! Samples of 8 to 16 bits as numbers of 10.

use super::Samples;

/// The largest sample.
pub(crate) const FULL: i16 = 1023;

/// The numbers of the samples from `first` on; `line` holds them.
#[inline(always)]
pub(super) fn unpack(samples: Samples, line: &[u8], first: usize, out: &mut [i16]) {
    match samples {
        Samples::Bits8 => {
            for (out, &byte) in out.iter_mut().zip(&line[first..]) {
                *out = from_8(byte);
            }
        }
        Samples::Bits10 => words(line, first, out, |word| word.min(FULL.cast_unsigned())),
        Samples::Bits12 => words(line, first, out, |word| word.min(4095) >> 2),
        Samples::Bits16 => words(line, first, out, |word| word >> 6),
        Samples::Packed10 => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = packed_10(line, first + i);
            }
        }
    }
}

#[inline(always)]
fn words(line: &[u8], first: usize, out: &mut [i16], number: impl Fn(u16) -> u16) {
    for (out, word) in out.iter_mut().zip(&line.as_chunks::<2>().0[first..]) {
        *out = number(u16::from_le_bytes(*word)).cast_signed();
    }
}

/// The high bits are repeated at the bottom, so that white stays white.
#[inline(always)]
fn from_8(byte: u8) -> i16 {
    i16::from(byte) << 2 | i16::from(byte >> 6)
}

#[inline(always)]
fn packed_10(line: &[u8], x: usize) -> i16 {
    let group = &line[x / 4 * 5..][..5];
    i16::from(group[x % 4]) << 2 | i16::from(group[4] >> (2 * (x % 4)) & 3)
}

/// The number of one sample: the definition of the above. Samples beyond their bits are the largest.
pub(crate) fn sample_at(samples: Samples, line: &[u8], x: usize) -> i16 {
    let word = |bits: u32| {
        let value = u32::from(line[2 * x]) + 256 * u32::from(line[2 * x + 1]);
        (value.min((1 << bits) - 1) >> (bits - 10)) as i16
    };
    match samples {
        Samples::Bits8 => i16::from(line[x]) * 4 + i16::from(line[x]) / 64,
        Samples::Bits10 => word(10),
        Samples::Bits12 => word(12),
        Samples::Bits16 => word(16),
        Samples::Packed10 => {
            let low = line[x / 4 * 5 + 4] / [1, 4, 16, 64][x % 4] % 4;
            i16::from(line[x / 4 * 5 + x % 4]) * 4 + i16::from(low)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_and_white_of_every_form() {
        for (samples, line, want) in [
            (Samples::Bits8, &[0, 255, 128, 1][..], [0, 1023, 514, 4]),
            (Samples::Bits10, &[0, 0, 255, 3, 255, 255, 4, 1], [0, 1023, 1023, 260]),
            (Samples::Bits12, &[3, 0, 255, 15, 0, 16, 4, 1], [0, 1023, 1023, 65]),
            (Samples::Bits16, &[63, 0, 255, 255, 0, 128, 64, 0], [0, 1023, 512, 1]),
            (Samples::Packed10, &[0, 255, 128, 1, 0b10_01_11_00], [0, 1023, 513, 6]),
        ] {
            let mut got = [0; 4];
            unpack(samples, line, 0, &mut got);
            assert_eq!(got, want, "{samples:?}");
            unpack(samples, line, 2, &mut got[..2]);
            assert_eq!(got[..2], want[2..], "{samples:?}");
            assert_eq!([0, 1, 2, 3].map(|x| sample_at(samples, line, x)), want, "{samples:?}");
        }
    }
}
