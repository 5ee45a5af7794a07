//! Random numbers that depend on what they are for, not on when they are drawn.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a stream of random numbers is for. Streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Order of an epoch.
    Order,
    /// Augmentation of a sample.
    Augment,
    /// Contents of a synthetic image.
    Scene,
}

/// A stream keyed by seed, epoch, sample and purpose.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of this key, from its beginning.
    pub fn new(seed: u64, epoch: u64, sample: u64, purpose: Purpose) -> Stream {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..24].copy_from_slice(&sample.to_le_bytes());
        key[24] = match purpose {
            Purpose::Order => 1,
            Purpose::Augment => 2,
            Purpose::Scene => 3,
        };
        Stream(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
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
    pub fn coin(&mut self) -> bool {
        self.0.next_u32() >> 31 == 1
    }

    /// Standard normal, by the method of Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_where_they_should() {
        let mut s = Stream::new(1, 2, 3, Purpose::Augment);
        let mut seen = [0; 5];
        let mut moments = [0.0; 2];
        for _ in 0..20_000 {
            seen[s.between(3, 7) - 3] += 1;
            let z = s.normal();
            moments[0] += z;
            moments[1] += z * z;
        }
        assert!(seen.iter().all(|n| (3700..4300).contains(n)), "five standard deviations: {seen:?}");
        assert!(moments[0].abs() / 20_000.0 < 0.036 && (moments[1] / 20_000.0 - 1.0).abs() < 0.05);
        let mut order = s.permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let first = |seed, epoch, sample, purpose| Stream::new(seed, epoch, sample, purpose).unit();
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
