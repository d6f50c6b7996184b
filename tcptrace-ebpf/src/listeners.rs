//! Each listener's totals and marks, exact at any rate, and who waits in its accept queue.
//!
//! Entries are of one CPU: nothing is locked. What a process does (accept) and what softirq does touch different counters.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::{
    queue::{ListenerEntry, ListenerTotals, SOURCE_REGISTERS, WAIT_BUCKETS, Window},
    settings::{
        Waiting,
        program::{ACCEPT, TCP_RETRANSMIT_SYNACK},
    },
};

use crate::{
    emit, filter,
    maps::{EMPTY, EPOCH, LISTENERS, SOURCE_SEED, WAITING},
    memory::Memory,
    place::off,
    scratch::scratch,
};

const BPF_NOEXIST: u64 = 1;

/// A wanted listener whose entry is at hand.
#[derive(Clone, Copy)]
pub struct Listener {
    pub cookie: u64,
    entry: *mut ListenerEntry,
}

impl Listener {
    /// Look the listener up, or begin its entry. None: not wanted, without a cookie, or no room (counted).
    #[inline(always)]
    pub fn of<M: Memory>(program: usize, sk: *const u8) -> Option<Self> {
        let s = scratch()?;
        // SAFETY: a listener. Its remote end is empty, which every filter lets pass. This CPU's entry.
        unsafe {
            // A flood is of one listener: what the filter said of the last one is kept.
            let known: u64 = M::ld(sk, off!(cookie));
            if known != 0 && known == (*s).wanted {
                return Self::by_cookie(program, known);
            }
            if !filter::wanted_by::<M>(sk, M::ld(sk, off!(num)), 0) {
                return None;
            }
            let cookie = M::cookie(sk);
            (*s).wanted = cookie;
            Self::by_cookie(program, cookie)
        }
    }

    /// [`Listener::of`] where the filter has passed it already.
    #[inline(always)]
    pub fn by_cookie(program: usize, cookie: u64) -> Option<Self> {
        if cookie == 0 || epoch() == 0 {
            return None;
        }
        if let Some(entry) = LISTENERS.get_ptr_mut(cookie) {
            return Some(Self { cookie, entry });
        }
        // SAFETY: an array's entry, never written.
        let empty = unsafe { &*EMPTY.get_ptr(0)? };
        // Another CPU may have been faster; the second look-up tells.
        let _ = LISTENERS.insert(cookie, empty, BPF_NOEXIST);
        match LISTENERS.get_ptr_mut(cookie) {
            Some(entry) => Some(Self { cookie, entry }),
            None => {
                emit::map_full(program);
                None
            }
        }
    }

    /// Its counts on this CPU.
    #[inline(always)]
    pub fn totals(&self) -> *mut ListenerTotals {
        // SAFETY: a map entry.
        unsafe { &raw mut (*self.entry).totals }
    }

    /// The running interval's marks, emptied if they are an older one's.
    #[inline(always)]
    pub fn window(&self) -> *mut Window {
        let epoch = epoch();
        // SAFETY: a map entry.
        unsafe {
            let windows = (&raw mut (*self.entry).windows).cast::<Window>();
            let w = if epoch & 1 == 0 { windows } else { windows.add(1) };
            if (*w).epoch != epoch {
                let words = (&raw mut (*w).sources).cast::<u64>();
                for i in 0..SOURCE_REGISTERS / 8 {
                    *words.add(i) = 0;
                }
                (*w).syn_peak = 0;
                (*w).accept_peak = 0;
                (*w).wait_max_us = 0;
                (*w).epoch = epoch;
            }
            w
        }
    }

    /// Raise the marks to these depths.
    #[inline(always)]
    pub fn peaks(&self, syn: u32, accept: u32) {
        let w = self.window();
        // SAFETY: a map entry.
        unsafe {
            if syn > (*w).syn_peak {
                (*w).syn_peak = syn;
            }
            if accept > (*w).accept_peak {
                (*w).accept_peak = accept;
            }
        }
    }

    /// Show the estimator of distinct sources a peer.
    #[inline(always)]
    pub fn source(&self, address: u64) {
        let hash = mix(address ^ SOURCE_SEED.load());
        // 57 zeros at most: a rank always fits, and always ends.
        let rank = ((hash >> 7) | 1 << 56).trailing_zeros() as u8 + 1;
        // SAFETY: a map entry; the index is below the number of registers.
        unsafe {
            let at = (&raw mut (*self.window()).sources).cast::<u8>().add(hash as usize & (SOURCE_REGISTERS - 1));
            if rank > *at {
                *at = rank;
            }
        }
    }
}

/// Number of the running interval. 0: none has begun, the loader is still attaching: half of the hooks would tell nonsense.
#[inline(always)]
fn epoch() -> u32 {
    EPOCH.get(0).copied().unwrap_or(0)
}

/// An IPv6 address as one word; a v4-mapped one is the IPv4 address that it holds.
#[inline(always)]
pub fn one_word(high: u64, low: u64) -> u64 {
    if high == 0 && low as u32 == 0xffff_0000 { low >> 32 } else { mix(high) ^ low }
}

/// The finalizer of splitmix64: every bit of the input changes half of the output.
#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A child is in the accept queue of listener `l` from now on.
#[inline(always)]
pub fn wait_begins(program: usize, l: &Listener, child: u64) {
    // SAFETY: no arguments.
    let since = unsafe { h::bpf_ktime_get_ns() };
    if WAITING.insert(child, Waiting { listener: l.cookie, since }, 0).is_err() {
        emit::map_full(program);
        // SAFETY: a map entry.
        unsafe { (*l.totals()).failed += 1 }
    }
}

/// Nobody took the child: it is gone.
#[inline(always)]
pub fn wait_ends(child: u64) {
    let _ = WAITING.remove(child);
}

/// A process took the child from its accept queue.
#[inline(always)]
pub fn accepted(child: u64) {
    // SAFETY: the entry is copied at once, and removed by nobody else but the child's end, which is yet to come.
    let Some(Waiting { listener, since }) = unsafe { WAITING.get(child) }.copied() else { return };
    let _ = WAITING.remove(child);
    let Some(l) = Listener::by_cookie(ACCEPT, listener) else { return };
    // SAFETY: no arguments; a map entry.
    unsafe {
        let us = h::bpf_ktime_get_ns().wrapping_sub(since) / 1000;
        let us = if us > u64::from(u32::MAX) { u32::MAX } else { us as u32 };
        let bucket = (32 - us.leading_zeros()) as usize;
        let bucket = if bucket >= WAIT_BUCKETS { WAIT_BUCKETS - 1 } else { bucket };
        let totals = l.totals();
        (*totals).accepted += 1;
        *(&raw mut (*totals).waits).cast::<u32>().add(bucket & (WAIT_BUCKETS - 1)) += 1;
        let w = l.window();
        if us > (*w).wait_max_us {
            (*w).wait_max_us = us;
        }
    }
}

/// A SYN-ACK was sent again.
#[inline(always)]
pub fn synack_sent_again(cookie: u64) {
    if let Some(l) = Listener::by_cookie(TCP_RETRANSMIT_SYNACK, cookie) {
        // SAFETY: a map entry.
        unsafe { (*l.totals()).synack_retrans += 1 }
    }
}
