//! Metadata of a GGUF file: typed values, arrays left in the file until they are asked for.

use crate::model::cursor::{Cursor, Flaw};
use crate::model::files::error::shown;

/// A metadata value. Arrays of numbers keep their bytes, which the reader has measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// u8, u16, u32 and u64.
    Unsigned(u64),
    /// i8, i16, i32 and i64.
    Signed(i64),
    /// f32 and f64.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8 text.
    Text(&'a str),
    /// An array.
    Array(Array<'a>),
}

/// An array: element type, count and the bytes of the elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<'a> {
    kind: u32,
    count: usize,
    bytes: &'a [u8],
}

const U8: u32 = 0;
const I8: u32 = 1;
const U16: u32 = 2;
const I16: u32 = 3;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;
const I64: u32 = 11;
const F64: u32 = 12;

/// Arrays inside arrays; one is what the format's users write.
const MAX_DEPTH: u32 = 4;

/// Bytes of a fixed-size value, `None` for text and arrays.
fn fixed_size(kind: u32) -> Option<usize> {
    match kind {
        U8 | I8 | BOOL => Some(1),
        U16 | I16 => Some(2),
        U32 | I32 | F32 => Some(4),
        U64 | I64 | F64 => Some(8),
        _ => None,
    }
}

impl<'a> Value<'a> {
    /// Reads a value of type `kind`.
    pub fn read(kind: u32, cursor: &mut Cursor<'a>) -> Result<Self, Flaw> {
        Ok(match kind {
            U8 => Value::Unsigned(cursor.array::<1>()?[0].into()),
            U16 => Value::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
            U32 => Value::Unsigned(cursor.u32()?.into()),
            U64 => Value::Unsigned(cursor.u64()?),
            I8 => Value::Signed(i8::from_le_bytes(cursor.array()?).into()),
            I16 => Value::Signed(i16::from_le_bytes(cursor.array()?).into()),
            I32 => Value::Signed(i32::from_le_bytes(cursor.array()?).into()),
            I64 => Value::Signed(i64::from_le_bytes(cursor.array()?)),
            F32 => Value::Float(f32::from_le_bytes(cursor.array()?).into()),
            F64 => Value::Float(f64::from_le_bytes(cursor.array()?)),
            BOOL => match cursor.array::<1>()?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(cursor.flaw(format!("a truth value of {other}"))),
            },
            TEXT => Value::Text(cursor.text()?),
            ARRAY => Value::Array(Array::read(cursor, 0)?),
            other => return Err(cursor.flaw(format!("unknown value type {other}"))),
        })
    }

    /// A number without sign, if it is one.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Value::Unsigned(value) => Some(value),
            Value::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// Any number as f64.
    pub fn float(&self) -> Option<f64> {
        match *self {
            Value::Float(value) => Some(value),
            Value::Unsigned(value) => Some(value as f64),
            Value::Signed(value) => Some(value as f64),
            _ => None,
        }
    }

    /// The value in a few words, for messages.
    pub fn words(&self) -> String {
        match self {
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(text) => shown(text),
            Value::Array(array) => format!("an array of {}", array.count),
        }
    }
}

impl<'a> Array<'a> {
    fn read(cursor: &mut Cursor<'a>, depth: u32) -> Result<Self, Flaw> {
        if depth == MAX_DEPTH {
            return Err(cursor.flaw("arrays nested too deep".into()));
        }
        let kind = cursor.u32()?;
        let claimed = cursor.u64()?;
        let count = usize::try_from(claimed)
            .map_err(|_| cursor.flaw(format!("an array of {claimed} elements in a smaller file")))?;
        let start = cursor.position();
        match fixed_size(kind) {
            Some(size) => {
                let len = count.checked_mul(size);
                let len = len.ok_or_else(|| cursor.flaw(format!("an array of {count} elements")))?;
                cursor.take(len)?;
            }
            None if kind == TEXT || kind == ARRAY => {
                // Every element has a length of eight bytes at least.
                if count > cursor.remaining() / 8 {
                    return Err(cursor.flaw(format!("an array of {count} elements in a smaller file")));
                }
                for _ in 0..count {
                    if kind == TEXT {
                        cursor.text()?;
                    } else {
                        Array::read(cursor, depth + 1)?;
                    }
                }
            }
            None => return Err(cursor.flaw(format!("an array of unknown type {kind}"))),
        }
        Ok(Self { kind, count, bytes: cursor.since(start) })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements if they are text.
    pub fn texts(&self) -> Option<Vec<String>> {
        if self.kind != TEXT {
            return None;
        }
        let mut cursor = Cursor::new(self.bytes);
        (0..self.count).map(|_| cursor.text().ok().map(str::to_owned)).collect()
    }

    /// The elements if they are numbers, as f64.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        fixed_size(self.kind)?;
        let mut cursor = Cursor::new(self.bytes);
        (0..self.count).map(|_| Value::read(self.kind, &mut cursor).ok()?.float()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
    }

    #[test]
    fn every_scalar_type_is_read() {
        fn read(kind: u32, bytes: &[u8]) -> Value<'_> {
            Value::read(kind, &mut Cursor::new(bytes)).unwrap()
        }
        assert_eq!(read(U8, &[200]), Value::Unsigned(200));
        assert_eq!(read(I8, &[200]), Value::Signed(-56));
        assert_eq!(read(U16, &[1, 2]), Value::Unsigned(513));
        assert_eq!(read(I16, &[255, 255]), Value::Signed(-1));
        assert_eq!(read(U32, &7u32.to_le_bytes()), Value::Unsigned(7));
        assert_eq!(read(I32, &(-7i32).to_le_bytes()), Value::Signed(-7));
        assert_eq!(read(F32, &0.5f32.to_le_bytes()), Value::Float(0.5));
        assert_eq!(read(BOOL, &[1]), Value::Bool(true));
        assert_eq!(read(U64, &u64::MAX.to_le_bytes()), Value::Unsigned(u64::MAX));
        assert_eq!(read(I64, &i64::MIN.to_le_bytes()), Value::Signed(i64::MIN));
        assert_eq!(read(F64, &1e300f64.to_le_bytes()), Value::Float(1e300));
        assert_eq!(read(TEXT, &[2, 0, 0, 0, 0, 0, 0, 0, b'o', b'k']), Value::Text("ok"));
    }

    #[test]
    fn arrays_are_measured_before_they_are_believed() {
        let numbers = array(U16, 2, &[1, 0, 2, 0]);
        let Value::Array(read) = Value::read(ARRAY, &mut Cursor::new(&numbers)).unwrap() else { panic!() };
        assert_eq!(read.numbers(), Some(vec![1.0, 2.0]));
        assert_eq!(read.texts(), None);
        for (kind, count) in [(U8, 5), (U64, u64::MAX), (F64, 1 << 61), (TEXT, 1 << 60), (ARRAY, 3), (77, 0)]
        {
            let bytes = array(kind, count, &[0; 4]);
            assert!(Value::read(ARRAY, &mut Cursor::new(&bytes)).is_err(), "{kind} {count}");
        }
    }

    #[test]
    fn nesting_has_a_floor() {
        let mut bytes = array(U8, 0, &[]);
        for _ in 0..3 {
            bytes = array(ARRAY, 1, &bytes);
        }
        assert!(Value::read(ARRAY, &mut Cursor::new(&bytes)).is_ok());
        for _ in 0..1000 {
            bytes = array(ARRAY, 1, &bytes);
        }
        assert!(Value::read(ARRAY, &mut Cursor::new(&bytes)).is_err());
    }
}
