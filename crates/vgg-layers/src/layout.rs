//! Conversion between the layout of weights files and the memory layout.
//!
//! Files store filters as `[K, C, R, S]` and the inputs of fc6 in the order `C, H, W`, as PyTorch and Caffe
//! do; memory is channels last. Only this module converts: it transposes two axes within each row.

/// A tensor with the name and shape that it has in weights files.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name, such as `conv1_1.weight`.
    pub name: String,
    /// Shape: `[K, C, R, S]`, `[out, in]` or `[K]`.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Layout of a parameter: `rows` rows of `channels * places` values; `places` are spatial positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) places: usize,
}

impl Layout {
    /// Transposes rows `[channels][places]` to `[places][channels]`.
    pub(crate) fn to_memory(self, file: &[f32]) -> Vec<f32> {
        self.exchange(file, self.channels, self.places)
    }

    /// Transposes rows `[places][channels]` to `[channels][places]`.
    pub(crate) fn to_file(self, memory: &[f32]) -> Vec<f32> {
        self.exchange(memory, self.places, self.channels)
    }

    fn exchange(self, from: &[f32], outer: usize, inner: usize) -> Vec<f32> {
        if outer == 1 || inner == 1 {
            return from.to_vec();
        }
        let mut to = Vec::with_capacity(self.rows * outer * inner);
        for row in from.chunks_exact(outer * inner) {
            for i in 0..inner {
                to.extend(row[i..].iter().step_by(inner));
            }
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_come_last_in_memory() {
        let layout = Layout { rows: 1, channels: 2, places: 3 };
        let file = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
        let memory = layout.to_memory(&file);
        assert_eq!(memory, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
        assert_eq!(layout.to_file(&memory), file);
    }
}
