//! Number formats in weights files.

/// A number format, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    F16,
    Bf16,
    F32,
    F64,
    /// A number of this many bytes that is never a weight, such as a counter: an integer, boolean, complex or quantised
    /// number.
    Other(usize),
}

impl Number {
    /// Size of one number in bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Number::F16 | Number::Bf16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
            Number::Other(bytes) => bytes,
        }
    }

    /// The format with this name in safetensors; `None` if it is not a float.
    pub(crate) fn of_safetensors(name: &str) -> Option<Number> {
        Some(match name {
            "F16" => Number::F16,
            "BF16" => Number::Bf16,
            "F32" => Number::F32,
            "F64" => Number::F64,
            _ => return None,
        })
    }

    /// Converts values to `f32`. [`Number::Other`] gives an empty vector.
    pub(crate) fn floats(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|b| value(*b)).collect()
        }
        match self {
            Number::F16 => each(bytes, |b| half(u16::from_le_bytes(b))),
            Number::Bf16 => each(bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            Number::F32 => each(bytes, f32::from_le_bytes),
            Number::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Number::Other(_) => Vec::new(),
        }
    }
}

/// Converts an IEEE half-precision float: one sign bit, five exponent bits, ten fraction bits.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_values_match_numpy() {
        // Values of numpy.float16 with these bits.
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
        assert_eq!(Number::Bf16.floats(&[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(Number::F64.floats(&2.5f64.to_le_bytes()), [2.5]);
    }

    #[test]
    fn every_number_kind_is_little_endian() {
        // 1.5, -0.25 and 65504 in each format, by their bit patterns.
        let half = [0x00, 0x3e, 0x00, 0xb4, 0xff, 0x7b];
        assert_eq!(Number::F16.floats(&half), [1.5, -0.25, 65504.0]);
        // bf16 has the upper half of an f32: 0x3fc0, 0xbe80 and 0x4780, which is 65536.
        let bf16 = [0xc0, 0x3f, 0x80, 0xbe, 0x80, 0x47];
        assert_eq!(Number::Bf16.floats(&bf16), [1.5, -0.25, 65536.0]);
        let single = [0x00, 0x00, 0xc0, 0x3f, 0x00, 0x00, 0x80, 0xbe, 0x00, 0xe0, 0x7f, 0x47];
        assert_eq!(Number::F32.floats(&single), [1.5, -0.25, 65504.0]);
        // 0x3ff8000000000000, and 1 + 2^-24 + 2^-30, which is nearer to 1 + 2^-23 than to 1.
        let double = [0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0x40, 0x10, 0, 0, 0xf0, 0x3f];
        assert_eq!(
            f64::from_le_bytes(double[8..].try_into().unwrap()),
            1.0 + 2f64.powi(-24) + 2f64.powi(-30)
        );
        assert_eq!(Number::F64.floats(&double), [1.5, 1.0 + f32::EPSILON]);
        assert_eq!(Number::Other(4).floats(&single), [0.0; 0]);
    }

    #[test]
    fn every_f16_bit_pattern_is_converted_exactly() {
        for bits in 0..=u16::MAX {
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let (exponent, fraction) = (i32::from(bits >> 10) % 32, f64::from(bits % 1024) / 1024.0);
            let value = f64::from(half(bits));
            match exponent {
                31 if fraction > 0.0 => assert!(value.is_nan(), "{bits:#x}"),
                31 => assert_eq!(value, sign * f64::INFINITY, "{bits:#x}"),
                // Subnormal numbers and zero have the exponent of the smallest normal number.
                0 => assert_eq!(value, sign * fraction * 2f64.powi(-14), "{bits:#x}"),
                _ => assert_eq!(value, sign * (1.0 + fraction) * 2f64.powi(exponent - 15), "{bits:#x}"),
            }
        }
        assert!(half(0x8000).is_sign_negative());
    }

    #[test]
    fn number_kinds_have_sizes_and_safetensors_names() {
        for (number, bytes) in [
            (Number::F16, 2),
            (Number::Bf16, 2),
            (Number::F32, 4),
            (Number::F64, 8),
            (Number::Other(1), 1),
            (Number::Other(8), 8),
        ] {
            assert_eq!(number.bytes(), bytes, "{number:?}");
        }
        for (name, number) in [
            ("F16", Some(Number::F16)),
            ("BF16", Some(Number::Bf16)),
            ("F32", Some(Number::F32)),
            ("F64", Some(Number::F64)),
            ("I64", None),
            ("BOOL", None),
        ] {
            assert_eq!(Number::of_safetensors(name), number, "{name}");
        }
    }
}
