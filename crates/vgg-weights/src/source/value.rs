//! Values in a pickle of tensors.

use super::number::Number;

/// Index of a value in its pickle.
pub(super) type Id = usize;

/// A value; collections refer to their items by index.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
    /// An object of a class that is not known: its index in [`super::pickle::Pickle`]'s list of names. It has no
    /// contents; the class was not loaded.
    Opaque(usize),
    /// A value that is ignored, such as a float or a boolean.
    Other,
}

/// A class or function that a pickle may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Number),
    /// A class or function that is not known, by the index of its name.
    Unknown(usize),
}

/// A `torch.Storage`: `len` numbers in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    pub(super) number: Number,
    pub(super) key: String,
    pub(super) len: usize,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}
