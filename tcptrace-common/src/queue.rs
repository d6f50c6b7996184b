//! Records about the two queues of a listener: single half-open requests, per-listener totals, samples.
//!
//! Kinds are numbered in [`record::kind`](crate::record::kind). Totals live in a kernel map and are exact at any rate; single
//! requests are records of their own and pass a token bucket.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::{Head, Open, Tuple};

/// Numbers in [`RequestEvent::outcome`]: what became of a SYN, or of the half-open request that it made.
pub mod outcome {
    /// The SYN queue took it; SYN-ACK sent.
    pub const QUEUED: u8 = 1;
    /// The handshake is done: out of the SYN queue, its child into the accept queue.
    pub const COMPLETED: u8 = 2;
    /// Answered with a cookie; nothing kept.
    pub const COOKIE_SENT: u8 = 3;
    /// An ACK brought a cookie back; its child went into the accept queue.
    pub const COOKIE_COMPLETED: u8 = 4;
    /// The SYN was dropped: SYN queue full (or past the `tcp_max_syn_backlog` rule), no cookies.
    pub const SYN_QUEUE_FULL: u8 = 5;
    /// The SYN was dropped: accept queue full.
    pub const ACCEPT_QUEUE_FULL_SYN: u8 = 6;
    /// The final ACK met a full accept queue. The request stays and may complete later, unless [`ABORTED`] follows.
    pub const ACCEPT_QUEUE_FULL_ACK: u8 = 7;
    /// A RST (or a SYN inside the window) ended the request.
    pub const RST: u8 = 8;
    /// Its SYN-ACKs were never answered.
    pub const SYNACK_TIMEOUT: u8 = 9;
    /// Gone or dropped for another reason: no memory, no route.
    pub const OTHER: u8 = 10;
    /// TCP Fast Open: the child went into the accept queue before the handshake ended.
    pub const FAST_OPEN: u8 = 11;
    /// Moved to another listener of its SO_REUSEPORT group; `child` is that listener's cookie.
    pub const MIGRATED: u8 = 12;
    /// Its listener was closed.
    pub const LISTENER_CLOSED: u8 = 13;
    /// `tcp_abort_on_overflow`: the final ACK met a full accept queue and was answered with a RST; the request is gone.
    pub const ABORTED: u8 = 14;
    /// An ICMP error about its SYN-ACK ended the request.
    pub const ICMP_ERROR: u8 = 15;
    /// A connection in the accept queue moved to another listener of its SO_REUSEPORT group: `child` is its cookie, `addr` that
    /// listener's.
    pub const CHILD_MIGRATED: u8 = 16;
}

/// Indexes into [`ListenerTotals::dropped`].
pub mod drop {
    #![expect(
        missing_docs,
        reason = "each is the outcome of the same name; RST includes aborts on overflow, OTHER ICMP errors"
    )]
    pub const SYN_QUEUE_FULL: usize = 0;
    pub const ACCEPT_QUEUE_FULL_SYN: usize = 1;
    pub const ACCEPT_QUEUE_FULL_ACK: usize = 2;
    pub const RST: usize = 3;
    pub const SYNACK_TIMEOUT: usize = 4;
    pub const OTHER: usize = 5;
    pub const LISTENER_CLOSED: usize = 6;
    pub const COUNT: usize = 7;
}

/// [`kind::REQUEST_EVENT`](crate::record::kind::REQUEST_EVENT), 128 bytes: one SYN, half-open request or final ACK, and both
/// depths of its listener's queues right after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestEvent {
    /// `sock` is the listener's cookie; `from` and `to` are NEW_SYN_RECV; no number ([`flag::SEQ_ABSENT`](crate::record::flag)).
    pub head: Head,
    /// Both ends of the request, seen from this host.
    pub tuple: Tuple,
    /// Cookie of the child (completions), or of the new listener (migration); 0 where there is none or it is not known.
    pub child: u64,
    /// Kernel address of the request, which names it together with the initial sequence numbers; 0: none was made. Of a
    /// [`FAST_OPEN`](outcome::FAST_OPEN): of the child, which may be accepted before anything else says its cookie.
    pub addr: u64,
    /// When the first SYN-ACK was sent, CLOCK_MONOTONIC nanoseconds (microsecond resolution); 0: not known.
    pub since: u64,
    /// The peer's initial sequence number.
    pub rcv_isn: u32,
    /// This end's.
    pub snt_isn: u32,
    /// Half-open requests in the SYN queue after the event.
    pub syn_queue: u32,
    /// Those of them whose SYN-ACK was not sent again.
    pub young: u32,
    /// Connections in the accept queue after the event.
    pub accept_queue: u32,
    /// `sk_max_ack_backlog`.
    pub limit: u32,
    /// SYN-ACKs sent again.
    pub retrans: u8,
    /// SYN-ACK timeouts.
    pub timeouts: u8,
    /// See [`outcome`].
    pub outcome: u8,
    /// Bits of [`depth`] whose values are known.
    pub known: u8,
    /// Not used.
    pub reserved: u32,
}

/// Bits of [`RequestEvent::known`].
pub mod depth {
    /// `syn_queue` and `young`.
    pub const SYN_QUEUE: u8 = 1;
    /// `accept_queue`.
    pub const ACCEPT_QUEUE: u8 = 2;
    /// A depth was read before the kernel changed it and corrected by one.
    pub const CORRECTED: u8 = 4;
}

/// [`kind::LISTEN`](crate::record::kind::LISTEN): CLOSE→LISTEN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listen {
    /// As for a connect().
    pub open: Open,
    /// listen()'s argument, before `somaxconn` was applied; `u32::MAX`: not known.
    pub backlog: u32,
    /// `net.core.somaxconn` of its network namespace; `u32::MAX`: not known.
    pub somaxconn: u32,
}

/// Upper bounds of accept waits are powers of two, microseconds: bucket `n` holds waits below `1 << n` and not below
/// `1 << (n - 1)`; the last bucket holds the rest.
pub const WAIT_BUCKETS: usize = 32;
/// Registers of the estimator of distinct sources (HyperLogLog, 128 registers: 9 % standard error).
pub const SOURCE_REGISTERS: usize = 128;

/// Counts of one listener since the programs were attached, 296 bytes. In the kernel map: of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerTotals {
    /// SYNs that reached the listener.
    pub syns: u64,
    /// Requests put into the SYN queue.
    pub queued: u64,
    /// Requests that became connections, by cookie or Fast Open included.
    pub completed: u64,
    /// Connections taken from the accept queue.
    pub accepted: u64,
    /// Cookies sent.
    pub cookies_sent: u64,
    /// Connections made by a returned cookie.
    pub cookies_ok: u64,
    /// Connections made by TCP Fast Open.
    pub fast_opens: u64,
    /// By reason: [`drop`].
    pub dropped: [u64; drop::COUNT],
    /// SYN-ACKs sent again.
    pub synack_retrans: u64,
    /// Requests that went to another listener of the group.
    pub migrated: u64,
    /// Records of single requests that the token bucket held back.
    pub held_back: u64,
    /// Times from the accept queue to accept(), microseconds, by powers of two.
    pub waits: [u32; WAIT_BUCKETS],
    /// Depth changes that were not seen, because their map entry could not be made.
    pub failed: u64,
    /// Of `dropped[SYN_QUEUE_FULL]`: SYNs that the `tcp_max_syn_backlog` rule dropped, which TCPReqQFullDrop leaves out.
    pub by_rule: u64,
    /// Children that were made and lost the race for their request, which PassiveOpens counts too.
    pub phantoms: u64,
    /// Segments that half-open requests did not take, each counted in the listener's `sk_drops`: RSTs, refused final ACKs, SYNs that
    /// came again, segments outside the window, ACKs that TCP_DEFER_ACCEPT ignores.
    pub not_taken: u64,
}

impl ListenerTotals {
    /// Change every count by `each`, which gets the same count of `other` beside it. The last ones are 32 bits wide and wrap.
    pub fn with(&mut self, other: &Self, each: impl Fn(u64, u64) -> u64, wrapping: impl Fn(u32, u32) -> u32) {
        // Exhaustive, so that a new count is not forgotten.
        let Self {
            syns,
            queued,
            completed,
            accepted,
            cookies_sent,
            cookies_ok,
            fast_opens,
            dropped,
            synack_retrans,
            migrated,
            held_back,
            waits,
            failed,
            by_rule,
            phantoms,
            not_taken,
        } = self;
        for (count, other) in [
            (syns, other.syns),
            (queued, other.queued),
            (completed, other.completed),
            (accepted, other.accepted),
            (cookies_sent, other.cookies_sent),
            (cookies_ok, other.cookies_ok),
            (fast_opens, other.fast_opens),
            (synack_retrans, other.synack_retrans),
            (migrated, other.migrated),
            (held_back, other.held_back),
            (failed, other.failed),
            (by_rule, other.by_rule),
            (phantoms, other.phantoms),
            (not_taken, other.not_taken),
        ] {
            *count = each(*count, other);
        }
        dropped.iter_mut().zip(other.dropped).for_each(|(count, other)| *count = each(*count, other));
        waits.iter_mut().zip(other.waits).for_each(|(count, other)| *count = wrapping(*count, other));
    }
}

/// High-water marks of one interval, 144 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Window {
    /// Number of the interval that the marks belong to; the collector counts it up at each tick.
    pub epoch: u32,
    /// Deepest SYN queue.
    pub syn_peak: u32,
    /// Deepest accept queue.
    pub accept_peak: u32,
    /// Longest accept wait, microseconds.
    pub wait_max_us: u32,
    /// Estimator of distinct sources: per register the longest run of zeros seen, plus one.
    pub sources: [u8; SOURCE_REGISTERS],
}

/// Value of the kernel map `LISTENERS` (key: cookie), of one CPU. Interval `n` writes into `windows[n & 1]`, and resets it first
/// when it holds an older one, so that the collector can read the last interval while the next one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerEntry {
    /// Counts.
    pub totals: ListenerTotals,
    /// This interval's and the last one's marks.
    pub windows: [Window; 2],
}

/// [`kind::LISTENER_STATS`](crate::record::kind::LISTENER_STATS): a listener's entry, all CPUs together; written by the
/// collector at the end of each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerStats {
    /// `sock` is the listener's cookie.
    pub head: Head,
    /// Since the start.
    pub totals: ListenerTotals,
    /// Of the interval that ends here; all zero when nothing happened in it.
    pub window: Window,
}

/// [`kind::LISTENER`](crate::record::kind::LISTENER): a row of the listener iterator, at the end of each interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerSample {
    /// `sock` is the listener's cookie; `from` and `to` are LISTEN.
    pub head: Head,
    /// The remote end is empty.
    pub tuple: Tuple,
    /// Identifies the SO_REUSEPORT group: the address of its kernel structure; 0: none.
    pub group: u64,
    /// Half-open requests.
    pub syn_queue: u32,
    /// Those whose SYN-ACK was not sent again.
    pub young: u32,
    /// Connections in the accept queue.
    pub accept_queue: u32,
    /// `sk_max_ack_backlog`.
    pub limit: u32,
    /// `sk_drops`: every SYN and final ACK that this listener dropped, for any reason.
    pub drops: u32,
    /// `net.core.somaxconn` of its network namespace; `u32::MAX`: not known.
    pub somaxconn: u32,
    /// Fast Open children that are not established yet.
    pub fast_open_queue: u32,
    /// Limit of them; 0: Fast Open is off.
    pub fast_open_limit: u32,
    /// TCP_DEFER_ACCEPT, SYN-ACK timeouts; 0: off.
    pub defer_accept: u32,
    /// Not used.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<RequestEvent>() == 128);
    assert!(size_of::<Listen>() == 136);
    assert!(size_of::<ListenerTotals>() == 296);
    assert!(size_of::<Window>() == 144);
    assert!(size_of::<ListenerStats>() == 464);
    assert!(size_of::<ListenerSample>() == 120);
};
