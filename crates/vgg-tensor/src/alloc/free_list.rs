//! The free list of an arena: best-fit allocation from the free ranges of an address range.

/// Initial capacity in free ranges, so that the list does not grow in the steady state.
const CAPACITY: usize = 1024;

/// Free ranges in ascending order; adjacent ranges are merged.
pub(crate) struct FreeList {
    ranges: Vec<FreeRange>,
    /// End of the highest range that was ever allocated.
    high_water: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreeRange {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl FreeList {
    /// Creates a list with one free range, `0..len`.
    pub(crate) fn new(len: usize) -> FreeList {
        let mut ranges = Vec::with_capacity(CAPACITY);
        ranges.push(FreeRange { start: 0, len });
        FreeList { ranges, high_water: 0 }
    }

    /// Allocates from the smallest free range that is large enough; of equal ranges, from the lowest.
    pub(crate) fn alloc(&mut self, len: usize) -> Option<usize> {
        let fitting = self.ranges.iter().enumerate().filter(|(_, range)| range.len >= len);
        let (i, _) = fitting.min_by_key(|(_, range)| range.len)?;
        let range = &mut self.ranges[i];
        let start = range.start;
        *range = FreeRange { start: start + len, len: range.len - len };
        if range.len == 0 {
            self.ranges.remove(i);
        }
        self.high_water = self.high_water.max(start + len);
        Some(start)
    }

    /// Allocates everything that is free between `start` and `start + len`.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn alloc_within(&mut self, start: usize, len: usize) -> Vec<FreeRange> {
        let (mut taken, mut left) = (Vec::new(), Vec::with_capacity(self.ranges.len() + 2));
        for range in self.ranges.drain(..) {
            let (from, to) = (range.start.max(start), (range.start + range.len).min(start + len));
            if from >= to {
                left.push(range);
                continue;
            }
            taken.push(FreeRange { start: from, len: to - from });
            let parts = [(range.start, from), (to, range.start + range.len)];
            left.extend(
                parts.iter().filter(|(a, b)| a < b).map(|&(a, b)| FreeRange { start: a, len: b - a }),
            );
        }
        self.ranges = left;
        taken
    }

    /// The free ranges, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &FreeRange> {
        self.ranges.iter()
    }

    /// End of the highest range that was ever allocated.
    pub(crate) fn high_water(&self) -> usize {
        self.high_water
    }

    /// Frees a range and merges it with adjacent free ranges.
    pub(crate) fn free(&mut self, start: usize, len: usize) {
        let i = self.ranges.partition_point(|range| range.start < start);
        let joins_next = self.ranges.get(i).is_some_and(|next| next.start == start + len);
        let joins_last = i > 0 && self.ranges[i - 1].start + self.ranges[i - 1].len == start;
        match (joins_last, joins_next) {
            (true, true) => self.ranges[i - 1].len += len + self.ranges.remove(i).len,
            (true, false) => self.ranges[i - 1].len += len,
            (false, true) => self.ranges[i] = FreeRange { start, len: len + self.ranges[i].len },
            (false, false) => self.ranges.insert(i, FreeRange { start, len }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_is_best_fit_and_freed_ranges_are_merged() {
        let mut list = FreeList::new(1000);
        let places: Vec<usize> =
            [100, 50, 100, 20, 100].iter().map(|len| list.alloc(*len).unwrap()).collect();
        assert_eq!(places, [0, 100, 150, 250, 270]);
        list.free(100, 50);
        list.free(250, 20);
        assert_eq!(list.alloc(20), Some(250), "the smallest range that fits");
        assert_eq!(list.alloc(60), Some(370));
        list.free(0, 100);
        list.free(150, 100);
        assert_eq!(list.ranges[0], FreeRange { start: 0, len: 250 }, "three ranges merged");
        list.free(250, 20);
        list.free(270, 100);
        list.free(370, 60);
        assert_eq!(list.ranges, [FreeRange { start: 0, len: 1000 }]);
        let cut = list.alloc_within(100, 50);
        assert_eq!(cut, [FreeRange { start: 100, len: 50 }]);
        assert_eq!(list.ranges, [FreeRange { start: 0, len: 100 }, FreeRange { start: 150, len: 850 }]);
        assert_eq!(
            list.alloc_within(90, 70),
            [FreeRange { start: 90, len: 10 }, FreeRange { start: 150, len: 10 }]
        );
        for FreeRange { start, len } in
            [FreeRange { start: 90, len: 10 }, FreeRange { start: 150, len: 10 }, cut[0]]
        {
            list.free(start, len);
        }
        assert_eq!(list.ranges, [FreeRange { start: 0, len: 1000 }]);
        assert_eq!(list.alloc(1001), None);
        assert_eq!(list.high_water, 430);
    }
}
