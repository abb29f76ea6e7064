//! Instruction sets: what this processor has, as values.
//!
//! A token such as `Avx2` exists only where detection found its features, so holding one is the
//! fact that lets safe code enter the kernels written for it.

use std::fmt;
use std::str::FromStr;

/// Instruction sets there are kernels for, plainest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IsaLevel {
    /// Portable code.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX2, FMA, F16C and AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// Every aarch64.
    Neon,
    /// aarch64 with dot products of bytes besides (Cortex-A76, A78, Orin, Raspberry Pi 5).
    Dotprod,
    /// aarch64 with matrix products of bytes besides.
    I8mm,
}

impl IsaLevel {
    /// Every level, plainest first.
    pub const ALL: [IsaLevel; 7] = [
        IsaLevel::Scalar,
        IsaLevel::Avx2,
        IsaLevel::AvxVnni,
        IsaLevel::Avx512Vnni,
        IsaLevel::Neon,
        IsaLevel::Dotprod,
        IsaLevel::I8mm,
    ];

    /// The name used in options, logs and messages.
    pub const fn name(self) -> &'static str {
        match self {
            IsaLevel::Scalar => "scalar",
            IsaLevel::Avx2 => "avx2",
            IsaLevel::AvxVnni => "avxvnni",
            IsaLevel::Avx512Vnni => "avx512vnni",
            IsaLevel::Neon => "neon",
            IsaLevel::Dotprod => "dotprod",
            IsaLevel::I8mm => "i8mm",
        }
    }
}

impl fmt::Display for IsaLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IsaLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        IsaLevel::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            let names = IsaLevel::ALL.map(IsaLevel::name).join(", ");
            format!("unknown instruction set \"{text}\", expected one of {names}")
        })
    }
}

/// The instruction set a device works with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isa {
    /// Portable code.
    Scalar,
    /// See [`IsaLevel::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// See [`IsaLevel::AvxVnni`].
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// See [`IsaLevel::Avx512Vnni`].
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// See [`IsaLevel::Neon`].
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// See [`IsaLevel::Dotprod`].
    #[cfg(target_arch = "aarch64")]
    Dotprod(Dotprod),
    /// See [`IsaLevel::I8mm`].
    #[cfg(target_arch = "aarch64")]
    I8mm(I8mm),
}

impl Isa {
    /// The kernels of `level`, if this processor can run them.
    pub(crate) fn of(level: IsaLevel) -> Option<Isa> {
        match level {
            IsaLevel::Scalar => Some(Isa::Scalar),
            #[cfg(target_arch = "x86_64")]
            IsaLevel::Avx2 => Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            IsaLevel::AvxVnni => AvxVnni::detect().map(Isa::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            IsaLevel::Avx512Vnni => Avx512Vnni::detect().map(Isa::Avx512Vnni),
            #[cfg(target_arch = "aarch64")]
            IsaLevel::Neon => Neon::detect().map(Isa::Neon),
            #[cfg(target_arch = "aarch64")]
            IsaLevel::Dotprod => Dotprod::detect().map(Isa::Dotprod),
            #[cfg(target_arch = "aarch64")]
            IsaLevel::I8mm => I8mm::detect().map(Isa::I8mm),
            _ => None,
        }
    }

    /// The best this processor has, not above `cap`.
    pub(crate) fn best(cap: Option<IsaLevel>) -> Isa {
        let allowed = |level: &IsaLevel| cap.is_none_or(|cap| *level <= cap);
        IsaLevel::ALL.into_iter().rev().filter(allowed).find_map(Isa::of).unwrap_or(Isa::Scalar)
    }

    /// Which level this is.
    pub(crate) fn level(self) -> IsaLevel {
        match self {
            Isa::Scalar => IsaLevel::Scalar,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => IsaLevel::Avx2,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => IsaLevel::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => IsaLevel::Avx512Vnni,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => IsaLevel::Neon,
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod(_) => IsaLevel::Dotprod,
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm(_) => IsaLevel::I8mm,
        }
    }
}

/// Proof of AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

/// Proof of AVX-VNNI, and of all that [`Avx2`] stands for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct AvxVnni(Avx2);

#[cfg(target_arch = "x86_64")]
impl AvxVnni {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect().filter(|_| is_x86_feature_detected!("avxvnni")).map(Self)
    }

    /// The lesser proof.
    pub(crate) fn avx2(self) -> Avx2 {
        self.0
    }
}

/// Proof of AVX-512 F, BW, DQ, VL and VNNI, and of all that [`Avx2`] stands for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Vnni(());

#[cfg(target_arch = "x86_64")]
impl Avx512Vnni {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let found = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(()))
    }
}

/// Proof of NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

#[cfg(target_arch = "aarch64")]
impl Neon {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// Proof of dot products of bytes, and of all that [`Neon`] stands for.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dotprod(Neon);

#[cfg(target_arch = "aarch64")]
impl Dotprod {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let neon = Neon::detect()?;
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(neon))
    }

    /// What is less.
    pub(crate) fn neon(self) -> Neon {
        self.0
    }
}

/// Proof of matrix products of bytes, and of all that [`Dotprod`] stands for.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct I8mm(Dotprod);

#[cfg(target_arch = "aarch64")]
impl I8mm {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let dotprod = Dotprod::detect()?;
        std::arch::is_aarch64_feature_detected!("i8mm").then_some(Self(dotprod))
    }

    /// What is less.
    pub(crate) fn dotprod(self) -> Dotprod {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for level in IsaLevel::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        let error = "sse9".parse::<IsaLevel>().unwrap_err();
        assert!(
            error.starts_with("unknown instruction set \"sse9\", expected one of scalar, avx2"),
            "{error}"
        );
    }

    #[test]
    fn the_cap_is_kept() {
        assert_eq!(Isa::best(Some(IsaLevel::Scalar)).level(), IsaLevel::Scalar);
        for cap in [IsaLevel::Avx2, IsaLevel::Neon] {
            assert!(Isa::best(Some(cap)).level() <= cap);
        }
        assert!(Isa::best(None).level() >= Isa::best(Some(IsaLevel::Avx2)).level());
    }
}
