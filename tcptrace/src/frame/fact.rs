//! What the collector itself contributes to the stream of frames.

use serde::{Deserialize, Serialize};

/// Kinds of facts in [`tcptrace_common::record::Head::kind`]; append-only.
pub mod kind {
    /// [`Start`](super::Start): always the first frame.
    pub const START: u8 = 64;
    /// [`Clock`](super::Clock).
    pub const CLOCK: u8 = 65;
    /// [`Snapshot`](super::Snapshot): the rows of a snapshot end here.
    pub const SNAPSHOT: u8 = 66;
    /// [`Loss`](super::Loss).
    pub const LOSS: u8 = 67;
    /// Time passes: no body (`null`). At most one a second.
    pub const TICK: u8 = 68;
    /// [`End`](super::End): always the last frame of a trace that ended cleanly.
    pub const END: u8 = 69;
    /// [`Netns`](super::Netns): before the [`INTERVAL`] that it belongs to.
    pub const NETNS: u8 = 70;
    /// [`Interval`](super::Interval): the rows about listeners (`LISTENER`, `LISTENER_STATS`) and namespaces end here.
    pub const INTERVAL: u8 = 71;
    /// [`Cgroup`](super::Cgroup): before the first record that names it; again when names of its container are known.
    pub const CGROUP: u8 = 72;
    /// [`Stack`](super::Stack): before the first [`OPENED_AT`] that names it.
    pub const STACK: u8 = 73;
    /// [`OpenedAt`](super::OpenedAt): behind the record that it belongs to, and mostly right behind it.
    pub const OPENED_AT: u8 = 74;
    /// [`Closing`](super::Closing): before the [`INTERVAL`] in which it was read.
    pub const CLOSING: u8 = 75;
}

/// The host and what is traced on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// Version of tcptrace.
    pub version: String,
    /// The filters of the command line, as given; they apply to a replay too.
    pub filters: Vec<(String, String)>,
    /// Signal → hook in use.
    pub signals: Vec<(String, String)>,
    /// Signals that no hook serves, or that a worse one serves: what is not exact.
    pub degraded: Vec<String>,
    /// This is a later part of a trace; None: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// What came before the first frame of a recording that holds only the later part of a trace: the ring of a flight recorder let
/// go of it, or other files have it. What of it is still needed stands at the recording's beginning: facts, and all that was told of
/// sockets that are not over at the cut, up to a TICK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// CLOCK_MONOTONIC nanoseconds: of the last frame before.
    pub at: u64,
    /// Kernel records before, those that are still needed included.
    pub records: u64,
    /// Events lost before.
    pub lost: u64,
    /// Sockets that were not over and of which nothing is told from before, because there was no room for it.
    pub forgotten: u64,
    /// No cookie of such a socket is higher; 0: there is none.
    pub forgotten_up_to: u64,
}

impl Cut {
    /// Was this socket there before, and may what was told of it have been let go?
    #[must_use]
    pub fn forgot(&self, cookie: u64) -> bool {
        cookie != 0 && cookie <= self.forgotten_up_to
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a later part of a trace: {} records came before", self.records)?;
        if self.lost > 0 {
            write!(f, ", {} more were lost", self.lost)?;
        }
        if self.forgotten > 0 {
            write!(f, "; there was no room for the beginnings of {} connections", self.forgotten)?;
        }
        Ok(())
    }
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Nanoseconds.
    pub offset_ns: i64,
}

/// End of the start snapshot, or of a later one that repairs what losses did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rows.
    pub rows: u64,
    /// Kernel ticks a second, for `idle_us`; 0 where it could not be measured.
    pub hz: u32,
    /// Network namespaces that were read.
    pub netns: u32,
    /// Network namespaces that could not be entered.
    pub netns_failed: u32,
    /// A later snapshot; None: that of the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<Resync>,
}

/// What a later snapshot looked at: a socket that it had to find and did not is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// CLOCK_MONOTONIC nanoseconds, before the first row was read.
    pub begin: u64,
    /// Network namespaces that were read to their ends.
    pub netns: Vec<u32>,
    /// These are all that the trace is about (`--netns`).
    pub all: bool,
}

impl Resync {
    /// The kernel reports SYN_SENT and SYN_RECV before the socket is where an iterator finds it: one that is not older than
    /// this may be there and have no row. Nanoseconds.
    pub const UNHASHED_NS: u64 = 200_000_000;
}

/// Events that were lost since the last such fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// `ring_full`, `missed_run`, `map_full` or `storage`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// CPU, where it is known.
    pub cpu: Option<u32>,
    /// Kernel program.
    pub program: String,
}

/// Where a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its id: [`cgroup`](tcptrace_common::record::Owner::cgroup) of an owner.
    pub id: u64,
    /// Path below the mount of the v2 hierarchy, with a slash in front.
    pub path: String,
    /// Name of the container that the path names by its id, where the runtime's files tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Name of that container's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

impl Cgroup {
    /// How many paths who takes these facts must remember. With the one that would be too many, it and who tells them forget
    /// all that came before.
    pub const REMEMBERED: usize = 1 << 14;
}

/// A user-space stack, named; each once, however many sockets were opened there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Its number in this trace.
    pub id: u64,
    /// Innermost first.
    pub frames: Vec<StackFrame>,
}

impl Stack {
    /// As [`Cgroup::REMEMBERED`]: fewer, for each takes a kilobyte or two.
    pub const REMEMBERED: usize = 1 << 10;
}

/// One function of a stack; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StackFrame {
    /// Its name, demangled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Path of the program or library, as the process saw it; `[anon]` for code that is in no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Address in that file, as its headers and symbols state it: where the call returns to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// A process opened or accepted a socket there. The time of this fact is that of the record which said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedAt {
    /// Cookie of the socket.
    pub sock: u64,
    /// [`Stack::id`].
    pub stack: u64,
}

/// What only the live run could measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Records received.
    pub records: u64,
    /// Records that came too late for the merge.
    pub late: u64,
    /// Average run time of the kernel programs, where the kernel keeps statistics.
    pub kernel_ns_per_event: Option<u64>,
    /// CPU time of the collector, microseconds.
    pub collector_cpu_us: u64,
    /// Highest number of records in one second.
    pub peak_rate: u64,
    /// User-space stacks that were not copied because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stacks_held_back: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The kernel's own counters of one network namespace, as they stand (`/proc/net/netstat` and `/proc/net/snmp`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Name → value; those of [`COUNTERS`], as far as the kernel has them.
    pub counters: Vec<(String, u64)>,
    /// Name → text as it stands; those of [`SETTINGS`] that the kernel has there. Empty: not read this time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
    /// Name → how many there are now; those of [`GAUGES`]. Empty: not read this time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gauges: Vec<(String, u64)>,
}

/// Settings of a network namespace, below `net.ipv4`. Some exist in the first namespace only.
pub const SETTINGS: [&str; 10] = [
    "ip_local_port_range",
    "ip_local_reserved_ports",
    "tcp_abort_on_overflow",
    "tcp_fin_timeout",
    "tcp_max_orphans",
    "tcp_max_syn_backlog",
    "tcp_max_tw_buckets",
    "tcp_syncookies",
    "tcp_synack_retries",
    "tcp_tw_reuse",
];

/// The counts of sockets in `/proc/net/sockstat` and `sockstat6` that say something: TCP sockets that are hashed (of both families),
/// those without a process (of the whole host), timewait sockets.
pub const GAUGES: [&str; 3] = ["inuse", "orphan", "tw"];

/// The sockets of a network namespace that wait for one of their ends to close, as the kernel had them at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Sockets in CLOSE_WAIT that are not as they were when they were told of last; all of them once a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub close_wait: Vec<CloseWait>,
    /// Sockets in FIN_WAIT2 that no process has any more, by peer: those with the most of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fin_wait2: Vec<(std::net::IpAddr, u32)>,
    /// All of these.
    #[serde(default)]
    pub orphans: u32,
}

/// A socket in CLOSE_WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CloseWait {
    /// Its cookie.
    pub sock: u64,
    /// Sequence numbers that were received and not read, the peer's FIN included: 0 means that its process has read the end of the stream.
    pub unread: u32,
    /// Bytes written and not acknowledged.
    pub unsent: u32,
    /// Bytes sent so far; 0 where the kernel does not say.
    #[serde(default)]
    pub sent: u64,
}

/// The counters that say something about listeners, and what was sent in all.
pub const COUNTERS: [&str; 15] = [
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "SyncookiesSent",
    "SyncookiesRecv",
    "SyncookiesFailed",
    "EmbryonicRsts",
    "TCPDeferAcceptDrop",
    "TCPTimeWaitOverflow",
    "TCPAbortOnMemory",
    "PassiveOpens",
    "AttemptFails",
    "RetransSegs",
    "OutSegs",
];

/// Those of them that hooks can be held to: see `tracker::queues::audit`.
pub const AUDITED: [&str; 8] = [
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "SyncookiesSent",
    "SyncookiesRecv",
    "EmbryonicRsts",
    "PassiveOpens",
];

/// End of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// How long it was, microseconds. 0: the reading at the start, when all totals were 0; the counters are those before the first
    /// interval.
    pub interval_us: u64,
    /// Every event of a listener passes a hook: the totals are exact. Otherwise some are known from samples alone.
    pub exact: bool,
    /// At rest: no event was under way while the totals and the kernel's counters were read. False also where nobody found
    /// out: intervals are too short.
    pub rest: bool,
}
