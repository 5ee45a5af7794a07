//! [`Partition`]: one of several parts, such as a rank's part of a batch, or a part of an evaluation or
//! preparation.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Largest number of parts.
const MAX_COUNT: usize = 1 << 16;

/// Part `index` (from 0) of `count` parts. In text and in files, parts are numbered from 1: `2/8` is the
/// second of eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Partition {
    /// Index of the part, from 0.
    pub index: usize,
    /// Number of parts.
    pub count: usize,
}

impl Partition {
    /// Part 1 of 1: everything.
    pub const WHOLE: Partition = Partition { index: 0, count: 1 };

    /// Whether this is [`Partition::WHOLE`].
    pub fn is_whole(self) -> bool {
        self == Partition::WHOLE
    }

    /// Whether `index` is less than `count`, and `count` is at most 65,536.
    pub fn is_valid(self) -> bool {
        self.index < self.count && self.count <= MAX_COUNT
    }

    /// The contiguous range of `0..n` that is in this part. The sizes of the parts differ by at most 1.
    pub fn range(self, n: usize) -> Range<usize> {
        let start = |index: usize| (n as u128 * index as u128 / self.count.max(1) as u128) as usize;
        start(self.index)..start(self.index + 1)
    }
}

impl Default for Partition {
    fn default() -> Partition {
        Partition::WHOLE
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl From<Partition> for String {
    fn from(part: Partition) -> String {
        part.to_string()
    }
}

impl TryFrom<String> for Partition {
    type Error = String;
    fn try_from(text: String) -> Result<Partition, String> {
        text.parse()
    }
}

impl FromStr for Partition {
    type Err = String;
    fn from_str(text: &str) -> Result<Partition, String> {
        let numbers =
            text.split_once('/').and_then(|(i, n)| Some((i.parse::<usize>().ok()?, n.parse().ok()?)));
        let part =
            numbers.and_then(|(number, count)| Some(Partition { index: number.checked_sub(1)?, count }));
        part.filter(|part| part.is_valid()).ok_or_else(|| {
            format!("{text:?} is not a part i/n, such as 2/8, with i from 1 to n and n at most {MAX_COUNT}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (n, count) in [(10, 3), (2, 5), (50_000, 7), (0, 2), (usize::MAX, MAX_COUNT)] {
            let ranges = (0..count).map(|index| Partition { index, count }.range(n));
            let mut end = 0;
            for range in ranges {
                assert_eq!(range.start, end);
                assert!(range.len().abs_diff(n / count) <= 1, "{range:?} of {n} in {count}");
                end = range.end;
            }
            assert_eq!(end, n);
        }
    }

    #[test]
    fn text_numbers_parts_from_one() {
        assert_eq!("2/8".parse(), Ok(Partition { index: 1, count: 8 }));
        assert_eq!(Partition { index: 1, count: 8 }.to_string(), "2/8");
        assert_eq!("1/1".parse(), Ok(Partition::WHOLE));
        assert!("65536/65536".parse::<Partition>().is_ok());
        for bad in ["0/3", "4/3", "3", "a/b", "0/0", "1/65537", "/", "-1/2"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }
}
