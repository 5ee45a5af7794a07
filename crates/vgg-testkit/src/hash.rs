//! Values by an integer hash: no generator, no library, the same in every language.

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

/// The first `len` values of the stream `name`, times `bound`.
pub fn hashed(name: &str, bound: f32, len: usize) -> Vec<f32> {
    let seed = fnv1a(name);
    (0..len).map(|i| bound * value(seed, i)).collect()
}

/// Euclidean norm of some values, and their products with the four streams `projection0` to `projection3`: what a fixture needs to
/// hold of a long tensor.
pub fn projections(values: &[f32]) -> [f64; 5] {
    let product =
        |with: &[f32]| values.iter().zip(with).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let on = |i: usize| product(&hashed(&format!("projection{i}"), 1.0, values.len()));
    [product(values).sqrt(), on(0), on(1), on(2), on(3)]
}

fn value(seed: u32, i: usize) -> f32 {
    let h = fmix32((i as u32).wrapping_add(seed));
    (h >> 8) as f32 / 8_388_608.0 - 1.0
}

fn fnv1a(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
