//! Random numbers that can be had again.

/// See the module: splitmix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed, the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// For a thread of its own.
    pub fn another(&mut self) -> Self {
        Self(self.next())
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// From `from` on, below `to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    /// One in so many.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// Up to 2^`bits` - 1, small ones as often as large ones, and 0.
    pub fn size(&mut self, bits: u64) -> usize {
        let bits = self.below(bits + 1);
        self.below(1 << bits) as usize
    }
}
