//! Random numbers that depend on a key (seed, epoch, sample, purpose), not on the order of draws.

use std::convert::Infallible;
use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng, TryRng};

/// What random numbers are used for. Streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Order of the samples in an epoch.
    Order,
    /// Augmentation of a sample.
    Augment,
    /// Content of a synthetic image.
    Scene,
}

/// A ChaCha8 generator keyed by seed, epoch, sample and purpose. It implements the traits of `rand_core`; the
/// values of its own methods do not depend on the version of `rand`.
#[derive(Debug, Clone)]
pub struct KeyedRng(ChaCha8Rng);

impl KeyedRng {
    /// The generator of this key, at the start of its stream.
    pub fn new(seed: u64, epoch: u64, sample: u64, purpose: Purpose) -> KeyedRng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..24].copy_from_slice(&sample.to_le_bytes());
        key[24] = match purpose {
            Purpose::Order => 1,
            Purpose::Augment => 2,
            Purpose::Scene => 3,
        };
        KeyedRng(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in the range; the start of the range if it is empty.
    pub fn random_range(&mut self, range: RangeInclusive<usize>) -> usize {
        let (low, high) = (*range.start(), *range.end());
        let count = high.saturating_sub(low) as u128 + 1;
        low + ((u128::from(self.0.next_u64()) * count) >> 64) as usize
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with probability one half.
    pub fn random_bool(&mut self) -> bool {
        self.0.next_u32() >> 31 == 1
    }

    /// Standard normal, by the Box-Muller transform.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

impl TryRng for KeyedRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

/// A random permutation of `0..n` whose elements are computed independently. It takes no memory for any `n`,
/// and ranks and resumed epochs can start at any position.
///
/// It is a Feistel network on the next power of four with cycle walking. Both are bijections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; Permutation::ROUNDS],
}

impl Permutation {
    /// Many rounds, because the halves have few bits if `n` is small.
    const ROUNDS: usize = 12;

    /// Draws a permutation of `0..n` from `rng`.
    pub fn new(rng: &mut KeyedRng, n: usize) -> Permutation {
        let n = n as u64;
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Permutation { n, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| rng.0.next_u64()) }
    }

    /// Number of elements, `n`.
    pub fn len(&self) -> usize {
        self.n as usize
    }

    /// Whether `n` is 0.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The element at position `place`.
    ///
    /// # Panics
    /// If `place` is not less than `n`.
    pub fn at(&self, place: usize) -> usize {
        assert!((place as u64) < self.n, "position {place} is out of range for a permutation of {}", self.n);
        let mask = (1 << self.half_bits) - 1;
        let mut value = place as u64;
        loop {
            let (mut left, mut right) = (value >> self.half_bits, value & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (scrambled(right ^ key) & mask));
            }
            value = left << self.half_bits | right;
            if value < self.n {
                return value as usize;
            }
        }
    }
}

/// MurmurHash3's 64-bit finaliser: each output bit depends on every input bit.
fn scrambled(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_and_normal_values_have_their_distributions() {
        let mut s = KeyedRng::new(1, 2, 3, Purpose::Augment);
        let mut seen = [0; 5];
        let mut moments = [0.0; 2];
        for _ in 0..20_000 {
            seen[s.random_range(3..=7) - 3] += 1;
            let z = s.normal();
            moments[0] += z;
            moments[1] += z * z;
        }
        // The bounds are five standard deviations: sqrt(20,000 * 0.2 * 0.8) = 57 for a count, 0.0071 for the
        // mean of 20,000 values, and 0.01 for the mean of their squares, whose variance is 2.
        assert!(seen.iter().all(|n| (3717..=4283).contains(n)), "{seen:?}");
        assert!(moments[0].abs() / 20_000.0 < 0.036 && (moments[1] / 20_000.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn permutation_has_every_element_once() {
        for n in (1..70).chain([255, 256, 257, 2000, 65_537]) {
            let order = Permutation::new(&mut KeyedRng::new(1, 0, 0, Purpose::Order), n);
            let mut seen = vec![false; n];
            (0..n).for_each(|place| {
                assert!(!std::mem::replace(&mut seen[order.at(place)], true), "{n}, {place}")
            });
        }
    }

    #[test]
    fn permutations_are_random() {
        // 2,000 permutations of 7 elements, and the first 100,000 elements of one permutation of 14 million.
        let mut counts = [[0_u32; 7]; 7];
        let mut followed = 0;
        for epoch in 0..2000 {
            let order = Permutation::new(&mut KeyedRng::new(1, epoch, 0, Purpose::Order), 7);
            for (place, of_place) in counts.iter_mut().enumerate() {
                of_place[order.at(place)] += 1;
            }
            followed += (0..6).filter(|&i| order.at(i + 1) == order.at(i) + 1).count();
        }
        let expected = 2000.0 / 7.0;
        let chi = |count: u32| (f64::from(count) - expected).powi(2) / expected;
        let chi: f64 = counts.iter().flatten().map(|&count| chi(count)).sum();
        // The bound is five standard deviations, sqrt(72) = 8.5, of chi squared with 36 degrees of freedom.
        assert!(chi < 36.0 + 5.0 * 8.5, "{chi}");
        // A seventh of 12,000 pairs, plus or minus five times sqrt(12,000 * 1/7 * 6/7).
        assert!((1522..=1906).contains(&followed), "{followed}");
        let many = Permutation::new(&mut KeyedRng::new(1, 0, 0, Purpose::Order), 14_000_000);
        let mean = (0..100_000).map(|i| many.at(i) as f64).sum::<f64>() / 100_000.0;
        // Five standard deviations of the mean of 100,000 uniform values, sqrt(1 / 12 / 100,000).
        assert!((mean / 14e6 - 0.5).abs() < 0.0046, "{mean}");
    }

    #[test]
    fn uniform_values_are_in_range() {
        let mut stream = KeyedRng::new(1, 0, 0, Purpose::Scene);
        let values: Vec<f64> = (0..10_000).map(|_| stream.uniform(-3.0, 5.0)).collect();
        assert!(values.iter().all(|v| (-3.0..5.0).contains(v)));
        let mean = values.iter().sum::<f64>() / 10_000.0;
        // Five standard errors; the standard deviation of a value is 8 / sqrt(12).
        assert!((mean - 1.0).abs() < 5.0 * 8.0 / 12f64.sqrt() / 100.0, "{mean}");
    }

    #[test]
    fn rand_traits_draw_from_the_same_stream() {
        let rng = || KeyedRng::new(1, 2, 3, Purpose::Augment);
        let (mut ours, mut theirs) = (rng(), rng());
        let unit = (rand_core::Rng::next_u64(&mut theirs) >> 11) as f64 / 9_007_199_254_740_992.0;
        assert_eq!(ours.unit(), unit);
        let mut bytes = [0; 4];
        rand_core::Rng::fill_bytes(&mut theirs, &mut bytes);
        assert_eq!(ours.0.next_u32().to_le_bytes(), bytes);
    }

    #[test]
    fn permutation_of_zero_elements_is_empty() {
        let order = |n| Permutation::new(&mut KeyedRng::new(1, 0, 0, Purpose::Order), n);
        assert!(order(0).is_empty() && !order(1).is_empty());
        assert_eq!((order(0).len(), order(3).len()), (0, 3));
    }

    #[test]
    fn every_part_of_the_key_changes_the_stream() {
        let first = |seed, epoch, sample, purpose| KeyedRng::new(seed, epoch, sample, purpose).unit();
        let a = first(1, 2, 3, Purpose::Augment);
        assert_eq!(a, first(1, 2, 3, Purpose::Augment));
        for b in [
            (0, 2, 3, Purpose::Augment),
            (1, 0, 3, Purpose::Augment),
            (1, 2, 0, Purpose::Augment),
            (1, 2, 3, Purpose::Order),
        ] {
            assert_ne!(a, first(b.0, b.1, b.2, b.3));
        }
    }
}
