//! Values from an integer hash, reproducible in any language without a library.

/// The finaliser of MurmurHash3.
pub fn fmix32(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Value `i` of the stream `name`, in [-1, 1), exact in f32.
pub fn unit(name: &str, i: usize) -> f32 {
    value(fnv1a(name), i)
}

/// Pseudo-random values, derived from a hash of the name: the first `len` values of the stream `name`, times
/// `bound`.
pub fn pseudo_random(name: &str, bound: f32, len: usize) -> Vec<f32> {
    let seed = fnv1a(name);
    (0..len).map(|i| bound * value(seed, i)).collect()
}

/// Euclidean norm of `values`, and their dot products with the streams `projection0` to `projection3`: a
/// short fingerprint of a long tensor for fixtures.
pub fn projections(values: &[f32]) -> [f64; 5] {
    let product =
        |with: &[f32]| values.iter().zip(with).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let on = |i: usize| product(&pseudo_random(&format!("projection{i}"), 1.0, values.len()));
    [product(values).sqrt(), on(0), on(1), on(2), on(3)]
}

fn value(seed: u32, i: usize) -> f32 {
    let h = fmix32((i as u32).wrapping_add(seed));
    (h >> 8) as f32 / 8_388_608.0 - 1.0
}

fn fnv1a(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MurmurHash3_x86_32 of empty input is the finaliser applied to the seed.
    #[test]
    fn fmix32_has_the_published_values() {
        for (seed, hash) in [
            (0, 0),
            (1, 0x514e_28b7),
            (2, 0x30f4_c306),
            (3, 0x85f0_b427),
            (0xdead_beef, 0x0de5_c6a9),
            (u32::MAX, 0x81f1_6f39),
        ] {
            assert_eq!(fmix32(seed), hash, "seed {seed:#x}");
        }
    }

    #[test]
    fn fnv1a_has_the_published_values() {
        for (name, hash) in
            [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("b", 0xe70c_2de5), ("foobar", 0xbf9c_f968)]
        {
            assert_eq!(fnv1a(name), hash, "{name:?}");
        }
    }

    /// In units of 2^-23, from `tests/reference/hashed.py`.
    #[test]
    fn values_are_those_of_the_python_scripts() {
        let units = |name: &str| -> Vec<f32> { (0..4).map(|i| 8_388_608.0 * unit(name, i)).collect() };
        assert_eq!(units("x"), [-5_284_618.0, 7_365_378.0, -3_315_812.0, -5_124_852.0]);
        assert_eq!(units("conv1_1.weight"), [-2_048_871.0, -3_648_300.0, 4_903_883.0, -608_172.0]);
        assert_eq!(8_388_608.0 * unit("image0", 1_000_000), 4_088_993.0);
    }

    #[test]
    fn pseudo_random_values_are_the_stream_times_the_bound() {
        let expected: Vec<f32> = (0..1000).map(|i| 0.25 * unit("stream", i)).collect();
        assert_eq!(pseudo_random("stream", 0.25, 1000), expected);
        assert_ne!(pseudo_random("other", 0.25, 1000), expected);
        assert!(pseudo_random("stream", 0.25, 0).is_empty());
    }

    /// Uniform values in [-1, 1) have mean 0 and variance 1/3.
    #[test]
    fn values_fill_the_range() {
        let values = pseudo_random("range", 1.0, 100_000);
        assert!(values.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!(values.iter().any(|v| *v < -0.9999) && values.iter().any(|v| *v > 0.9999));
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
        // Five standard errors: sqrt(1 / 3 n) of the mean, sqrt(4 / 45 n) of the variance.
        assert!(mean.abs() < 5.0 * (1.0 / (3.0 * n)).sqrt(), "{mean}");
        assert!((variance - 1.0 / 3.0).abs() < 5.0 * (4.0 / (45.0 * n)).sqrt(), "{variance}");
    }
}
