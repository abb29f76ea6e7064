//! Whether the scan of a picture holds all of it.
//!
//! A camera or its driver may cut a scan short and still write an end marker; decoders fill up with
//! grey then. This walks the codes of the first scan without decoding them and counts the blocks. It
//! covers what cameras send: sequential Huffman pictures whose first scan holds all components. Others
//! are left to the decoder.

use super::super::frame::FrameError;
use super::{HUFFMAN, SCAN};

/// Bits that are looked up at once; longer codes are rare.
const LOOKUP: u32 = 9;
/// Longest code.
const LONGEST: u32 = 16;

/// A Huffman table.
struct Table {
    /// For the next bits: length of the code, 0 if it is longer, and what it stands for.
    short: [(u8, u8); 1 << LOOKUP],
    /// For each length: the first code of the next length, aligned to 16 bits; and what is added to
    /// a code to find its value.
    ends: [u32; LONGEST as usize + 1],
    offsets: [i32; LONGEST as usize + 1],
    values: Vec<u8>,
}

/// A component of the picture.
#[derive(Clone, Copy, Debug)]
struct Component {
    id: u8,
    /// Blocks of a unit.
    blocks: u32,
    across: u32,
    down: u32,
}

/// What the segments before the scan say.
#[derive(Default)]
struct Headers {
    size: (u32, u32),
    components: Vec<Component>,
    /// Tables of DC, then of AC.
    tables: [[Option<Box<Table>>; 4]; 2],
    restart: u32,
}

/// Refuses a picture whose scan stops early. The segments of `bytes` are whole.
pub(super) fn check(bytes: &[u8]) -> Result<(), FrameError> {
    let mut headers = Headers::default();
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        if marker == 0xff {
            at += 1;
            continue;
        }
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { break };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = bytes.get(at + 4..end) else { break };
        let is_known = match marker {
            0xc0 | 0xc1 => headers.read_frame(content),
            0xc2..=0xcf if marker != HUFFMAN => None,
            HUFFMAN => headers.read_tables(content),
            0xdd => content.first_chunk().map(|restart| {
                headers.restart = u16::from_be_bytes(*restart).into();
            }),
            SCAN => return headers.check_scan(content, &bytes[end..]),
            _ => Some(()),
        };
        if is_known.is_none() {
            break;
        }
        at = end;
    }
    Ok(())
}

impl Headers {
    /// Size and components; `None` if the decoder is to judge.
    fn read_frame(&mut self, content: &[u8]) -> Option<()> {
        let [8, h1, h0, w1, w0, count] = *content.first_chunk()? else { return None };
        self.size = (u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into());
        let components = content[6..].as_chunks::<3>().0;
        if components.len() != usize::from(count) || count > 4 {
            return None;
        }
        self.components.clear();
        for [id, sampling, _] in components {
            let (across, down) = (u32::from(sampling >> 4), u32::from(sampling & 15));
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return None;
            }
            self.components.push(Component { id: *id, blocks: across * down, across, down });
        }
        Some(())
    }

    fn read_tables(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&class_and_id, rest)) = content.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let values = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = rest.split_at_checked(values)?;
            let slot = self
                .tables
                .get_mut(usize::from(class_and_id >> 4))?
                .get_mut(usize::from(class_and_id & 15))?;
            *slot = Some(Box::new(Table::new(counts, values)));
            content = rest;
        }
        Some(())
    }

    /// Walks the scan if it holds all components.
    fn check_scan(&self, content: &[u8], data: &[u8]) -> Result<(), FrameError> {
        let Some(selected) = self.selected(content) else { return Ok(()) };
        let [across, down] = [|c: &Component| c.across, |c: &Component| c.down]
            .map(|side| self.components.iter().map(side).max().unwrap_or(1));
        let alone = self.components.len() == 1;
        // A component of its own has units of one block whatever its sampling.
        let unit = if alone { (8, 8) } else { (8 * across, 8 * down) };
        let units = self.size.0.div_ceil(unit.0) * self.size.1.div_ceil(unit.1);
        let mut bits = Bits { data, at: 0, buffer: 0, count: 0 };
        for done in 0..units {
            let is_restart = self.restart > 0 && done > 0 && done % self.restart == 0;
            let is_there = !is_restart || bits.restart();
            let is_whole = is_there
                && selected.iter().all(|(component, dc, ac)| {
                    (0..if alone { 1 } else { component.blocks }).all(|_| bits.block(dc, ac).is_some())
                });
            if !is_whole {
                return Err(FrameError::Decode(format!("the scan breaks off after {done} of {units} units")));
            }
        }
        Ok(())
    }

    /// The components of the scan, all of the picture in their order, with their tables.
    fn selected(&self, content: &[u8]) -> Option<Vec<(Component, &Table, &Table)>> {
        let (&count, rest) = content.split_first()?;
        let selectors = rest.as_chunks::<2>().0;
        if self.components.is_empty() || usize::from(count) != self.components.len() {
            return None;
        }
        let table = |class: usize, id: u8| self.tables[class].get(usize::from(id))?.as_deref();
        let pairs = self.components.iter().zip(selectors);
        let selected: Option<Vec<_>> = pairs
            .map(|(component, [id, tables])| {
                let found = (*component, table(0, tables >> 4)?, table(1, tables & 15)?);
                (component.id == *id).then_some(found)
            })
            .collect();
        selected.filter(|selected| selected.len() == self.components.len())
    }
}

impl Table {
    /// From the number of codes of each length, shortest first, and what they stand for.
    fn new(counts: &[u8; 16], values: &[u8]) -> Self {
        let mut table = Self {
            short: [(0, 0); 1 << LOOKUP],
            ends: [0; LONGEST as usize + 1],
            offsets: [0; LONGEST as usize + 1],
            values: values.to_vec(),
        };
        let (mut code, mut next) = (0u32, 0u32);
        for length in 1..=LONGEST {
            let count = u32::from(counts[length as usize - 1]);
            table.offsets[length as usize] = next.cast_signed() - code.cast_signed();
            for i in 0..count {
                let value = values[(next + i) as usize];
                if let Some(unused) = LOOKUP.checked_sub(length) {
                    let first = ((code + i) << unused) as usize;
                    // More codes than fit their length: the decoder will say so.
                    if let Some(entries) = table.short.get_mut(first..first + (1 << unused)) {
                        entries.fill((length as u8, value));
                    }
                }
            }
            code += count;
            next += count;
            table.ends[length as usize] = code << (LONGEST - length);
            code <<= 1;
        }
        table
    }
}

/// The bits of a scan.
struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    /// Bits to come, the next one highest; zeros behind the last.
    buffer: u64,
    /// Bits in the buffer.
    count: u32,
}

impl Bits<'_> {
    /// Fills the buffer up to the next marker.
    #[inline]
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.data[self.at.min(self.data.len())..] {
                [0xff, 0, ..] => {
                    self.at += 2;
                    0xff
                }
                [0xff, ..] | [] => return,
                [byte, ..] => {
                    self.at += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Passes over `bits`; `None` if there are not as many.
    #[inline]
    fn skip(&mut self, bits: u32) -> Option<()> {
        self.count = self.count.checked_sub(bits)?;
        self.buffer <<= bits;
        Some(())
    }

    /// Passes over a code and returns what it stands for.
    #[inline]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let (length, value) = table.short[(self.buffer >> (64 - LOOKUP)) as usize];
        if length > 0 {
            self.skip(length.into())?;
            return Some(value);
        }
        let next = (self.buffer >> (64 - LONGEST)) as u32;
        let length = (LOOKUP + 1..=LONGEST).find(|length| next < table.ends[*length as usize])?;
        let code = (next >> (LONGEST - length)).cast_signed();
        self.skip(length)?;
        let index = usize::try_from(code + table.offsets[length as usize]).ok()?;
        table.values.get(index).copied()
    }

    /// Passes over a block of 64 coefficients.
    #[inline]
    fn block(&mut self, dc: &Table, ac: &Table) -> Option<()> {
        self.fill();
        let bits = self.symbol(dc)?;
        self.skip(u32::from(bits).min(16))?;
        let mut coefficient = 1;
        while coefficient < 64 {
            self.fill();
            let symbol = self.symbol(ac)?;
            let (zeros, bits) = (symbol >> 4, symbol & 15);
            match (zeros, bits) {
                (15, 0) => coefficient += 16,
                (_, 0) => break,
                _ => {
                    coefficient += u32::from(zeros) + 1;
                    self.skip(bits.into())?;
                }
            }
        }
        Some(())
    }

    /// Passes over a restart marker; `false` if none is next.
    fn restart(&mut self) -> bool {
        // What is left of a byte is padding; whole bytes would be codes.
        if self.count >= 8 {
            return false;
        }
        (self.buffer, self.count) = (0, 0);
        while self.data[self.at.min(self.data.len())..].starts_with(&[0xff, 0xff]) {
            self.at += 1;
        }
        let is_marker = matches!(self.data[self.at.min(self.data.len())..], [0xff, 0xd0..=0xd7, ..]);
        self.at += 2 * usize::from(is_marker);
        is_marker
    }
}
