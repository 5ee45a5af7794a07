//! A part of a split, for several machines.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use vgg_tensor::RankGroup;

/// Part `number` of `of` parts of nearly equal size, from 1 on. All of it by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which, from 1 on.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard { number: 1, of: 1 }
    }
}

/// Parts of a split, at most.
const MOST: usize = 1 << 16;

impl Shard {
    /// The part of a rank.
    pub fn of_rank(group: &dyn RankGroup) -> Shard {
        Shard { number: group.rank() + 1, of: group.size() }
    }

    /// Whether there can be such a part.
    pub(crate) fn is_sound(self) -> bool {
        (1..=self.of).contains(&self.number) && self.of <= MOST
    }

    /// Which of `n` images are in it.
    pub fn range(self, n: usize) -> Range<usize> {
        let end = |number: usize| (n as u128 * number as u128 / self.of.max(1) as u128) as usize;
        end(self.number.saturating_sub(1))..end(self.number)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;
    fn from_str(text: &str) -> Result<Shard, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((number, of)) if (Shard { number, of }).is_sound() => Ok(Shard { number, of }),
            _ => Err("it is i/n, such as 2/8, with i from 1 to n".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_hold_every_image_once() {
        for (n, of) in [(10, 3), (2, 5), (50_000, 7), (0, 2)] {
            let ranges = (1..=of).map(|number| Shard { number, of }.range(n));
            let all: Vec<usize> = ranges.flatten().collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>(), "{of} shards of {n}");
        }
        assert_eq!("2/8".parse(), Ok(Shard { number: 2, of: 8 }));
        assert!(["0/3", "4/3", "3", "a/b"].iter().all(|text| text.parse::<Shard>().is_err()));
    }
}
