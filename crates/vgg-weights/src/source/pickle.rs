//! Python's pickles as `torch.save` writes them. No code is executed: the classes and functions in
//! [`Machine::global`] create [`Value`]s, and those of all others are opaque, without contents.
//!
//! Values are in one list and refer to each other by index, so nesting and repetition take no extra memory.

mod operands;

use std::collections::HashMap;

use super::number::Number;
pub(super) use super::value::{Global, Id, Storage, Tensor, Value};

/// Maximum number of values in a pickle.
const MAX_VALUES: usize = 1 << 18;
/// Maximum length of a string in bytes; longer ones are ignored.
const MAX_TEXT: usize = 4096;
/// Maximum length of a storage's key in bytes; each of its tensors copies it.
const MAX_KEY: usize = 64;

/// The values of one pickle.
pub(super) struct Pickle {
    values: Vec<Value>,
    /// Names of the classes and functions that are not known.
    unknown: Vec<String>,
    root: Id,
}

type Result<T> = std::result::Result<T, String>;

impl Pickle {
    /// Reads a pickle, and returns it with its length in bytes.
    ///
    /// # Errors
    /// The reason, if the pickle is damaged or uses something that is not allowed.
    pub(super) fn read(bytes: &[u8]) -> Result<(Pickle, usize)> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            unknown: Vec::new(),
        };
        while !machine.step()? {}
        let root = machine.pop()?;
        Ok((Pickle { values: machine.values, unknown: machine.unknown, root }, machine.at))
    }

    /// The pickled object.
    pub(super) fn root(&self) -> &Value {
        &self.values[self.root]
    }

    /// Index of the pickled object.
    pub(super) fn root_id(&self) -> Id {
        self.root
    }

    /// All references to storages.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Name of the class of an opaque object.
    pub(super) fn class(&self, index: usize) -> &str {
        &self.unknown[index]
    }

    /// The value at an index.
    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    unknown: Vec<String>,
}

impl Machine<'_> {
    /// Executes one opcode; returns true at STOP.
    fn step(&mut self) -> Result<bool> {
        let code = self.byte()?;
        match code {
            b'.' => return Ok(true),
            // PROTO and FRAME.
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or("the stack is empty")?;
                self.push_again(top)?;
            }
            b'N' | 0x88 | 0x89 => self.push(Value::Other)?,
            b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(code)?,
            0x8c | 0x8d | b'X' | b'U' | b'T' | b'C' | b'B' | 0x8e | 0x96 => self.text(code)?,
            b')' | b']' | b'}' | b't' | 0x85..=0x87 | 0x8f | 0x91 => self.collection(code)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(code)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(code)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => self.named()?,
            b'Q' => self.persistent()?,
            b'R' => self.call()?,
            0x81 | 0x92 => self.new_object(code)?,
            // BUILD sets the `_metadata` of a state dict, which has no meaning for weights.
            b'b' => drop(self.pop()?),
            _ => return Err(format!("pickle opcode 0x{code:02x} is not allowed")),
        }
        Ok(false)
    }

    fn number(&mut self, code: u8) -> Result<()> {
        let number = match code {
            b'J' => i64::from(i32::from_le_bytes(self.array()?)),
            b'K' => i64::from(self.byte()?),
            b'M' => i64::from(u16::from_le_bytes(self.array()?)),
            b'G' => {
                self.take(8)?;
                return self.push(Value::Other);
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                return self.long(length);
            }
            _ => {
                let length = usize::from(self.byte()?);
                return self.long(length);
            }
        };
        self.push(Value::Int(number))
    }

    fn collection(&mut self, code: u8) -> Result<()> {
        let value = match code {
            b')' => Value::Tuple(Vec::new()),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b't' => Value::Tuple(self.since_mark()?),
            // Sets, which have no meaning for weights.
            0x8f => Value::List(Vec::new()),
            0x91 => Value::List(self.since_mark()?),
            _ => {
                let from = self.stack.len().checked_sub(usize::from(code - 0x84));
                Value::Tuple(self.stack.split_off(from.ok_or("the stack is empty")?))
            }
        };
        self.push(value)
    }

    fn fill(&mut self, code: u8) -> Result<()> {
        match code {
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            _ => {
                let items = self.since_mark()?;
                if code == b'u' { self.set(items) } else { self.append(items) }
            }
        }
    }

    fn memo(&mut self, code: u8) -> Result<()> {
        match code {
            0x94 => self.remember(self.memo.len() as u32),
            b'q' => {
                let number = u32::from(self.byte()?);
                self.remember(number)
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.remember(number)
            }
            b'h' => {
                let number = u32::from(self.byte()?);
                self.recall(number)
            }
            _ => {
                let number = u32::from_le_bytes(self.array()?);
                self.recall(number)
            }
        }
    }

    /// STACK_GLOBAL: a class or function whose module and name are on the stack.
    fn named(&mut self) -> Result<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let text = |id: Id| match &self.values[id] {
            Value::Text(text) => Ok(text.clone()),
            _ => Err("the name of a function is not a string"),
        };
        let (module, name) = (text(module)?, text(name)?);
        self.global(&module, &name)
    }

    /// Pushes a class or function; those that are not listed here are opaque.
    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "Size") => Global::Size,
            ("torch", "FloatStorage") => Global::Storage(Number::F32),
            ("torch", "DoubleStorage") => Global::Storage(Number::F64),
            ("torch", "HalfStorage") => Global::Storage(Number::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Number::Bf16),
            ("torch", "ComplexDoubleStorage") => Global::Storage(Number::Other(16)),
            ("torch", "LongStorage" | "ComplexFloatStorage") => Global::Storage(Number::Other(8)),
            ("torch", "IntStorage" | "QInt32Storage") => Global::Storage(Number::Other(4)),
            ("torch", "ShortStorage") => Global::Storage(Number::Other(2)),
            ("torch", "ByteStorage" | "BoolStorage" | "CharStorage" | "QInt8Storage" | "QUInt8Storage") => {
                Global::Storage(Number::Other(1))
            }
            _ => {
                self.unknown.push(format!("{module}.{name}"));
                Global::Unknown(self.unknown.len() - 1)
            }
        };
        self.push(Value::Global(global))
    }

    fn call(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Err("the arguments of a call are not a tuple".into());
        };
        // No function reads more. A pickle may call with the same long tuple again and again.
        let arguments: Vec<Id> = arguments.iter().take(8).copied().collect();
        let made = match self.values[callee] {
            Value::Global(Global::OrderedDict) => Value::Dict(Vec::new()),
            Value::Global(Global::RebuildTensor) => self.tensor(&arguments)?,
            Value::Global(Global::RebuildParameter | Global::Size) => {
                return self.push_again(*arguments.first().ok_or("a call has no arguments")?);
            }
            Value::Global(Global::Unknown(class)) | Value::Opaque(class) => Value::Opaque(class),
            _ => return Err("a value is called that is not a function".into()),
        };
        self.push(made)
    }

    /// NEWOBJ and NEWOBJ_EX: an object of a class, from arguments and, for the latter, keyword arguments.
    fn new_object(&mut self, code: u8) -> Result<()> {
        if code == 0x92 {
            self.pop()?;
        }
        self.pop()?;
        let class = self.pop()?;
        let made = match self.values[class] {
            Value::Global(Global::OrderedDict) => Value::Dict(Vec::new()),
            Value::Global(Global::Unknown(class)) => Value::Opaque(class),
            _ => Value::Other,
        };
        self.push(made)
    }

    /// The tensor of the arguments `(storage, offset, shape, stride, ..)`; opaque if its storage is.
    fn tensor(&self, arguments: &[Id]) -> Result<Value> {
        let bad = || "the arguments of a tensor are not storage, offset, shape and stride".to_owned();
        let [storage, offset, shape, stride, ..] = arguments else { return Err(bad()) };
        let storage = match &self.values[*storage] {
            Value::Storage(storage) => storage,
            Value::Opaque(class) => return Ok(Value::Opaque(*class)),
            _ => return Err(bad()),
        };
        let number = |id: &Id| match self.values[*id] {
            Value::Int(n) => usize::try_from(n).map_err(|_| bad()),
            _ => Err(bad()),
        };
        let list = |id: &Id| match &self.values[*id] {
            Value::Tuple(items) | Value::List(items) if items.len() <= 8 => {
                items.iter().map(number).collect()
            }
            _ => Err(bad()),
        };
        let (shape, stride): (Vec<usize>, Vec<usize>) = (list(shape)?, list(stride)?);
        if shape.len() != stride.len() {
            return Err(bad());
        }
        Ok(Value::Tensor(Tensor { storage: storage.clone(), offset: number(offset)?, shape, stride }))
    }

    /// BINPERSID: the storage of the id `('storage', type, key, location, length, ..)`; opaque if the type is not known.
    fn persistent(&mut self) -> Result<()> {
        let bad = "a persistent id does not refer to a storage";
        let id = self.pop()?;
        let Value::Tuple(items) = &self.values[id] else { return Err(bad.into()) };
        let [what, number, key, _, len, ..] = items.as_slice() else { return Err(bad.into()) };
        let storage = match [what, number, key, len].map(|id| &self.values[*id]) {
            [
                Value::Text(what),
                Value::Global(Global::Storage(number)),
                Value::Text(key),
                Value::Int(len),
            ] if what == "storage" && key.len() <= MAX_KEY => {
                let len = usize::try_from(*len).map_err(|_| bad)?;
                Value::Storage(Storage { number: *number, key: key.clone(), len })
            }
            [Value::Text(what), Value::Global(Global::Unknown(class)), ..] if what == "storage" => {
                Value::Opaque(*class)
            }
            _ => return Err(bad.into()),
        };
        self.push(storage)
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = *self.stack.last().ok_or("the stack is empty")?;
        match &mut self.values[list] {
            Value::Opaque(_) => {}
            Value::List(to) if to.len() + items.len() <= MAX_VALUES => to.extend(items),
            _ => return Err("cannot append: not a list, or the list is full".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Result<()> {
        let dict = *self.stack.last().ok_or("the stack is empty")?;
        match &mut self.values[dict] {
            Value::Opaque(_) => {}
            Value::Dict(to) if items.len().is_multiple_of(2) && to.len() + items.len() <= MAX_VALUES => {
                to.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err("cannot set items: not a dictionary, or the items are invalid".into()),
        }
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Result<()> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        if self.memo.len() >= MAX_VALUES {
            return Err("the memo is too large".into());
        }
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<()> {
        let id = *self.memo.get(&number).ok_or("the memo has no such value")?;
        self.push_again(id)
    }

    /// Pushes a value that exists.
    fn push_again(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err("the stack is too deep".into());
        }
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() >= MAX_VALUES || self.stack.len() >= MAX_VALUES {
            return Err(format!("it has more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        Ok(self.stack.pop().ok_or("the stack is empty")?)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        if mark > self.stack.len() {
            return Err("the mark is beyond the stack".into());
        }
        Ok(self.stack.split_off(mark))
    }
}

#[cfg(test)]
mod tests;
