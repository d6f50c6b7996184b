//! How durations are spread, in little memory: each is known within 3 %.

/// Buckets of a power of two.
const PARTS: u32 = 16;

/// Durations in microseconds, counted in buckets that are a sixteenth of a power of two wide. Below 16 µs each has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// (bucket, how many), by bucket: most groups need few.
    buckets: Vec<(u16, u32)>,
    least: u64,
    most: u64,
}

/// Of durations, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Half are not longer.
    pub p50: u64,
    /// 99 of 100 are not longer.
    pub p99: u64,
}

impl Spread {
    /// One more.
    pub fn add(&mut self, us: u64) {
        if self.buckets.is_empty() {
            self.least = us;
        }
        self.least = self.least.min(us);
        self.most = self.most.max(us);
        let number = bucket(us);
        match self.buckets.binary_search_by_key(&number, |b| b.0) {
            Ok(i) => self.buckets[i].1 = self.buckets[i].1.saturating_add(1),
            Err(i) => self.buckets.insert(i, (number, 1)),
        }
    }

    /// None: there were none.
    #[must_use]
    pub fn quantiles(&self) -> Option<Quantiles> {
        Some(Quantiles { p50: self.quantile(50)?, p99: self.quantile(99)? })
    }

    /// So many of a hundred are not longer, microseconds; None: there were none.
    #[must_use]
    pub fn quantile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100);
        let mut before = 0;
        let there = self.buckets.iter().find(|b| {
            before += u64::from(b.1);
            before >= rank
        });
        // Neither shorter than the shortest nor longer than the longest.
        there.map(|b| middle(b.0).clamp(self.least, self.most))
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| u64::from(b.1)).sum()
    }

    /// The longest, microseconds, exact; None: there were none.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        (!self.buckets.is_empty()).then_some(self.most)
    }

    /// (microseconds within 3 %, how many), shortest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.buckets.iter().map(|&(number, n)| (middle(number).clamp(self.least, self.most), n))
    }

    /// Those of another one, too.
    pub fn merge(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        if self.buckets.is_empty() {
            return self.clone_from(other);
        }
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        for &(number, n) in &other.buckets {
            match self.buckets.binary_search_by_key(&number, |b| b.0) {
                Ok(i) => self.buckets[i].1 = self.buckets[i].1.saturating_add(n),
                Err(i) => self.buckets.insert(i, (number, n)),
            }
        }
    }
}

/// The number of the bucket that a duration is in.
fn bucket(us: u64) -> u16 {
    if us < u64::from(PARTS) {
        return us as u16;
    }
    // Its highest five bits, the first of which is set, and how many follow.
    let shift = us.ilog2() - PARTS.ilog2();
    (shift * PARTS) as u16 + (us >> shift) as u16
}

/// The middle of a bucket.
fn middle(number: u16) -> u64 {
    let number = u32::from(number);
    if number < 2 * PARTS {
        return number.into();
    }
    let shift = number / PARTS - 1;
    let first = u64::from(number - shift * PARTS) << shift;
    first + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(values: &[u64]) -> Option<Quantiles> {
        let mut spread = Spread::default();
        values.iter().for_each(|&us| spread.add(us));
        spread.quantiles()
    }

    #[test]
    fn a_single_one_and_none() {
        assert_eq!(spread(&[]), None);
        for us in [0, 15, 16, 12_345, u64::MAX] {
            assert_eq!(spread(&[us]), Some(Quantiles { p50: us, p99: us }));
        }
    }

    #[test]
    fn one_in_a_hundred_does_not_count_and_two_do() {
        let mut values = vec![1000; 99];
        values.push(1_000_000);
        let near = |us: u64, to: u64| us.abs_diff(to) * 100 <= to * 3;
        assert!(spread(&values).is_some_and(|q| near(q.p50, 1000) && near(q.p99, 1000)), "{:?}", spread(&values));
        values[0] = 1_000_000;
        let q = spread(&values).expect("a hundred");
        assert!(near(q.p50, 1000) && near(q.p99, 1_000_000), "{q:?}");
    }

    proptest! {
        #[test]
        fn two_merged_are_as_one(a in proptest::collection::vec(0..1u64 << 40, 0..50), b in proptest::collection::vec(0..1u64 << 40, 0..50)) {
            let of = |values: &[u64]| {
                let mut spread = Spread::default();
                values.iter().for_each(|&us| spread.add(us));
                spread
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged.most(), a.iter().chain(&b).max().copied());
            prop_assert_eq!(merged.iter().map(|(_, n)| u64::from(n)).sum::<u64>(), merged.count());
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }

        #[test]
        fn buckets_are_in_order_and_narrow(us in 0..1u64 << 62) {
            let middle = middle(bucket(us));
            prop_assert!(middle.abs_diff(us) * 32 <= us, "{us} is told as {middle}");
            prop_assert!(bucket(us) <= bucket(us + 1));
        }
    }
}
