//! Records: what a kernel program writes into its CPU's ring, and, unchanged, what a recording stores.
//!
//! Every record starts with a [`Head`]; its `kind` says which struct it is. All are plain old data in the host's byte
//! order (little-endian on every target that tcptrace builds for), without implicit padding; sizes are asserted below.
//! Kinds are append-only. A reader skips a kind it does not know by the record's length.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Numbers in [`Head::kind`].
pub mod kind {
    /// A state transition that carries nothing else: [`Head`](super::Head) alone. Recordings have it; programs make
    /// [`SEQUENCE`] in its place.
    pub const STATE: u8 = 1;
    /// CLOSE→SYN_SENT or CLOSE→LISTEN: [`Open`](super::Open).
    pub const OPEN: u8 = 2;
    /// LISTEN→SYN_RECV, a child is born: [`Child`](super::Child).
    pub const CHILD: u8 = 3;
    /// →ESTABLISHED: [`Established`](super::Established).
    pub const ESTABLISHED: u8 = 4;
    /// →CLOSE: [`Closed`](super::Closed).
    pub const CLOSED: u8 = 5;
    /// A process took the socket from an accept queue: [`Owned`](super::Owned).
    pub const ACCEPTED: u8 = 6;
    /// A process that is not the owner acted on the socket: [`Owned`](super::Owned).
    pub const ACTOR: u8 = 7;
    /// The socket is gone: [`Head`](super::Head) alone.
    pub const DESTROYED: u8 = 8;
    /// The socket sent a RST: [`Head`](super::Head) alone.
    pub const RESET_SENT: u8 = 9;
    /// The socket received a RST: [`Head`](super::Head) alone.
    pub const RESET_RECEIVED: u8 = 10;
    /// A segment was sent again: [`Head`](super::Head) alone; `from` is the state.
    pub const RETRANSMIT: u8 = 11;
    /// A SYN-ACK was sent again: [`SynAck`](super::SynAck).
    pub const SYNACK_RETRANSMIT: u8 = 12;
    /// An error was reported to the socket: [`Head`](super::Head) alone; `err` is the errno.
    pub const ERROR: u8 = 13;
    /// The first sight of a socket whose life had begun before: [`Socket`](super::Socket), right before the record that it
    /// explains.
    pub const FOUND: u8 = 14;
    /// What became of a SYN, a half-open request or a final ACK: [`RequestEvent`](crate::queue::RequestEvent).
    pub const REQUEST_EVENT: u8 = 15;
    /// CLOSE→LISTEN: [`Listen`](crate::queue::Listen).
    pub const LISTEN: u8 = 16;
    /// A timewait socket took over: [`Head`](super::Head) alone; `to` is TIME_WAIT, or FIN_WAIT2 for an orphan.
    pub const TIME_WAIT_BEGIN: u8 = 17;
    /// A timewait socket is gone: [`Head`](super::Head) alone; [`EXPIRED`](super::flag::EXPIRED) says whether its time was up.
    pub const TIME_WAIT_END: u8 = 18;
    /// listen() of a socket that was not bound has returned: [`Bound`](super::Bound).
    pub const BOUND: u8 = 19;
    /// A state transition that none of the others tells, with the sequence numbers of that moment: [`Sequence`](super::Sequence).
    pub const SEQUENCE: u8 = 20;
    /// A process was forked that is to be traced from now on, or is not any more: [`Forked`](super::Forked).
    pub const FORKED: u8 = 21;
    /// A process that is followed has a socket that none of them opened, accepted or was started with:
    /// [`Received`](super::Received).
    pub const RECEIVED: u8 = 22;
    /// A segment came to a port where nobody listens: [`Probe`](crate::probe::Probe).
    pub const PROBE: u8 = 23;

    /// A socket that the start snapshot found: [`Socket`](super::Socket).
    pub const SOCKET: u8 = 32;
    /// A descriptor of a socket that the start snapshot found: [`Owned`](super::Owned).
    pub const HOLDER: u8 = 33;
    /// A half-open request that the start snapshot found: [`MiniSocket`](super::MiniSocket).
    pub const REQUEST: u8 = 34;
    /// A TIME_WAIT socket that the start snapshot found: [`MiniSocket`](super::MiniSocket).
    pub const TIME_WAIT: u8 = 35;
    /// A listener at the end of an interval: [`ListenerSample`](crate::queue::ListenerSample).
    pub const LISTENER: u8 = 36;
    /// A listener's counts at the end of an interval: [`ListenerStats`](crate::queue::ListenerStats).
    pub const LISTENER_STATS: u8 = 37;
}

/// Bits of [`Head::flags`].
pub mod flag {
    /// `sk_shutdown` has RCV_SHUTDOWN.
    pub const RCV_SHUTDOWN: u16 = 1;
    /// `sk_shutdown` has SEND_SHUTDOWN.
    pub const SEND_SHUTDOWN: u16 = 1 << 1;
    /// SOCK_DONE: the peer's FIN was received.
    pub const DONE: u16 = 1 << 2;
    /// SOCK_DEAD: no process holds the socket any more.
    pub const DEAD: u16 = 1 << 3;
    /// `tcp_sock.linger2` is negative: FIN_WAIT2 ends with a RST.
    pub const LINGER2: u16 = 1 << 4;
    /// No `struct socket`: not yet accepted (or already orphaned, see [`DEAD`]).
    pub const NO_SOCKET: u16 = 1 << 5;
    /// The transition was caused by the same segment as the one before it (FIN_WAIT2→CLOSE: FIN and ACK came together;
    /// CLOSE_WAIT→LAST_ACK: no segment was sent in between, so FIN and ACK leave together).
    pub const SAME_SEGMENT: u16 = 1 << 6;
    /// Data was sent between the peer's FIN and ours.
    pub const DATA_AFTER_FIN: u16 = 1 << 7;
    /// [`ACTOR`](super::kind::ACTOR): the actor descends from the owner: it inherited the socket over fork.
    pub const INHERITED: u16 = 1 << 8;
    /// →CLOSE of a socket that would go to TIME_WAIT: the namespace has as many TIME_WAIT sockets as it may have
    /// (`tcp_max_tw_buckets`), so this one may have got none.
    pub const TW_FULL: u16 = 1 << 11;
    /// [`TIME_WAIT_END`](super::kind::TIME_WAIT_END): the timer ran out.
    pub const EXPIRED: u16 = 1 << 9;
    /// No sequence number could be kept for this socket (storage failed).
    pub const SEQ_ABSENT: u16 = 1 << 10;
    /// [`OPEN`](super::kind::OPEN), [`ACCEPTED`](super::kind::ACCEPTED): the user-space stack was copied
    /// ([`StackCopy`](crate::stack::StackCopy)).
    pub const STACK: u16 = 1 << 12;
}

/// Bits of `options`.
pub mod option {
    #![expect(missing_docs, reason = "the names are those of the JSON field `options`")]
    pub const SACK: u16 = 1;
    pub const TIMESTAMPS: u16 = 1 << 1;
    pub const WSCALE: u16 = 1 << 2;
    pub const ECN: u16 = 1 << 3;
    pub const TFO: u16 = 1 << 4;
    pub const NODELAY: u16 = 1 << 5;
    pub const KEEPALIVE: u16 = 1 << 6;
    pub const DEFER_ACCEPT: u16 = 1 << 7;
    /// TCP_USER_TIMEOUT is set.
    pub const USER_TIMEOUT: u16 = 1 << 8;
    /// The handshake was done with a SYN cookie; set by the collector.
    pub const SYNCOOKIE: u16 = 1 << 9;
}

/// Starts every record, 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// CLOCK_MONOTONIC in nanoseconds, read after the ring slot was reserved: an empty ring bounds every later record
    /// from below.
    pub ts: u64,
    /// Socket cookie; 0 where there is none yet.
    pub sock: u64,
    /// See [`kind`].
    pub kind: u8,
    /// State before.
    pub from: u8,
    /// State after.
    pub to: u8,
    /// `sk_err`, 255 for anything above 254.
    pub err: u8,
    /// Number of this record among its socket's records, from 1, wrapping past 0.
    pub seq: u16,
    /// See [`flag`].
    pub flags: u16,
}

/// Both ends, 48 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tuple {
    /// Local address as the packet has it; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address, likewise.
    pub raddr: [u8; 16],
    /// Network namespace (inode number of `/proc/PID/ns/net`).
    pub netns: u32,
    /// Local port, host byte order; 0 while there is none.
    pub lport: u16,
    /// Remote port, host byte order.
    pub rport: u16,
    /// AF_INET (2) or AF_INET6 (10); a v4-mapped socket is AF_INET6.
    pub family: u16,
    /// Not used.
    pub reserved: [u16; 3],
}

/// A process, 56 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owner {
    /// Thread group in the initial pid namespace.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Descriptor, -1 where it is not known.
    pub fd: i32,
    /// Name of the thread-group leader, NUL-padded.
    pub comm: [u8; 16],
    /// Id of the process' cgroup (v2 hierarchy).
    pub cgroup: u64,
    /// Inode number of the socket (`ss -e`'s `ino:`), 0 while there is none.
    pub inode: u64,
    /// When the thread-group leader started, CLOCK_MONOTONIC nanoseconds.
    pub started: u64,
}

/// What the handshake settled, 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Handshake {
    /// `snd_una - bytes_acked`: the own initial sequence number; one more than it for a passive open.
    pub isn_local: u32,
    /// `rcv_nxt - bytes_received - 1`: the peer's initial sequence number.
    pub isn_remote: u32,
    /// Smoothed round-trip time, microseconds; 0 while not measured.
    pub srtt_us: u32,
    /// Smallest round-trip time, microseconds; `u32::MAX` while not measured.
    pub min_rtt_us: u32,
    /// Segments sent again so far: of the SYN.
    pub retrans: u32,
    /// Sending MSS, bytes (`mss_cache`).
    pub snd_mss: u32,
    /// Advertised MSS, bytes.
    pub adv_mss: u16,
    /// See [`option`].
    pub options: u16,
    /// Window scale that the peer asked for.
    pub wscale_snd: u8,
    /// Window scale that this end asked for.
    pub wscale_rcv: u8,
    /// Not used.
    pub reserved: [u8; 2],
    /// Identifies the socket where `Head::sock` cannot yet: its kernel address.
    pub addr: u64,
}

/// A socket's counters, 72 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counters {
    /// Payload bytes sent, retransmitted ones included, without SYN and FIN.
    pub bytes_sent: u64,
    /// Bytes acknowledged by the peer, SYN (active opens) and FIN counted.
    pub bytes_acked: u64,
    /// Bytes received in order, FIN counted.
    pub bytes_received: u64,
    /// Payload bytes sent again.
    pub bytes_retrans: u64,
    /// Segments sent.
    pub segs_out: u32,
    /// Segments received.
    pub segs_in: u32,
    /// Segments sent again.
    pub retrans: u32,
    /// `rcv_nxt - copied_seq`: received and not read, FIN counted (`ss`'s Recv-Q).
    pub unread: u32,
    /// `write_seq - snd_una`: written and not acknowledged, FIN counted (`ss`'s Send-Q).
    pub unsent: u32,
    /// Segments sent and not acknowledged.
    pub packets_out: u32,
    /// Smoothed round-trip time, microseconds; 0 while not measured.
    pub srtt_us: u32,
    /// Smallest round-trip time, microseconds; `u32::MAX` while not measured.
    pub min_rtt_us: u32,
    /// Sending MSS, bytes.
    pub snd_mss: u32,
    /// See [`option`].
    pub options: u16,
    /// Zero-window and keepalive probes that were not answered.
    pub probes_out: u8,
    /// Retransmission timeouts in a row.
    pub retransmits: u8,
}

/// [`kind::OPEN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Open {
    /// CLOSE→SYN_SENT or CLOSE→LISTEN.
    pub head: Head,
    /// The local port is 0 in CLOSE→SYN_SENT unless the socket was bound.
    pub tuple: Tuple,
    /// The process that called connect() or listen().
    pub owner: Owner,
}

/// [`kind::CHILD`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Child {
    /// LISTEN→SYN_RECV; `sock` is 0 on kernels up to 6.12, where the child still carries the listener's cookie.
    pub head: Head,
    /// The remote end is empty on those kernels.
    pub tuple: Tuple,
    /// Kernel address of the child, by which [`Established`] finds it.
    pub addr: u64,
}

/// [`kind::ESTABLISHED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Established {
    /// SYN_SENT→ESTABLISHED or SYN_RECV→ESTABLISHED.
    pub head: Head,
    /// Complete here.
    pub tuple: Tuple,
    /// What the handshake settled.
    pub handshake: Handshake,
}

/// [`kind::CLOSED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Closed {
    /// Any state→CLOSE.
    pub head: Head,
    /// Final counters.
    pub counters: Counters,
    /// Local port: the only record that has one of a connection that was never established, and of a listener whose port the
    /// kernel chose.
    pub lport: u16,
    /// Not used.
    pub reserved: u16,
    /// First byte that the peer has not acknowledged: of a connection that was never established its initial sequence number.
    /// 0 in recordings that do not have it.
    pub snd_una: u32,
}

/// [`kind::SEQUENCE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sequence {
    /// →FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING; SYN_SENT→SYN_RECV, where `rcv_nxt` means nothing yet.
    pub head: Head,
    /// First byte that the peer has not acknowledged.
    pub snd_una: u32,
    /// Next byte to be sent; `write_seq` if none waits.
    pub snd_nxt: u32,
    /// Next byte to be written: what a FIN that follows takes (`tcp_close_state` comes before `tcp_send_fin`).
    pub write_seq: u32,
    /// Next byte expected from the peer, behind a FIN that brought this about.
    pub rcv_nxt: u32,
}

/// [`kind::BOUND`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bound {
    /// `from` is LISTEN.
    pub head: Head,
    /// The local port, which the kernel chose after it had reported CLOSE→LISTEN.
    pub lport: u16,
    /// Not used.
    pub reserved: [u16; 3],
}

/// [`kind::FORKED`]. If the parent is traced with its children, the child is, too; if not, a traced process that had the child's number
/// is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Forked {
    /// `sock` is 0.
    pub head: Head,
    /// Thread group in the initial pid namespace.
    pub parent: u32,
    /// The new one.
    pub child: u32,
}

/// [`kind::TIME_WAIT_END`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TimeWaitEnd {
    /// `from` is the state that the timewait socket stood for.
    pub head: Head,
    /// How long before `head.ts` it was, nanoseconds: some hooks know only later that a stopped timer was not set again.
    pub late_ns: u64,
}

/// [`kind::ACCEPTED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Accepted {
    /// `from` is the socket's state; `sock` is 0 where a Fast Open child has no cookie yet.
    pub head: Head,
    /// The process.
    pub owner: Owner,
    /// Kernel address of the socket: as [`Child`] has it.
    pub addr: u64,
}

/// [`kind::ACTOR`], [`kind::HOLDER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owned {
    /// `from` is the socket's state.
    pub head: Head,
    /// The process.
    pub owner: Owner,
}

/// [`kind::SYNACK_RETRANSMIT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SynAck {
    /// `sock` is the listener's cookie.
    pub head: Head,
    /// Both ends of the half-open request.
    pub tuple: Tuple,
    /// SYN-ACKs sent again before this one.
    pub retrans: u32,
    /// Not used.
    pub reserved: u32,
}

/// [`kind::SOCKET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Socket {
    /// `from` and `to` are the state.
    pub head: Head,
    /// Both ends.
    pub tuple: Tuple,
    /// What the handshake settled, read now.
    pub handshake: Handshake,
    /// Counters so far; for a listener `unread` is the accept queue's length and `unsent` its limit, as `ss` has it.
    pub counters: Counters,
    /// Inode number of the socket, 0 where there is none.
    pub inode: u64,
    /// Kernel ticks (`jiffies`) now, low half.
    pub jiffies: u32,
    /// Kernel ticks of the last segment with data, sent or received, low half.
    pub active: u32,
    /// User id of the socket.
    pub uid: u32,
    /// Half-open requests of a listener.
    pub syn_queue: u32,
}

/// [`kind::RECEIVED`]; as [`kind::FOUND`] it has no owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Received {
    /// The socket as it was then, before the transition if one follows at once. `seq` is the number of its last record.
    pub socket: Socket,
    /// The process that has it.
    pub owner: Owner,
}

/// [`kind::REQUEST`], [`kind::TIME_WAIT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MiniSocket {
    /// `from` and `to` are NEW_SYN_RECV, TIME_WAIT or (kept by a timewait socket) FIN_WAIT2; `sock` may be 0.
    pub head: Head,
    /// Both ends.
    pub tuple: Tuple,
    /// SYN-ACKs sent again (requests).
    pub retrans: u32,
    /// Not used.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Head>() == 24);
    assert!(size_of::<Tuple>() == 48);
    assert!(size_of::<Owner>() == 56);
    assert!(size_of::<Handshake>() == 40);
    assert!(size_of::<Counters>() == 72);
    assert!(size_of::<Open>() == 128);
    assert!(size_of::<Child>() == 80);
    assert!(size_of::<Established>() == 112);
    assert!(size_of::<Closed>() == 104);
    assert!(size_of::<Sequence>() == 40);
    assert!(size_of::<Bound>() == 32);
    assert!(size_of::<Forked>() == 32);
    assert!(size_of::<Owned>() == 80);
    assert!(size_of::<SynAck>() == 80);
    assert!(size_of::<Socket>() == 208);
    assert!(size_of::<Received>() == 264);
    assert!(size_of::<MiniSocket>() == 80);
};

/// Longest record that a ring can hold, bytes.
pub const MAX_RECORD: usize = size_of::<Received>();
