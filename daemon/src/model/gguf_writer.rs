//! Writes GGUF v3 files, one tensor at a time.

mod pair;

use std::io::{self, Write};

use kernels::DType;

use super::files::{ModelError, TensorStore};

pub use pair::{write_mmproj, write_text};

/// Alignment of tensor data, the format's default.
const ALIGNMENT: u64 = 32;

/// Longest tensor name that readers accept, in bytes.
const MAX_NAME: usize = 63;

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number.
    U32(u32),
    /// A number.
    F32(f32),
    /// A flag.
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// A list of texts.
    Texts(&'a [String]),
    /// A list of numbers.
    F32s(&'a [f32]),
    /// A list of numbers.
    I32s(&'a [i32]),
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A tensor cannot be had.
    #[error(transparent)]
    Tensor(#[from] ModelError),
    /// A tensor that the format has no place for, or whose bytes are not those of its shape.
    #[error("tensor {name} cannot be written: {problem}")]
    Unfit {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Writes `metadata` and the tensors `names` of `store`, in this order. One tensor is held at a time.
pub fn write_gguf(
    out: impl Write,
    metadata: &[(&str, Value<'_>)],
    store: &dyn TensorStore,
    names: &[String],
) -> Result<(), WriteError> {
    let mut out = Counted { out, written: 0 };
    let sizes = names.iter().map(|name| size(store, name)).collect::<Result<Vec<_>, _>>()?;
    out.write_all(b"GGUF")?;
    out.u32(3)?;
    out.u64(names.len() as u64)?;
    out.u64(metadata.len() as u64)?;
    for (key, value) in metadata {
        out.text(key)?;
        out.value(value)?;
    }
    let mut offset = 0;
    for (name, size) in names.iter().zip(&sizes) {
        out.text(name)?;
        out.u32(size.shape.len() as u32)?;
        for &extent in size.shape.iter().rev() {
            out.u64(extent as u64)?; // The format counts extents from the innermost.
        }
        out.u32(type_code(size.dtype))?;
        out.u64(offset)?;
        offset += size.bytes.next_multiple_of(ALIGNMENT);
    }
    out.pad()?;
    for (name, size) in names.iter().zip(&sizes) {
        let tensor = store.tensor(name)?;
        if tensor.bytes.len() as u64 != size.bytes {
            return Err(unfit(name, "its bytes are not those of its shape"));
        }
        out.write_all(&tensor.bytes)?;
        out.pad()?;
    }
    out.flush()?;
    Ok(())
}

struct Size {
    dtype: DType,
    shape: Vec<usize>,
    bytes: u64,
}

fn size(store: &dyn TensorStore, name: &str) -> Result<Size, WriteError> {
    let Some((dtype, shape)) = store.info(name) else {
        return Err(ModelError::MissingTensor { place: store.place(), tensor: name.into() }.into());
    };
    if name.len() > MAX_NAME {
        return Err(unfit(name, "its name is longer than 63 bytes"));
    }
    if shape.is_empty() || shape.len() > 4 {
        return Err(unfit(name, "a tensor has 1 to 4 extents"));
    }
    let row = shape.last().and_then(|&cols| dtype.row_bytes(cols));
    let bytes = shape
        .split_last()
        .and_then(|(_, outer)| outer.iter().try_fold(row?, |bytes, &extent| bytes.checked_mul(extent)));
    let Some(bytes) = bytes else { return Err(unfit(name, "its rows are no whole blocks of its type")) };
    Ok(Size { dtype, shape, bytes: bytes as u64 })
}

fn unfit(name: &str, problem: &'static str) -> WriteError {
    WriteError::Unfit { name: name.into(), problem }
}

/// The number of a type in the format.
fn type_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q5_0 => 6,
        DType::Q5_1 => 7,
        DType::Q8_0 => 8,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 12,
        DType::Q5K => 13,
        DType::Q6K => 14,
        DType::BF16 => 30,
    }
}

/// A writer that knows its place, for alignment.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.write_all(&[0; ALIGNMENT as usize][..missing as usize])
    }

    fn u32(&mut self, number: u32) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.u64(text.len() as u64)?;
        self.write_all(text.as_bytes())
    }

    /// The head of a list: its own type, the type of its items, their number.
    fn list(&mut self, item: u32, len: usize) -> io::Result<()> {
        self.u32(9)?;
        self.u32(item)?;
        self.u64(len as u64)
    }

    fn value(&mut self, value: &Value<'_>) -> io::Result<()> {
        match *value {
            Value::U32(number) => {
                self.u32(4)?;
                self.u32(number)
            }
            Value::F32(number) => {
                self.u32(6)?;
                self.write_all(&number.to_le_bytes())
            }
            Value::Bool(flag) => {
                self.u32(7)?;
                self.write_all(&[u8::from(flag)])
            }
            Value::Text(text) => {
                self.u32(8)?;
                self.text(text)
            }
            Value::Texts(texts) => {
                self.list(8, texts.len())?;
                texts.iter().try_for_each(|text| self.text(text))
            }
            Value::F32s(numbers) => {
                self.list(6, numbers.len())?;
                numbers.iter().try_for_each(|number| self.write_all(&number.to_le_bytes()))
            }
            Value::I32s(numbers) => {
                self.list(5, numbers.len())?;
                numbers.iter().try_for_each(|number| self.write_all(&number.to_le_bytes()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::files::RawTensor;

    /// Tensors by name, type and shape, of zeros; one of them lies about its length.
    struct Zeros(Vec<(&'static str, DType, Vec<usize>)>);

    impl TensorStore for Zeros {
        fn place(&self) -> String {
            "memory".into()
        }

        fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
            let (_, dtype, shape) = self.0.iter().find(|(known, ..)| *known == name)?;
            Some((*dtype, shape.clone()))
        }

        fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
            let (dtype, shape) = self.info(name).expect("asked for after its size");
            let missing = usize::from(name == "short");
            let bytes = shape.iter().product::<usize>() / dtype.block_len() * dtype.block_bytes() - missing;
            Ok(RawTensor { dtype, shape, bytes: Cow::Owned(vec![0; bytes]) })
        }

        fn names(&self) -> Vec<String> {
            self.0.iter().map(|(name, ..)| name.to_string()).collect()
        }
    }

    fn write(tensors: &[(&'static str, DType, &[usize])]) -> Result<Vec<u8>, WriteError> {
        let store =
            Zeros(tensors.iter().map(|(name, dtype, shape)| (*name, *dtype, shape.to_vec())).collect());
        let mut out = Vec::new();
        write_gguf(&mut out, &[("key", Value::Bool(true))], &store, &store.names())?;
        Ok(out)
    }

    #[test]
    fn a_file_is_header_directory_and_aligned_data() {
        let out = write(&[("a", DType::F32, &[3]), ("b", DType::Q4_0, &[2, 64])]).expect("fit");
        let mut expected = b"GGUF".to_vec();
        expected.extend(3u32.to_le_bytes());
        expected.extend([2u64, 1, 3].map(u64::to_le_bytes).concat());
        expected.extend(b"key");
        expected.extend(7u32.to_le_bytes());
        expected.push(1);
        expected.extend([1u64.to_le_bytes().as_slice(), b"a"].concat());
        expected.extend([1u32.to_le_bytes().as_slice(), &3u64.to_le_bytes(), &0u32.to_le_bytes()].concat());
        expected.extend(0u64.to_le_bytes());
        expected.extend([1u64.to_le_bytes().as_slice(), b"b"].concat());
        expected.extend(2u32.to_le_bytes());
        expected.extend([64u64, 2].map(u64::to_le_bytes).concat());
        expected.extend([2u32.to_le_bytes().as_slice(), &32u64.to_le_bytes()].concat());
        let data = expected.len().next_multiple_of(32);
        assert!(out.starts_with(&expected));
        // 12 bytes and padding, then 2 rows of 2 blocks of 18 bytes and padding.
        assert_eq!(out.len(), data + 32 + 96);
    }

    #[test]
    fn what_does_not_fit_the_format_is_refused_by_name() {
        let long = "n".repeat(64).leak();
        for (name, dtype, shape, problem) in [
            (&*long, DType::F32, &[1][..], "longer than 63 bytes"),
            ("scalar", DType::F32, &[], "1 to 4 extents"),
            ("deep", DType::F32, &[1, 1, 1, 1, 1], "1 to 4 extents"),
            ("blocks", DType::Q4_0, &[2, 33], "no whole blocks"),
            ("huge", DType::F32, &[usize::MAX, 2], "no whole blocks"),
            ("short", DType::F32, &[4], "not those of its shape"),
        ] {
            let error = write(&[(name, dtype, shape)]).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(problem), "{error}");
        }
        let store = Zeros(Vec::new());
        let error = write_gguf(Vec::new(), &[], &store, &["gone".into()]).expect_err("missing");
        assert!(error.to_string().contains("memory has no tensor gone"), "{error}");
    }
}
