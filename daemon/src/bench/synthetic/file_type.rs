//! Which matrix of a file gets which type.

use std::fmt;
use std::str::FromStr;

use kernels::DType;

/// A kind of GGUF file, with the mixture of types that llama.cpp's quantize tool gives it.
///
/// Norms are f32. The `output` matrix of the 4- to 6-bit kinds is Q6_K, else it has the base type.
/// The `_m` kinds hold `attn_v` and `ffn_down` of half of the layers as Q6_K.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType {
    name: &'static str,
    code: u32,
    base: DType,
    head: DType,
    more: DType,
}

const fn plain(name: &'static str, code: u32, base: DType, head: DType) -> FileType {
    FileType { name, code, base, head, more: base }
}

const fn mixed(name: &'static str, code: u32, base: DType) -> FileType {
    FileType { name, code, base, head: DType::Q6K, more: DType::Q6K }
}

#[allow(missing_docs)] // The names are those of the files.
#[allow(non_upper_case_globals)]
impl FileType {
    pub const F32: FileType = plain("f32", 0, DType::F32, DType::F32);
    pub const F16: FileType = plain("f16", 1, DType::F16, DType::F16);
    pub const BF16: FileType = plain("bf16", 32, DType::BF16, DType::BF16);
    pub const Q4_0: FileType = plain("q4_0", 2, DType::Q4_0, DType::Q6K);
    pub const Q4_1: FileType = plain("q4_1", 3, DType::Q4_1, DType::Q6K);
    pub const Q5_0: FileType = plain("q5_0", 8, DType::Q5_0, DType::Q6K);
    pub const Q5_1: FileType = plain("q5_1", 9, DType::Q5_1, DType::Q6K);
    pub const Q8_0: FileType = plain("q8_0", 7, DType::Q8_0, DType::Q8_0);
    pub const Q4_K_M: FileType = mixed("q4_k_m", 15, DType::Q4K);
    pub const Q5_K_M: FileType = mixed("q5_k_m", 17, DType::Q5K);
    pub const Q6_K: FileType = plain("q6_k", 18, DType::Q6K, DType::Q6K);

    /// Every kind, simplest first.
    pub const ALL: [FileType; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K_M,
        Self::Q5_K_M,
        Self::Q6_K,
    ];

    /// The name in options and file names.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The number of the kind in `general.file_type`.
    pub const fn code(self) -> u32 {
        self.code
    }

    /// The type of most matrices.
    pub const fn base(self) -> DType {
        self.base
    }

    /// The type of the `output` matrix.
    pub const fn head(self) -> DType {
        self.head
    }

    /// The type of `attn_v` and `ffn_down` in layer `index` of `layers`.
    pub const fn more_bits(self, index: usize, layers: usize) -> DType {
        let eighth = layers / 8;
        let favoured = index < eighth || index >= 7 * layers / 8 || (index.saturating_sub(eighth)) % 3 == 2;
        if favoured { self.more } else { self.base }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for FileType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = text.to_ascii_lowercase();
        FileType::ALL.into_iter().find(|kind| kind.name == wanted).ok_or_else(|| {
            let names = FileType::ALL.map(FileType::name).join(", ");
            format!("unknown file type \"{text}\", expected one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_24_layers_get_more_bits() {
        let favoured: Vec<_> =
            (0..24).filter(|&index| FileType::Q4_K_M.more_bits(index, 24) == DType::Q6K).collect();
        assert_eq!(favoured, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        assert!((0..24).all(|index| FileType::Q4_0.more_bits(index, 24) == DType::Q4_0));
    }

    #[test]
    fn names_parse_back() {
        for kind in FileType::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("Q4_K_M".parse(), Ok(FileType::Q4_K_M));
        assert!("q9_9".parse::<FileType>().is_err_and(|message| message.contains("q4_k_m")));
    }
}
