//! The vision part's default arithmetic stays close to the exact one, also beside channels far louder
//! than the others.

use kernels::Cpu;
use mobilevlmd::verify::Target;
use mobilevlmd::verify::tower::{Size, towers};

#[test]
fn eight_bits_keep_the_picture_on_every_instruction_set() {
    for isa in Cpu::available().into_iter().skip(1) {
        let mut rows = Vec::new();
        let summary = towers(Size::Small, Target::Cpu { isa, threads: 2 }, &mut |row| rows.push(row.clone()));
        let failed: Vec<_> = rows.iter().filter(|row| !row.passed).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        // Two towers, two projectors, two types, features and visual tokens.
        assert_eq!(summary.passed, 16);
    }
}
