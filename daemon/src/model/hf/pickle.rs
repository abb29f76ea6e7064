//! The pickle inside a PyTorch file, read as data.
//!
//! A pickle is a program for a stack machine, and may call any function by name. This reader knows
//! the few operations that a dictionary of tensors needs and the few names that stand in one; any
//! other name is refused before anything is done with it, and nothing is ever called. All objects
//! lie in flat lists and refer to each other by number, so that work and memory are linear in the
//! length of the pickle whatever it says.

use std::collections::HashMap;

use kernels::DType;

use crate::model::cursor::{Cursor, Flaw};
use crate::model::files::error::shown;

/// Numbers of one storage, kept in an entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Element type, or its name if it cannot be read.
    pub dtype: Result<DType, String>,
    /// Name of the entry inside the `data` folder.
    pub key: &'a str,
    /// Elements.
    pub len: usize,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// The storage.
    pub storage: Storage<'a>,
    /// First element.
    pub offset: usize,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, outermost first.
    pub strides: Vec<usize>,
}

/// The names that may stand in a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name<'a> {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A storage class of torch, such as `HalfStorage`.
    StorageClass(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object<'a> {
    Mark,
    Int(i64),
    Text(&'a str),
    Name(Name<'a>),
    Tuple(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
    /// Anything a state dictionary may hold that is no tensor.
    Other,
}

/// The tensors of the dictionary that `pickle` describes, in its order.
pub fn read_tensors(pickle: &[u8]) -> Result<Vec<(&str, TensorView<'_>)>, Flaw> {
    let mut machine = Machine::new(pickle);
    while !machine.step()? {}
    machine.finish()
}

#[derive(Debug)]
struct Machine<'a> {
    cursor: Cursor<'a>,
    stack: Vec<Object<'a>>,
    memo: HashMap<u32, Object<'a>>,
    tuples: Vec<Vec<Object<'a>>>,
    dicts: Vec<Vec<(&'a str, Object<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<TensorView<'a>>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(pickle),
            stack: Vec::new(),
            memo: HashMap::new(),
            tuples: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Does one operation; true after the last.
    fn step(&mut self) -> Result<bool, Flaw> {
        let [code] = self.cursor.array()?;
        match code {
            0x80 => _ = self.cursor.array::<1>()?,
            b'.' => return Ok(true),
            b'(' => self.stack.push(Object::Mark),
            b'c' => {
                let name = self.name()?;
                self.stack.push(Object::Name(name));
            }
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => {
                let value = i32::from_le_bytes(self.cursor.array()?);
                self.stack.push(Object::Int(value.into()));
            }
            0x8a => {
                let [len] = self.cursor.array()?;
                self.int(len.into())?;
            }
            b'X' => {
                let text = self.text()?;
                self.stack.push(Object::Text(text));
            }
            b'N' | 0x88 | 0x89 | b']' => self.stack.push(Object::Other),
            b'G' => {
                self.cursor.take(8)?;
                self.stack.push(Object::Other);
            }
            b'q' | b'r' => {
                let slot = self.slot(code == b'q')?;
                self.memo.insert(slot, self.top()?);
            }
            b'h' | b'j' => {
                let slot = self.slot(code == b'h')?;
                let object = self.memo.get(&slot).copied();
                self.stack.push(object.ok_or_else(|| self.flaw("a memo slot that was never filled"))?);
            }
            b')' => self.tuple(0)?,
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items);
            }
            b'}' => self.push_dict(Vec::new()),
            b's' => {
                let at = self.stack.len().checked_sub(2).ok_or_else(|| self.flaw("too few objects"))?;
                let items = self.stack.split_off(at);
                self.fill(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.fill(&items)?;
            }
            b'a' | b'b' => _ = self.pop()?,
            b'e' => _ = self.pop_to_mark()?,
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            other => return Err(self.flaw(&format!("operation {other:#04x}, which no tensor needs"))),
        }
        Ok(false)
    }

    fn finish(mut self) -> Result<Vec<(&'a str, TensorView<'a>)>, Flaw> {
        let Object::Dict(mut dict) = self.pop()? else {
            return Err(self.flaw("no dictionary of tensors"));
        };
        // Training checkpoints keep the weights one level down.
        if let Some(&(_, Object::Dict(inner))) = self.dicts[dict].iter().find(|(key, _)| *key == "state_dict")
        {
            dict = inner;
        }
        let tensor = |&(name, object): &(&'a str, Object<'a>)| match object {
            Object::Tensor(index) => Some((name, self.tensors[index].clone())),
            _ => None,
        };
        Ok(self.dicts[dict].iter().filter_map(tensor).collect())
    }

    fn flaw(&self, problem: &str) -> Flaw {
        self.cursor.flaw(format!("its pickle holds {problem}"))
    }

    fn pop(&mut self) -> Result<Object<'a>, Flaw> {
        match self.stack.pop() {
            Some(Object::Mark) | None => Err(self.flaw("too few objects")),
            Some(object) => Ok(object),
        }
    }

    fn top(&self) -> Result<Object<'a>, Flaw> {
        self.stack.last().copied().ok_or_else(|| self.flaw("too few objects"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Object<'a>>, Flaw> {
        let mark = self.stack.iter().rposition(|object| *object == Object::Mark);
        let mark = mark.ok_or_else(|| self.flaw("a list without beginning"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn push_tuple(&mut self, items: Vec<Object<'a>>) {
        self.tuples.push(items);
        self.stack.push(Object::Tuple(self.tuples.len() - 1));
    }

    fn push_dict(&mut self, items: Vec<(&'a str, Object<'a>)>) {
        self.dicts.push(items);
        self.stack.push(Object::Dict(self.dicts.len() - 1));
    }

    /// The topmost `count` objects become a tuple.
    fn tuple(&mut self, count: usize) -> Result<(), Flaw> {
        let at = self.stack.len().checked_sub(count).ok_or_else(|| self.flaw("too few objects"))?;
        let items = self.stack.split_off(at);
        self.push_tuple(items);
        Ok(())
    }

    /// An integer of `len` bytes; negative only at full width.
    fn int(&mut self, len: usize) -> Result<(), Flaw> {
        let bytes = self.cursor.take(len)?;
        if len > 8 {
            return Err(self.flaw(&format!("an integer of {len} bytes")));
        }
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(bytes);
        self.stack.push(Object::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn text(&mut self) -> Result<&'a str, Flaw> {
        let len = self.cursor.u32()?;
        let bytes = self.cursor.take(len as usize)?;
        std::str::from_utf8(bytes).map_err(|_| self.flaw("a text that is not UTF-8"))
    }

    fn slot(&mut self, short: bool) -> Result<u32, Flaw> {
        if short { Ok(self.cursor.array::<1>()?[0].into()) } else { self.cursor.u32() }
    }

    /// A name: module and attribute, each ended by a newline.
    fn name(&mut self) -> Result<Name<'a>, Flaw> {
        let module = self.line()?;
        let attribute = self.line()?;
        match (module, attribute) {
            ("collections", "OrderedDict") => Ok(Name::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Ok(Name::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Name::RebuildParameter),
            ("torch" | "torch.storage", class) if class.ends_with("Storage") => Ok(Name::StorageClass(class)),
            _ => {
                let called = shown(&format!("{module}.{attribute}"));
                Err(self.flaw(&format!(
                    "a call of {called}, which a weight file has no reason to make; do not trust it"
                )))
            }
        }
    }

    fn line(&mut self) -> Result<&'a str, Flaw> {
        let start = self.cursor.position();
        while self.cursor.array()? != *b"\n" {}
        let line = self.cursor.since(start);
        std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| self.flaw("a name that is not UTF-8"))
    }

    /// Puts keys and values into the dictionary below them. Only what can lead to tensors is kept.
    fn fill(&mut self, items: &[Object<'a>]) -> Result<(), Flaw> {
        let top = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        let Object::Dict(dict) = top else {
            // The state of something that is no tensor.
            return Ok(());
        };
        if !rest.is_empty() {
            return Err(self.flaw("a key without value"));
        }
        let kept = pairs.iter().filter_map(|pair| match *pair {
            [Object::Text(key), value @ (Object::Tensor(_) | Object::Dict(_))] => Some((key, value)),
            _ => None,
        });
        self.dicts[dict].extend(kept);
        Ok(())
    }

    /// `("storage", class, key, device, length)` becomes a storage.
    fn storage(&mut self) -> Result<(), Flaw> {
        let Object::Tuple(index) = self.pop()? else {
            return Err(self.flaw("a reference that is no storage"));
        };
        let storage = match self.tuples[index][..] {
            [
                Object::Text("storage"),
                Object::Name(Name::StorageClass(class)),
                Object::Text(key),
                Object::Text(_),
                Object::Int(len),
            ] => Storage { dtype: element_type(class), key, len: self.size(len)? },
            _ => return Err(self.flaw("a reference that is no storage")),
        };
        self.storages.push(storage);
        self.stack.push(Object::Storage(self.storages.len() - 1));
        Ok(())
    }

    /// A known name applied to a tuple.
    fn reduce(&mut self) -> Result<(), Flaw> {
        let Object::Tuple(arguments) = self.pop()? else {
            return Err(self.flaw("a call without arguments"));
        };
        let callee = self.pop()?;
        match (callee, &self.tuples[arguments][..]) {
            (Object::Name(Name::OrderedDict), []) => self.push_dict(Vec::new()),
            (Object::Name(Name::RebuildParameter), [tensor @ Object::Tensor(_), ..]) => {
                let tensor = *tensor;
                self.stack.push(tensor);
            }
            (
                Object::Name(Name::RebuildTensor),
                &[
                    Object::Storage(storage),
                    Object::Int(offset),
                    Object::Tuple(shape),
                    Object::Tuple(strides),
                    ..,
                ],
            ) => {
                let view = TensorView {
                    storage: self.storages[storage].clone(),
                    offset: self.size(offset)?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                self.tensors.push(view);
                self.stack.push(Object::Tensor(self.tensors.len() - 1));
            }
            _ => return Err(self.flaw("a call with unexpected arguments")),
        }
        Ok(())
    }

    fn size(&self, value: i64) -> Result<usize, Flaw> {
        usize::try_from(value).map_err(|_| self.flaw(&format!("a size of {value}")))
    }

    fn sizes(&self, tuple: usize) -> Result<Vec<usize>, Flaw> {
        let items = &self.tuples[tuple];
        if items.len() > 8 {
            return Err(self.flaw(&format!("a tensor of {} dimensions", items.len())));
        }
        let size = |item: &Object<'a>| match *item {
            Object::Int(value) => self.size(value),
            _ => Err(self.flaw("a size that is no number")),
        };
        items.iter().map(size).collect()
    }
}

fn element_type(class: &str) -> Result<DType, String> {
    match class {
        "FloatStorage" => Ok(DType::F32),
        "HalfStorage" => Ok(DType::F16),
        "BFloat16Storage" => Ok(DType::BF16),
        other => Err(other.to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn int(value: i32) -> Vec<u8> {
        [b"J", &value.to_le_bytes()[..]].concat()
    }

    fn sizes(values: &[i32]) -> Vec<u8> {
        [b"(".to_vec(), values.iter().flat_map(|&value| int(value)).collect(), b"t".to_vec()].concat()
    }

    /// A dictionary of one f16 tensor named `w`, in storage `0` of `len` elements.
    pub(in crate::model::hf) fn one_tensor(len: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
        [
            b"\x80\x02}(".to_vec(),
            text("w"),
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            b"ctorch\nHalfStorage\n".to_vec(),
            text("0"),
            text("cpu"),
            int(len),
            b"tQ".to_vec(),
            int(offset),
            sizes(shape),
            sizes(strides),
            b"\x89ccollections\nOrderedDict\n)RtRu.".to_vec(),
        ]
        .concat()
    }

    #[test]
    fn a_tensor_is_read() {
        let pickle = one_tensor(12, 4, &[2, 3], &[3, 1]);
        let tensors = read_tensors(&pickle).unwrap();
        let storage = Storage { dtype: Ok(DType::F16), key: "0", len: 12 };
        assert_eq!(
            tensors,
            [("w", TensorView { storage, offset: 4, shape: vec![2, 3], strides: vec![3, 1] })]
        );
    }

    #[test]
    fn calls_are_refused_by_name() {
        let pickle = [b"\x80\x02cos\nsystem\n".to_vec(), text("true"), b"\x85R.".to_vec()].concat();
        let problem = read_tensors(&pickle).unwrap_err().problem;
        assert!(problem.contains("a call of \"os.system\""), "{problem}");
        assert!(read_tensors(b"cbuiltins\neval\n.").unwrap_err().problem.contains("builtins.eval"));
        // Names by other means: INST, STACK_GLOBAL, extension codes, NEWOBJ.
        for code in [b'i', 0x93, 0x82, 0x81, b'o'] {
            let problem = read_tensors(&[code, 0, 0, 0, 0]).unwrap_err().problem;
            assert!(problem.contains("which no tensor needs"), "{problem}");
        }
    }

    #[test]
    fn negative_and_absurd_sizes_are_refused() {
        assert!(read_tensors(&one_tensor(-1, 0, &[1], &[1])).is_err());
        assert!(read_tensors(&one_tensor(1, 0, &[-1], &[1])).is_err());
        assert!(read_tensors(&one_tensor(1, 0, &[1; 9], &[1; 9])).is_err());
    }

    #[test]
    fn growth_is_linear_in_the_pickle() {
        // Tuples of tuples of the memo: 2^1000 objects if they were copied.
        let mut pickle = b")q\x00".to_vec();
        for _ in 0..1000 {
            pickle.extend(b"h\x00h\x00\x86q\x00");
        }
        pickle.extend(b".");
        assert!(read_tensors(&pickle).unwrap_err().problem.contains("no dictionary"));
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics() {
        let pickle = one_tensor(12, 4, &[2, 3], &[3, 1]);
        for len in 0..pickle.len() {
            assert!(read_tensors(&pickle[..len]).is_err());
        }
        for at in 0..pickle.len() {
            for value in 0..=255 {
                let mut changed = pickle.clone();
                changed[at] = value;
                _ = read_tensors(&changed);
            }
        }
    }
}
