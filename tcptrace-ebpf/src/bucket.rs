//! Token buckets: how many records of a kind may pass in a window of time.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::settings::{Bucket, WINDOW_SHIFT};

use crate::maps::BUCKET;

/// Take a token of bucket `which`, if `allowance` are not taken yet. The window's turn is not locked: CPUs that meet there may let a few
/// more records pass.
#[inline(always)]
pub fn take(which: u32, allowance: u64) -> bool {
    let Some(b) = BUCKET.get_ptr_mut(which) else { return false };
    // SAFETY: a map entry; its words are read and written whole.
    unsafe {
        let tick = h::bpf_jiffies64();
        if core::ptr::read_volatile(&raw const (*b).tick) != tick {
            core::ptr::write_volatile(&raw mut (*b).tick, tick);
            let window = h::bpf_ktime_get_ns() >> WINDOW_SHIFT;
            if core::ptr::read_volatile(&raw const (*b).window) != window {
                core::ptr::write_volatile(&raw mut (*b).window, window);
                core::ptr::write_volatile(&raw mut (*b).count, 0);
            }
        }
        add_one(b) < allowance
    }
}

/// Are no tokens left at the moment? Takes none.
#[inline(always)]
pub fn is_exhausted(which: u32, allowance: u64) -> bool {
    let Some(b) = BUCKET.get_ptr_mut(which) else { return true };
    // SAFETY: a map entry; its words are read whole.
    unsafe {
        core::ptr::read_volatile(&raw const (*b).count) >= allowance
            && core::ptr::read_volatile(&raw const (*b).tick) == h::bpf_jiffies64()
    }
}

/// Count one that got no token.
#[inline(always)]
pub unsafe fn hold_back(b: *mut Bucket) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: `held_back` is the fourth word of the entry, aligned.
    unsafe {
        core::arch::asm!("lock *(u64 *)({b} + 24) += {c}", b = in(reg) b, c = in(reg) 1u64);
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = b;
}

/// Count one more; how many there were.
#[inline(always)]
unsafe fn add_one(b: *mut Bucket) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut count = 1u64;
        // SAFETY: `count` is the second word of the entry, aligned.
        unsafe {
            core::arch::asm!("{c} = atomic_fetch_add((u64 *)({b} + 8), {c})", b = in(reg) b, c = inout(reg) count);
        }
        count
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = b;
        0
    }
}
