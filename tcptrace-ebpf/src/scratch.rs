//! What the programs of one CPU tell each other about the segment or the timer at hand.
//!
//! Everything here runs in softirq or with it switched off, which does not nest on a CPU; a process' own actions do not come
//! here. So it is kept per CPU, never by process: softirq runs on top of any.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tcptrace_common::queue::RequestEvent;

/// Arguments of a function that a return probe needs: kretprobes do not have them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stash {
    /// The first is 0 where the entry was not seen.
    pub args: [u64; 3],
}

/// Indexes into [`Scratch::stash`].
pub mod function {
    pub const CONN_REQUEST: usize = 0;
    pub const HASH_ADD: usize = 1;
    pub const QUEUE_DROP: usize = 2;
    pub const HASHDANCE: usize = 3;
    pub const SYN_RECV_V4: usize = 4;
    pub const SYN_RECV_V6: usize = 5;
    pub const COOKIE_SOCK: usize = 6;
    pub const FASTOPEN: usize = 7;
    pub const CLONE: usize = 8;
    pub const CHECK_REQ: usize = 9;
    pub const COUNT: usize = 10;
}

/// Values of [`Scratch::outcome`] that are no outcomes.
pub const UNDECIDED: u8 = 0;
pub const DUPLICATE: u8 = 255;

/// One CPU's.
#[repr(C)]
pub struct Scratch {
    /// Cookie of the last listener that the filter let pass.
    pub wanted: u64,
    /// Listener of the `tcp_conn_request` that is running; 0: none.
    pub conn: u64,
    /// Its depths when it began.
    pub conn_syn: u32,
    pub conn_accept: u32,
    /// What became of the SYN so far: an outcome, [`UNDECIDED`] or [`DUPLICATE`].
    pub outcome: u8,
    /// 1: the record in `event` passed the filter and the token bucket.
    pub passed: u8,
    pub reserved: [u8; 6],
    /// Request whose final ACK met a full accept queue, where such ACKs are answered with a RST; 0: none. Its end is next; on the
    /// tracepoint tier that was just told, and the drop of the segment is next.
    pub overflown: u64,
    /// Request that an ICMP error ends; 0: none. Its end is next.
    pub failed: u64,
    /// Kretprobes' arguments.
    pub stash: [Stash; function::COUNT],
    /// Child that `event` is about, from the moment when it is in the accept queue; 0: none.
    pub child: u64,
    /// Listener that `event` is about: its address.
    pub listener: u64,
    /// A completion on its way.
    pub event: RequestEvent,
    /// Tracepoint tier, see `timers`. Child that was born and whose request is not known yet; 0: none.
    pub newborn: u64,
    /// Request whose timer a duplicate SYN sets again.
    pub rearmed: u64,
    /// Request whose timer runs.
    pub expiring: u64,
    /// Cookie of the listener that took the request over while its timer ran.
    pub moved_to: u64,
    /// Established child that no request was stopped for.
    pub cookie_child: u64,
    /// Child whose request belonged to a listener that is closed.
    pub moved_child: u64,
    /// The request whose timer runs, and its listener.
    pub expired_listener: u64,
    pub expired: RequestEvent,
    /// Timewait socket whose timer was cancelled, its cookie, its state, and when.
    pub tw: u64,
    pub tw_cookie: u64,
    pub tw_state: u64,
    pub tw_ts: u64,
}

#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's.
#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}
