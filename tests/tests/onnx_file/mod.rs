//! A file as ONNX defines it, and what it computes.

pub mod compute;
pub mod schema;

use std::path::Path;

use prost::Message as _;

pub use compute::*;
pub use schema::*;

/// Decodes a file. No message may have a field that the types above do not know: it would go unchecked.
pub fn decode(path: &Path) -> ModelProto {
    let bytes = std::fs::read(path).unwrap();
    let model = ModelProto::decode(bytes.as_slice()).unwrap();
    assert_eq!(model.encoded_len(), bytes.len(), "the file has fields that the test does not know");
    model
}
