//! What a pickle of tensors is made of.

use super::number::Number;

/// Number of a value.
pub(super) type Id = usize;

/// A value.
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
    /// A value without a meaning here, such as a float or a flag.
    Other,
}

/// What a pickle may name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Number),
}

/// Numbers in the file.
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
