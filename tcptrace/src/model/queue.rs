//! Listeners' queues: what became of a SYN, both queues over an interval, the kernel's own counters.

use std::{net::IpAddr, sync::Arc};

use tcptrace_common::{queue::drop, record::Tuple};

use super::{Inferred, Process, State};

/// What became of a SYN, a half-open request or a final ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The SYN queue took it (or, on migration, another listener's).
    Queued,
    /// It became a connection.
    Completed,
    /// Answered with a cookie; nothing kept.
    CookieSent,
    /// A returned cookie became a connection.
    CookieCompleted,
    /// The SYN was dropped: SYN queue full.
    SynQueueFull,
    /// The SYN was dropped: accept queue full.
    AcceptQueueFullSyn,
    /// The final ACK met a full accept queue.
    AcceptQueueFullAck,
    /// Ended by a RST, or a SYN inside the window.
    Rst,
    /// Its SYN-ACKs were never answered.
    SynAckTimeout,
    /// Another reason, see [`Detail`].
    Other,
}

impl Outcome {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Completed => "completed",
            Self::CookieSent => "cookie_sent",
            Self::CookieCompleted => "cookie_completed",
            Self::SynQueueFull => "syn_queue_full",
            Self::AcceptQueueFullSyn => "accept_queue_full_syn",
            Self::AcceptQueueFullAck => "accept_queue_full_ack",
            Self::Rst => "rst",
            Self::SynAckTimeout => "synack_timeout",
            Self::Other => "other",
        }
    }
}

/// More about an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// `completed`: TCP Fast Open, before the handshake ended.
    FastOpen,
    /// `queued`, `completed`: moved here from another listener of the SO_REUSEPORT group.
    Migrated,
    /// `other`: the listener was closed.
    ListenerClosed,
    /// `accept_queue_full_ack`: and answered with a RST (`tcp_abort_on_overflow`); the request is gone.
    Aborted,
    /// `other`: an ICMP error about its SYN-ACK.
    IcmpError,
    /// `rst`, `synack_timeout`, `other`: its final ACK had met a full accept queue before.
    Overflowed,
}

impl Detail {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FastOpen => "fast_open",
            Self::Migrated => "migrated",
            Self::ListenerClosed => "listener_closed",
            Self::IcmpError => "icmp_error",
            Self::Aborted => "aborted",
            Self::Overflowed => "overflowed",
        }
    }
}

/// Something happened to a SYN or a half-open request.
#[derive(Clone, Debug)]
pub struct Request {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Number of the timeline: that of the connection that it becomes.
    pub id: u64,
    /// Cookie of the child, 0 where there is none.
    pub child: u64,
    /// Cookie of the listener, 0 where not known.
    pub listener: u64,
    /// The listener's process.
    pub owner: Option<Arc<Process>>,
    /// Both ends.
    pub tuple: Tuple,
    /// None: it is over, and how was not seen.
    pub outcome: Option<Outcome>,
    /// More about that.
    pub detail: Option<Detail>,
    /// Nothing more will come of the request as such.
    pub over: bool,
    /// SYN-ACKs sent again.
    pub synack_retrans: u32,
    /// The peer's initial sequence number; None where not known.
    pub rcv_isn: Option<u32>,
    /// This end's; None where none was chosen or it is not known.
    pub snt_isn: Option<u32>,
    /// Nanoseconds since the SYN.
    pub age_ns: Option<u64>,
    /// Half-open requests of the listener after the event, and those of them whose SYN-ACK was not sent again.
    pub syn_queue: Option<(u32, u32)>,
    /// Its accept queue after the event.
    pub accept_queue: Option<u32>,
    /// Limit of both.
    pub limit: Option<u32>,
    /// Existed when the trace began.
    pub preexisting: bool,
    /// Of it: [`Inferred::START`].
    pub inferred: Inferred,
}

impl Request {
    /// Is it over without having become a connection? A SYN that was answered by a cookie is not: nobody knows.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.over
            && !matches!(
                self.outcome,
                Some(Outcome::Completed | Outcome::CookieSent | Outcome::CookieCompleted | Outcome::Queued)
            )
    }
}

/// How a TIME_WAIT remnant went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// Its time was up.
    Expired,
    /// A new connection with the same ends took its place.
    Reused,
    /// Removed early, for no new connection: by an administrator, or with its network namespace.
    Killed,
}

impl Left {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Reused => "reused",
            Self::Killed => "killed",
        }
    }
}

/// A TIME_WAIT remnant is gone.
#[derive(Clone, Debug)]
pub struct Remnant {
    /// When it went, CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Number of the timeline.
    pub id: u64,
    /// Cookie.
    pub cookie: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Who had the connection.
    pub owner: Option<Arc<Process>>,
    /// What it began as: TIME_WAIT, or FIN_WAIT2 of an orphan.
    pub state: State,
    /// Nanoseconds that it existed; None where its begin was not seen.
    pub ns: Option<u64>,
    /// Why.
    pub how: Left,
    /// Existed when the trace began.
    pub preexisting: bool,
}

/// What set the limit of a listener's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitedBy {
    /// listen()'s argument.
    Backlog,
    /// `net.core.somaxconn`.
    Somaxconn,
}

impl LimitedBy {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::Somaxconn => "somaxconn",
        }
    }
}

/// A queue at the end of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Entries now; None: the listener is gone.
    pub len: Option<u32>,
    /// SYN queue: entries whose SYN-ACK was not sent again.
    pub young: Option<u32>,
    /// Most in the interval.
    pub peak: Option<u32>,
    /// `sk_max_ack_backlog`: full when there are more than that.
    pub limit: Option<u32>,
}

impl Depth {
    /// Was it full in the interval?
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.limit.zip(self.peak).is_some_and(|(limit, peak)| peak > limit)
    }
}

/// Accept waits of an interval, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Half waited less: estimated within a power of two.
    pub p50: u64,
    /// 99 of 100 waited less: estimated likewise.
    pub p99: u64,
    /// The longest, exact.
    pub max: u64,
}

/// Drops of an interval by reason, in the order of [`tcptrace_common::queue::drop`]; None: no hook tells.
pub type Dropped = [Option<u64>; drop::COUNT];

/// Names of [`Dropped`] in JSON.
pub const DROPPED: [&str; drop::COUNT] = [
    "syn_queue_full",
    "accept_queue_full_syn",
    "accept_queue_full_ack",
    "rst",
    "synack_timeout",
    "other",
    "listener_closed",
];

/// Both queues of a listener over an interval. A count that no hook tells is None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// End of the interval, CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Its length, microseconds.
    pub interval_us: u64,
    /// SO_REUSEPORT group: the lowest timeline number that was ever in it.
    pub group: Option<u64>,
    /// The SYN queue.
    pub syn_queue: Depth,
    /// The accept queue.
    pub accept_queue: Depth,
    /// listen()'s argument.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn`, as it was at listen() or, where that was not seen, is now.
    pub somaxconn: Option<u32>,
    /// Which of them set the limit.
    pub limited_by: Option<LimitedBy>,
    /// SYNs that reached it.
    pub syns: Option<u64>,
    /// Requests put into the SYN queue.
    pub queued: Option<u64>,
    /// Connections put into the accept queue, by whichever way.
    pub completed: Option<u64>,
    /// Taken from it.
    pub accepted: Option<u64>,
    /// Cookies sent.
    pub cookies_sent: Option<u64>,
    /// Connections made by a returned cookie.
    pub cookies_ok: Option<u64>,
    /// Connections made by TCP Fast Open.
    pub fast_opens: Option<u64>,
    /// SYNs, requests and final ACKs that came to nothing.
    pub dropped: Dropped,
    /// SYN-ACKs sent again.
    pub synack_retrans: Option<u64>,
    /// Requests that went to another listener of the group.
    pub migrated: Option<u64>,
    /// Records of single requests that were not made for their rate.
    pub held_back: u64,
    /// Segments that its half-open requests did not take.
    pub not_taken: Option<u64>,
    /// Growth of `sk_drops`.
    pub sk_drops: Option<u64>,
    /// Distinct sources, estimated.
    pub sources: Option<u64>,
    /// None where nothing was accepted.
    pub waits: Option<Waits>,
    /// Fast Open children that are not established yet, and how many there may be.
    pub fast_open_queue: Option<(u32, u32)>,
    /// TCP_DEFER_ACCEPT, SYN-ACK timeouts.
    pub defer_accept: Option<u32>,
    /// Every event of it passed a hook.
    pub exact: bool,
    /// Names of JSON fields that were concluded.
    pub inferred: Vec<&'static str>,
}

/// The kernel's counters of a network namespace over an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetnsCounters {
    /// End of the interval, CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Its length, microseconds.
    pub interval_us: u64,
    /// Inode number of the namespace.
    pub netns: u32,
    /// Listeners in it.
    pub listeners: u32,
    /// Growth by name since its last reading, `interval_us` before; empty in the first one, of which the begin is not known.
    pub counters: Vec<(String, u64)>,
    /// Settings by name, below `net.ipv4`; empty: not read this time.
    pub settings: Vec<(String, String)>,
    /// How many sockets there are now, by name as in `/proc/net/sockstat`: `inuse`, `orphan` (of the whole host), `tw`; empty: not read
    /// this time.
    pub gauges: Vec<(String, u64)>,
}

/// What a socket in CLOSE_WAIT holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Bytes received and not read.
    pub unread: u32,
    /// Its process has read the end of the stream, behind all bytes.
    pub at_end: bool,
    /// Bytes written and not acknowledged.
    pub unsent: u32,
    /// Bytes sent so far.
    pub sent: u64,
}

/// Sockets of a network namespace in FIN_WAIT2 that no process has: their peers do not close.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Inode number of the namespace.
    pub netns: u32,
    /// By peer: those with the most of them.
    pub peers: Vec<(IpAddr, u32)>,
    /// All of them.
    pub total: u32,
}

/// A counter of the kernel and the same from the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residual {
    /// Network namespace.
    pub netns: u32,
    /// Name of the counter.
    pub counter: String,
    /// Cookie of the listener, for `sk_drops`.
    pub listener: Option<u64>,
    /// Growth in the kernel.
    pub kernel: u64,
    /// Ours.
    pub ours: u64,
}
