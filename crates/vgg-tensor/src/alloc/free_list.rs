//! The free list of an arena: best-fit allocation from the free ranges of an address range.

/// Initial capacity in free ranges, so that the list does not grow in the steady state.
const GAPS: usize = 1024;

/// Free ranges in ascending order; adjacent ranges are merged.
pub(crate) struct FreeList {
    free: Vec<FreeRange>,
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
        let mut free = Vec::with_capacity(GAPS);
        free.push(FreeRange { start: 0, len });
        FreeList { free, high_water: 0 }
    }

    /// Allocates from the smallest free range that is large enough; of equal ranges, from the lowest.
    pub(crate) fn alloc(&mut self, len: usize) -> Option<usize> {
        let fitting = self.free.iter().enumerate().filter(|(_, gap)| gap.len >= len);
        let (i, _) = fitting.min_by_key(|(_, gap)| gap.len)?;
        let gap = &mut self.free[i];
        let start = gap.start;
        *gap = FreeRange { start: start + len, len: gap.len - len };
        if gap.len == 0 {
            self.free.remove(i);
        }
        self.high_water = self.high_water.max(start + len);
        Some(start)
    }

    #[cfg(any(feature = "cuda", test))]
    /// Allocates everything that is free between `start` and `start + len`.
    pub(crate) fn alloc_within(&mut self, start: usize, len: usize) -> Vec<FreeRange> {
        let (mut taken, mut left) = (Vec::new(), Vec::with_capacity(self.free.len() + 2));
        for gap in self.free.drain(..) {
            let (from, to) = (gap.start.max(start), (gap.start + gap.len).min(start + len));
            if from >= to {
                left.push(gap);
                continue;
            }
            taken.push(FreeRange { start: from, len: to - from });
            let parts = [(gap.start, from), (to, gap.start + gap.len)];
            left.extend(
                parts.iter().filter(|(a, b)| a < b).map(|&(a, b)| FreeRange { start: a, len: b - a }),
            );
        }
        self.free = left;
        taken
    }

    /// The free ranges, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &FreeRange> {
        self.free.iter()
    }

    /// End of the highest range that was ever allocated.
    pub(crate) fn high_water(&self) -> usize {
        self.high_water
    }

    /// Frees a range and merges it with adjacent free ranges.
    pub(crate) fn free(&mut self, start: usize, len: usize) {
        let i = self.free.partition_point(|gap| gap.start < start);
        let joins_next = self.free.get(i).is_some_and(|next| next.start == start + len);
        let joins_last = i > 0 && self.free[i - 1].start + self.free[i - 1].len == start;
        match (joins_last, joins_next) {
            (true, true) => self.free[i - 1].len += len + self.free.remove(i).len,
            (true, false) => self.free[i - 1].len += len,
            (false, true) => self.free[i] = FreeRange { start, len: len + self.free[i].len },
            (false, false) => self.free.insert(i, FreeRange { start, len }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_is_best_fit_and_freed_ranges_are_merged() {
        let mut free = FreeList::new(1000);
        let places: Vec<usize> =
            [100, 50, 100, 20, 100].iter().map(|len| free.alloc(*len).unwrap()).collect();
        assert_eq!(places, [0, 100, 150, 250, 270]);
        free.free(100, 50);
        free.free(250, 20);
        assert_eq!(free.alloc(20), Some(250), "the smallest range that fits");
        assert_eq!(free.alloc(60), Some(370));
        free.free(0, 100);
        free.free(150, 100);
        assert_eq!(free.free[0], FreeRange { start: 0, len: 250 }, "three ranges merged");
        free.free(250, 20);
        free.free(270, 100);
        free.free(370, 60);
        assert_eq!(free.free, [FreeRange { start: 0, len: 1000 }]);
        let cut = free.alloc_within(100, 50);
        assert_eq!(cut, [FreeRange { start: 100, len: 50 }]);
        assert_eq!(free.free, [FreeRange { start: 0, len: 100 }, FreeRange { start: 150, len: 850 }]);
        assert_eq!(
            free.alloc_within(90, 70),
            [FreeRange { start: 90, len: 10 }, FreeRange { start: 150, len: 10 }]
        );
        for FreeRange { start, len } in
            [FreeRange { start: 90, len: 10 }, FreeRange { start: 150, len: 10 }, cut[0]]
        {
            free.free(start, len);
        }
        assert_eq!(free.free, [FreeRange { start: 0, len: 1000 }]);
        assert_eq!(free.alloc(1001), None);
        assert_eq!(free.high_water, 430);
    }
}
