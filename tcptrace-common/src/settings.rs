//! Read-only globals of the kernel programs, other than the offsets: set by the loader, constants to the verifier.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::pair::Tokens;

/// What the kernel-side filter looks at. A zero switches a check off and the verifier removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// Only this network namespace, or [`Filter::SEVERAL`]: only those in the map `NETNS`.
    pub netns: u32,
    /// 1: only sockets whose ports are marked in the map `PORTS`.
    pub ports: u32,
    /// 1: only sockets whose addresses are in `ADDRS_V4` and `ADDRS_V6`.
    pub addrs: u32,
    /// 1: only sockets whose owner, where known, is in the map `PIDS`.
    pub pids: u32,
}

/// Bits of a port's byte in the map `PORTS`, and of a prefix's value in `ADDRS_V4` and `ADDRS_V6`.
pub mod side {
    /// Wanted as the local port or address (`--lport`, `--laddr`).
    pub const LOCAL: u8 = 1;
    /// Wanted as the remote port or address (`--rport`, `--raddr`).
    pub const REMOTE: u8 = 2;
    /// Wanted on either side (`--port`, `--addr`).
    pub const EITHER: u8 = 4;
}

/// Which sides are filtered at all: a mask of [`side`] bits, for ports and for addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sides {
    /// Which of `--lport`, `--rport`, `--port` were given.
    pub ports: u32,
    /// Which of `--laddr`, `--raddr`, `--addr` were given.
    pub addrs: u32,
}

/// System call numbers of the architecture that the collector was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the system calls'")]
pub struct Syscalls {
    pub connect: u64,
    pub listen: u64,
    pub accept: u64,
    pub accept4: u64,
}

impl Filter {
    /// Everything passes.
    pub const OFF: Self = Self { netns: 0, ports: 0, addrs: 0, pids: 0 };
    /// In `netns`: look into the map. No namespace has this number: inode numbers of namespaces start far above.
    pub const SEVERAL: u32 = 1;
}

/// Slots of the direct-mapped per-socket cache, a power of two.
pub const SLOTS: u32 = 65536;

/// What is kept about a live socket, 32 bytes: two to a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PerSocket {
    /// Cookie of the socket that has the slot; 0: free.
    pub cookie: u64,
    /// Thread group that owns the socket, 0 while not known.
    pub owner: u32,
    /// Number of the last record.
    pub seq: u16,
    /// 1: the kernel has not yet chosen the port of this listener.
    pub portless: u8,
    /// State after the last transition that there was a record of.
    pub to: u8,
    /// `segs_in` at FIN_WAIT2, `segs_out` at CLOSE_WAIT.
    pub segs: u32,
    /// `write_seq` at CLOSE_WAIT.
    pub write_seq: u32,
    /// Makes it a power of two.
    pub reserved: u64,
}

/// Numbers of the programs in [`CpuStats`].
pub mod program {
    #![expect(
        missing_docs,
        reason = "each is the name of its tracepoint, or of its signal where several hooks make one"
    )]
    pub const INET_SOCK_SET_STATE: usize = 0;
    pub const TCP_DESTROY_SOCK: usize = 1;
    pub const TCP_SEND_RESET: usize = 2;
    pub const TCP_RECEIVE_RESET: usize = 3;
    pub const TCP_RETRANSMIT_SKB: usize = 4;
    pub const TCP_RETRANSMIT_SYNACK: usize = 5;
    pub const INET_SK_ERROR_REPORT: usize = 6;
    pub const ACCEPT: usize = 7;
    pub const HALF_OPEN: usize = 8;
    pub const SYN_OUTCOME: usize = 9;
    pub const ACCEPT_QUEUE: usize = 10;
    pub const OVERFLOW: usize = 11;
    pub const COOKIES: usize = 12;
    pub const FAST_OPEN: usize = 13;
    pub const MIGRATION: usize = 14;
    pub const TIME_WAIT: usize = 15;
    pub const NOT_TAKEN: usize = 16;
    pub const FORK: usize = 17;
    pub const RECEIVED: usize = 18;
    pub const PROBES: usize = 19;
    pub const COUNT: usize = 20;
}

/// Numbers of the second programs in [`CpuStats`].
pub mod second {
    /// Of every transition.
    pub const STATE: usize = 0;
    /// Of the tracepoint tier: marks children.
    pub const MARKS: usize = 1;
    /// Of the end of sockets.
    pub const DESTROY: usize = 2;
    /// Of RSTs that are sent.
    pub const SEND_RESET: usize = 3;
    /// Of RSTs that come.
    pub const RECEIVE_RESET: usize = 4;
    /// Of segments that are sent again.
    pub const RETRANSMIT: usize = 5;
    /// Of errors that a process will see.
    pub const ERROR: usize = 6;
    /// Of the tracepoint tier: listeners that wake up.
    pub const READY: usize = 7;
    /// Of the tracepoint tier: segments that are dropped.
    pub const DROPPED: usize = 8;
    /// With kprobes: children that are established.
    pub const ESTABLISHED: usize = 9;
    /// Of forks.
    pub const FORK: usize = 10;
    /// Of segments to closed ports.
    pub const PROBE: usize = 11;
    #[expect(missing_docs, reason = "the name says it")]
    pub const COUNT: usize = 12;
}

/// Loss counters of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuStats {
    /// Bytes that went into this CPU's ring, which decides when to wake the collector.
    pub bytes: u64,
    /// Records for which the ring had no room, by program.
    pub ring_full: [u64; program::COUNT],
    /// Sockets for which no storage could be had, by program.
    pub storage: [u64; program::COUNT],
    /// Entries of `LISTENERS` and `WAITING` that could not be made, by program.
    pub map_full: [u64; program::COUNT],
    /// Of each pair of programs, what the first saw on this CPU and the second has not passed yet.
    pub tokens: [Tokens; second::COUNT],
    /// Events that second programs took because they interrupted the first ([`second`]).
    pub nested: [u64; second::COUNT],
    /// User-space stacks that were not copied: more a second than is asked for, or no room.
    pub stacks_held_back: u64,
}

/// Entries of the map `LISTENERS`: listeners that something happened to since the start.
pub const MAX_LISTENERS: u32 = 4096;
/// Entries of the map `WAITING`: connections in accept queues.
pub const MAX_WAITING: u32 = 65536;

/// Value of the map `WAITING`: a connection in an accept queue. The key is the child's kernel address, which every hook knows:
/// an entry ends with accept() or with the child, so an address that is used again starts a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Waiting {
    /// Cookie of the listener.
    pub listener: u64,
    /// When it entered the queue, CLOCK_MONOTONIC nanoseconds.
    pub since: u64,
}

/// Entries of the map `BUCKET`.
pub mod bucket {
    /// For records of single requests.
    pub const REQUESTS: u32 = 0;
    /// For copies of user-space stacks.
    pub const STACKS: u32 = 1;
    /// For records of segments to closed ports.
    pub const PROBES: u32 = 2;
    #[expect(missing_docs, reason = "the name says it")]
    pub const COUNT: u32 = 3;
}

/// Records of segments to closed ports that may pass in a window of the token bucket: 2000 a second.
pub const PROBE_ALLOWANCE: u64 = 2000 * (1 << WINDOW_SHIFT) / 1_000_000_000;

/// Value of the map `BUCKET`: how many records there were in the running window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// Number of the window: CLOCK_MONOTONIC nanoseconds shifted right by [`WINDOW_SHIFT`].
    pub window: u64,
    /// Records in it, those held back included.
    pub count: u64,
    /// Timer tick (jiffies) at which the clock was read last: reading it costs much more than the tick, which is inlined.
    pub tick: u64,
    /// Segments to closed ports that were held back, in all windows.
    pub held_back: u64,
}

/// A window of the token bucket lasts `1 << WINDOW_SHIFT` nanoseconds (16.8 ms).
pub const WINDOW_SHIFT: u32 = 24;
