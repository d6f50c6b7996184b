//! What is kept about a live socket. Connection churn must not pay for socket storage (two allocations and a deferred free a
//! socket), so a direct-mapped array indexed by the cookie's low bits comes first: cookies are handed out in sequence, and
//! short-lived sockets hardly ever meet. A socket whose slot belongs to another one gets socket storage.

use aya_ebpf::{bindings::BPF_SK_STORAGE_GET_F_CREATE, helpers::generated as h};
use core::ffi::c_void;
use tcptrace_common::settings::{PerSocket, SLOTS as SLOT_COUNT};

use crate::maps::{SLOTS, STATS, STORE};

/// The slot that the cookie's low bits name, whoever has it.
#[inline(always)]
fn slot(cookie: u64) -> Option<*mut PerSocket> {
    SLOTS.get_ptr_mut(cookie as u32 & (SLOT_COUNT - 1))
}

/// The same, if the socket with this cookie has it.
#[inline(always)]
fn own_slot(cookie: u64) -> Option<*mut PerSocket> {
    // SAFETY: a map entry.
    slot(cookie).filter(|&slot| unsafe { (*slot).cookie } == cookie)
}

/// Has the socket with this cookie a slot? 0 is no cookie.
#[inline(always)]
pub fn has_slot(cookie: u64) -> bool {
    cookie != 0 && own_slot(cookie).is_some()
}

/// The socket's data if it has any; null otherwise. For records that may come after the socket's own end, when a slot must not
/// be taken any more: nobody would free it.
#[inline(always)]
pub fn find(sk: *const u8, cookie: u64) -> *mut PerSocket {
    match own_slot(cookie) {
        Some(slot) => slot,
        None => storage(sk, false),
    }
}

/// The socket's data, made if need be; `first`: this is the first record of a new timeline. Null when there is no memory.
#[inline(always)]
pub fn get(program: usize, sk: *const u8, cookie: u64, first: bool) -> *mut PerSocket {
    let Some(slot) = slot(cookie) else { return core::ptr::null_mut() };
    // SAFETY: a map entry; its words are read and written whole.
    unsafe {
        if (*slot).cookie == cookie {
            return slot;
        }
        if (*slot).cookie == 0 {
            if !first {
                let stored = storage(sk, false);
                if !stored.is_null() {
                    return stored;
                }
            }
            if claim(slot, cookie) {
                (*slot).owner = 0;
                (*slot).seq = 0;
                return slot;
            }
        }
    }
    let stored = storage(sk, true);
    if stored.is_null() {
        no_storage(program);
    }
    stored
}

/// Count storage of a socket that could not be made.
#[inline(always)]
pub fn no_storage(program: usize) {
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: `program` is a constant below the array's length.
        unsafe { (*stats).storage[program] += 1 }
    }
}

/// A process took the socket over: remember it and number the record that says so. For callers that have no typed pointer
/// and so cannot reach a socket's storage: None: it has no slot.
#[inline(always)]
pub fn take_over(cookie: u64, owner: u32) -> Option<u16> {
    let slot = own_slot(cookie)?;
    // SAFETY: a map entry.
    unsafe {
        (*slot).owner = owner;
        let seq = (*slot).seq.wrapping_add(1);
        (*slot).seq = seq;
        Some(seq)
    }
}

/// A listener whose port was not known has one now: the number of the record that says so. None: it was known, or nobody
/// wants to know.
#[inline(always)]
pub fn bound(cookie: u64) -> Option<u16> {
    let slot = own_slot(cookie)?;
    // SAFETY: a map entry.
    unsafe {
        if (*slot).portless == 0 {
            return None;
        }
        (*slot).portless = 0;
        let seq = (*slot).seq.wrapping_add(1);
        (*slot).seq = seq;
        Some(seq)
    }
}

/// Number of the last record about a socket that has a slot; 0: none.
#[inline(always)]
pub fn last_seq(cookie: u64) -> u16 {
    // SAFETY: a map entry.
    own_slot(cookie).map_or(0, |slot| unsafe { (*slot).seq })
}

/// The socket is gone: its slot is free.
#[inline(always)]
pub fn release(cookie: u64) {
    if let Some(slot) = own_slot(cookie) {
        // SAFETY: a map entry.
        unsafe { core::ptr::write_volatile(&raw mut (*slot).cookie, 0) }
    }
}

/// Take a free slot; false when another CPU was faster.
#[inline(always)]
unsafe fn claim(slot: *mut PerSocket, cookie: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let mut was = 0u64;
        // SAFETY: `cookie` is the first word of the slot, aligned; r0 is the instruction's fixed operand.
        unsafe {
            core::arch::asm!("r0 = cmpxchg_64({p} + 0, r0, {new})", p = in(reg) slot, new = in(reg) cookie, inout("r0") was);
        }
        was == 0
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = (slot, cookie);
        false
    }
}

#[inline(always)]
fn storage(sk: *const u8, create: bool) -> *mut PerSocket {
    let flags = if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 };
    // SAFETY: `sk` is a full socket; a null initial value means zeroes.
    unsafe {
        h::bpf_sk_storage_get(
            (&raw const STORE).cast_mut().cast(),
            sk.cast_mut().cast::<c_void>(),
            core::ptr::null_mut(),
            flags,
        )
        .cast()
    }
}
