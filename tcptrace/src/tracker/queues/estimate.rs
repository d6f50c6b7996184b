//! What can be read from a histogram of powers of two and from a HyperLogLog sketch.

use tcptrace_common::queue::{SOURCE_REGISTERS, WAIT_BUCKETS};

use crate::model::Waits;

/// Accept waits by bucket (see [`WAIT_BUCKETS`]), the longest of them known exactly.
///
/// A quantile lies in the right bucket, so it is right within a factor of two; inside the bucket the waits are taken to be spread
/// evenly.
pub(super) fn waits(buckets: &[u64; WAIT_BUCKETS], max: u64) -> Option<Waits> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    // The longest is of this interval, but its bucket's record may have been read in the next one.
    let longest = buckets.iter().rposition(|&n| n > 0).unwrap_or(0);
    let max = max.max(bounds(longest).0);
    let quantile = |percent: u64| {
        let rank = (total * percent).div_ceil(100).max(1);
        let mut before = 0;
        for (i, &n) in buckets.iter().enumerate() {
            if before + n >= rank {
                let (low, high) = bounds(i);
                let high = high.min(max + 1).max(low + 1);
                // In the middle of its share of the bucket.
                let at = (u128::from(high - low) * u128::from(2 * (rank - before) - 1) / u128::from(2 * n)) as u64;
                return (low + at).min(max);
            }
            before += n;
        }
        max
    };
    if total == 1 {
        return Some(Waits { p50: max, p99: max, max });
    }
    Some(Waits { p50: quantile(50), p99: quantile(99), max })
}

/// Waits in bucket `i` are not below the first and below the second.
fn bounds(i: usize) -> (u64, u64) {
    if i == 0 { (0, 1) } else { (1 << (i - 1), 1 << i) }
}

/// Distinct sources, 9 % standard error (HyperLogLog, Flajolet et al. 2007; few ones by linear counting).
pub(super) fn sources(registers: &[u8; SOURCE_REGISTERS]) -> u64 {
    let m = SOURCE_REGISTERS as f64;
    let empty = registers.iter().filter(|&&r| r == 0).count();
    let sum: f64 = registers.iter().map(|&r| 0.5f64.powi(i32::from(r))).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    let estimate = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
    estimate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_stay_in_their_bucket_and_below_the_longest() {
        let mut buckets = [0; WAIT_BUCKETS];
        assert_eq!(waits(&buckets, 0), None);
        buckets[10] = 1;
        assert_eq!(waits(&buckets, 700), Some(Waits { p50: 700, p99: 700, max: 700 }));
        buckets[4] = 99;
        let w = waits(&buckets, 700).unwrap();
        assert!((8..16).contains(&w.p50) && (8..16).contains(&w.p99), "{w:?}");
        buckets[4] = 50;
        buckets[10] = 50;
        let w = waits(&buckets, 700).unwrap();
        assert_eq!(w, Waits { p50: 15, p99: 695, max: 700 });
    }

    #[test]
    fn the_longest_is_never_below_its_bucket() {
        let mut buckets = [0; WAIT_BUCKETS];
        buckets[0] = 3;
        assert_eq!(waits(&buckets, 0), Some(Waits::default()));
        buckets[WAIT_BUCKETS - 1] = 1;
        assert_eq!(waits(&buckets, 0).unwrap().max, 1 << 30);
    }

    #[test]
    fn sources_are_within_three_standard_errors() {
        for n in [0u64, 1, 10, 100, 1000, 100_000] {
            let mut registers = [0u8; SOURCE_REGISTERS];
            for i in 0..n {
                // splitmix64
                let mut h = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                h ^= h >> 31;
                let r = &mut registers[(h >> 57) as usize];
                *r = (*r).max((h << 7).leading_zeros() as u8 + 1);
            }
            let error = (sources(&registers) as f64 - n as f64).abs();
            assert!(error <= 0.27 * n as f64, "{n}: {}", sources(&registers));
        }
    }
}
