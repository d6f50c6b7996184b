//! Random numbers that can be had again.

use std::hash::{BuildHasher as _, Hasher as _};

/// See the module: splitmix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// From `TCPTRACE_TEST_SEED`, or from the system; and what to set that to for the same again.
    pub fn seeded() -> (Self, u64) {
        let system = || std::hash::RandomState::new().build_hasher().finish();
        let seed = crate::support::setting("TCPTRACE_TEST_SEED").unwrap_or_else(system);
        (Self(seed), seed)
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

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// Up to 2^`bits` - 1, small ones as often as large ones, and 0.
    pub fn size(&mut self, bits: u64) -> usize {
        let bits = self.below(bits + 1);
        self.below(1 << bits) as usize
    }
}
