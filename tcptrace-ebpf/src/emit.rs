//! Reserve, fill, submit: the only way into a ring.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::{record::Head, settings::CpuStats, stack::StackCopy};

use crate::maps::{RINGS, STACK_RING, STATS, WAKE_BYTES};

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// The kernel's own header in front of every ring record.
const RING_HEADER: u64 = 8;

/// Write one record of type `T`. `fill` gets the slot and must write all of it except the head's `ts`, which is read here,
/// after the reservation. Counts the record as lost when the ring is full.
#[inline(always)]
pub fn record<T>(program: usize, fill: impl FnOnce(*mut T)) {
    const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() >= size_of::<Head>()) }
    let Some(stats) = STATS.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU entry; a nested program may count on it too, and a counter may then miss one.
    let cpu = unsafe { h::bpf_get_smp_processor_id() };
    let Some(ring) = RINGS.get(cpu) else { return };
    let map = core::ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: a ring map, the size is constant.
    let slot = unsafe { h::bpf_ringbuf_reserve(map, size_of::<T>() as u64, 0) };
    if slot.is_null() {
        count(stats, program);
        return;
    }
    fill(slot.cast());
    // SAFETY: `T` starts with a `Head` (all records do); the slot is ours until it is submitted.
    unsafe {
        (*slot.cast::<Head>()).ts = h::bpf_ktime_get_ns();
        let before = (*stats).bytes;
        let after = before + size_of::<T>() as u64 + RING_HEADER;
        (*stats).bytes = after;
        let flags = if (before ^ after) & WAKE_BYTES.load() != 0 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        h::bpf_ringbuf_submit(slot, flags);
    }
}

#[inline(always)]
fn count(stats: *mut CpuStats, program: usize) {
    // SAFETY: `program` is a constant below the array's length.
    unsafe { (*stats).ring_full[program] += 1 }
}

/// A map had no room for an entry.
#[inline(always)]
pub fn map_full(program: usize) {
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: `program` is a constant below the array's length.
        unsafe { (*stats).map_full[program] += 1 }
    }
}

/// Copy a stack into the ring that this CPU has for them, and wake who looks at the process on the same CPU, before that goes on. `fill` must write all of the
/// slot but the head's `ts`. False: there was no room; it is counted.
#[inline(always)]
pub fn stack(fill: impl FnOnce(*mut StackCopy)) -> bool {
    // SAFETY: no arguments.
    let cpu = unsafe { h::bpf_get_smp_processor_id() };
    let Some(ring) = RINGS.get(STACK_RING.load() + cpu) else { return false };
    let map = core::ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: a ring map, the size is constant.
    let slot = unsafe { h::bpf_ringbuf_reserve(map, size_of::<StackCopy>() as u64, 0) };
    if slot.is_null() {
        stack_held_back();
        return false;
    }
    fill(slot.cast());
    // SAFETY: it starts with a `Head`; the slot is ours until it is submitted.
    unsafe {
        (*slot.cast::<Head>()).ts = h::bpf_ktime_get_ns();
        h::bpf_ringbuf_submit(slot, BPF_RB_FORCE_WAKEUP);
    }
    true
}

/// A stack was not copied.
#[inline(always)]
pub fn stack_held_back() {
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: a per-CPU entry.
        unsafe { (*stats).stacks_held_back += 1 }
    }
}
