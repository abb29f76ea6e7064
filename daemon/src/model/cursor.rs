//! Little-endian reading in a byte slice that never goes past its end.

/// What is wrong, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Offset from the start of the slice.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
}

/// A place in a byte slice.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes from `start`, an earlier position, to here.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// A flaw at this place.
    pub fn flaw(&self, problem: String) -> Flaw {
        Flaw { at: self.at, problem }
    }

    /// Moves to `at`, counted from the start.
    pub fn go_to(&mut self, at: usize) -> Result<(), Flaw> {
        if at > self.bytes.len() {
            return Err(self.flaw(format!("offset {at} lies past the end")));
        }
        self.at = at;
        Ok(())
    }

    /// Passes over the bytes `mark`.
    pub fn expect<const N: usize>(&mut self, mark: [u8; N]) -> Result<(), Flaw> {
        if self.array()? == mark {
            Ok(())
        } else {
            Err(self.flaw(format!("{:?} expected", mark.escape_ascii().to_string())))
        }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Flaw> {
        if len > self.remaining() {
            return Err(self.flaw(format!("{len} bytes expected, {} left", self.remaining())));
        }
        let start = self.at;
        self.at += len;
        Ok(&self.bytes[start..self.at])
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Result<u16, Flaw> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Flaw> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Flaw> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// UTF-8 text behind a 64-bit length.
    pub fn text(&mut self) -> Result<&'a str, Flaw> {
        let claimed = self.u64()?;
        let len = usize::try_from(claimed).unwrap_or(usize::MAX);
        if len > self.remaining() {
            return Err(self.flaw(format!("a text of {claimed} bytes, {} left", self.remaining())));
        }
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.flaw("a text that is not UTF-8".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_use() {
        let mut cursor = Cursor::new(&[255; 12]);
        assert!(cursor.text().unwrap_err().problem.contains("18446744073709551615 bytes, 4 left"));
        assert_eq!(cursor.take(5).unwrap_err().problem, "5 bytes expected, 4 left");
        assert_eq!(cursor.u32(), Ok(u32::MAX));
        assert_eq!(cursor.remaining(), 0);
        assert_eq!(cursor.array::<1>().unwrap_err().at, 12);
    }
}
