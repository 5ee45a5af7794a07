//! ONNX files: decoding and computation.

pub mod compute;
pub mod schema;

use std::path::Path;

use prost::Message as _;

pub use compute::*;
pub use schema::*;

/// Decodes a file. Asserts that it has no fields unknown to the schema, which would go unchecked.
pub fn decode(path: &Path) -> ModelProto {
    let bytes = std::fs::read(path).unwrap();
    let model = ModelProto::decode(bytes.as_slice()).unwrap();
    assert_eq!(model.encoded_len(), bytes.len(), "the file has unknown fields");
    model
}
