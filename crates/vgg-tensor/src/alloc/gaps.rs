//! Which stretches of a range are free: what an arena cuts buffers from.

/// Room for this many gaps is made at once, so that a steady step does not ask for more.
const GAPS: usize = 1024;

/// Free stretches in order, none touching another.
pub(crate) struct Gaps {
    gaps: Vec<Gap>,
    /// End of the highest stretch that ever was.
    reached: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Gaps {
    /// One gap of this length.
    pub(crate) fn new(len: usize) -> Gaps {
        let mut gaps = Vec::with_capacity(GAPS);
        gaps.push(Gap { start: 0, len });
        Gaps { gaps, reached: 0 }
    }

    /// Cuts from the smallest gap that is large enough, the lowest of equal ones.
    pub(crate) fn take(&mut self, len: usize) -> Option<usize> {
        let fitting = self.gaps.iter().enumerate().filter(|(_, gap)| gap.len >= len);
        let (i, _) = fitting.min_by_key(|(_, gap)| gap.len)?;
        let gap = &mut self.gaps[i];
        let start = gap.start;
        *gap = Gap { start: start + len, len: gap.len - len };
        if gap.len == 0 {
            self.gaps.remove(i);
        }
        self.reached = self.reached.max(start + len);
        Some(start)
    }

    #[cfg(any(feature = "cuda", test))]
    /// Cuts all that is free between `start` and `start + len`.
    pub(crate) fn take_within(&mut self, start: usize, len: usize) -> Vec<Gap> {
        let (mut taken, mut left) = (Vec::new(), Vec::with_capacity(self.gaps.len() + 2));
        for gap in self.gaps.drain(..) {
            let (from, to) = (gap.start.max(start), (gap.start + gap.len).min(start + len));
            if from >= to {
                left.push(gap);
                continue;
            }
            taken.push(Gap { start: from, len: to - from });
            let parts = [(gap.start, from), (to, gap.start + gap.len)];
            left.extend(parts.iter().filter(|(a, b)| a < b).map(|&(a, b)| Gap { start: a, len: b - a }));
        }
        self.gaps = left;
        taken
    }

    /// The gaps, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter()
    }

    /// End of the highest stretch that ever was.
    pub(crate) fn reached(&self) -> usize {
        self.reached
    }

    /// Gives a stretch back and joins it with its neighbours.
    pub(crate) fn put(&mut self, start: usize, len: usize) {
        let i = self.gaps.partition_point(|gap| gap.start < start);
        let joins_next = self.gaps.get(i).is_some_and(|next| next.start == start + len);
        let joins_last = i > 0 && self.gaps[i - 1].start + self.gaps[i - 1].len == start;
        match (joins_last, joins_next) {
            (true, true) => self.gaps[i - 1].len += len + self.gaps.remove(i).len,
            (true, false) => self.gaps[i - 1].len += len,
            (false, true) => self.gaps[i] = Gap { start, len: len + self.gaps[i].len },
            (false, false) => self.gaps.insert(i, Gap { start, len }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_joined_and_the_smallest_is_used() {
        let mut gaps = Gaps::new(1000);
        let places: Vec<usize> = [100, 50, 100, 20, 100].iter().map(|len| gaps.take(*len).unwrap()).collect();
        assert_eq!(places, [0, 100, 150, 250, 270]);
        gaps.put(100, 50);
        gaps.put(250, 20);
        assert_eq!(gaps.take(20), Some(250), "the smallest that fits");
        assert_eq!(gaps.take(60), Some(370));
        gaps.put(0, 100);
        gaps.put(150, 100);
        assert_eq!(gaps.gaps[0], Gap { start: 0, len: 250 }, "three in one");
        gaps.put(250, 20);
        gaps.put(270, 100);
        gaps.put(370, 60);
        assert_eq!(gaps.gaps, [Gap { start: 0, len: 1000 }]);
        let cut = gaps.take_within(100, 50);
        assert_eq!(cut, [Gap { start: 100, len: 50 }]);
        assert_eq!(gaps.gaps, [Gap { start: 0, len: 100 }, Gap { start: 150, len: 850 }]);
        assert_eq!(gaps.take_within(90, 70), [Gap { start: 90, len: 10 }, Gap { start: 150, len: 10 }]);
        for Gap { start, len } in [Gap { start: 90, len: 10 }, Gap { start: 150, len: 10 }, cut[0]] {
            gaps.put(start, len);
        }
        assert_eq!(gaps.gaps, [Gap { start: 0, len: 1000 }]);
        assert_eq!(gaps.take(1001), None);
        assert_eq!(gaps.reached, 430);
    }
}
