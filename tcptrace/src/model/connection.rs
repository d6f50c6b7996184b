//! A connection's timeline, from the first record about it to the last.

use std::sync::Arc;

use tcptrace_common::record::{Counters, Handshake, Tuple};

use super::{Process, Stack, State};

/// Which side of the handshake this end was on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    Client,
    Server,
    Listener,
}

impl Role {
    /// The name in JSON and text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Listener => "listener",
        }
    }
}

/// Who closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ClosedBy {
    Local,
    Remote,
    Both,
    None,
}

impl ClosedBy {
    /// The name in JSON and text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
            Self::None => "none",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A FIN from each side.
    Fin,
    /// This end sent a RST.
    RstSent,
    /// The peer sent a RST.
    RstReceived,
    /// The SYN was answered by a RST.
    Refused,
    /// The network said that the peer cannot be reached.
    Unreachable,
    /// No answer to the SYN.
    ConnectTimeout,
    /// Data or FIN was not acknowledged.
    RetransmitTimeout,
    /// Keepalive probes were not answered.
    KeepaliveTimeout,
    /// TCP_USER_TIMEOUT ran out.
    UserTimeout,
    /// Its listener was closed before it was accepted.
    ListenerClosed,
    /// Another process destroyed it (`ss -K`).
    Killed,
    /// The accept queue had no room for it.
    Overflow,
    /// Given up locally before it was established, or for another local reason.
    Aborted,
    /// Still open when the run ended.
    Open,
}

impl End {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Fin,
        Self::RstSent,
        Self::RstReceived,
        Self::Refused,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::RetransmitTimeout,
        Self::KeepaliveTimeout,
        Self::UserTimeout,
        Self::ListenerClosed,
        Self::Killed,
        Self::Overflow,
        Self::Aborted,
        Self::Open,
    ];

    /// Neither closed in order nor still open.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Fin | Self::Open)
    }

    /// The name in JSON and text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::RstSent => "rst_sent",
            Self::RstReceived => "rst_received",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::RetransmitTimeout => "retransmit_timeout",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::UserTimeout => "user_timeout",
            Self::ListenerClosed => "listener_closed",
            Self::Killed => "killed",
            Self::Overflow => "overflow",
            Self::Aborted => "aborted",
            Self::Open => "open",
        }
    }
}

/// Segments that the close took: FIN, ACK, FIN, ACK; or three, the second ACK and FIN being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum CloseSegments {
    Three,
    Four,
}

/// Notable shapes of a timeline: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patterns(pub u8);

#[expect(missing_docs, reason = "the names are those of the JSON field `patterns`")]
impl Patterns {
    pub const SIMULTANEOUS_OPEN: u8 = 1;
    pub const SIMULTANEOUS_CLOSE: u8 = 1 << 1;
    pub const SELF_CONNECT: u8 = 1 << 2;
    /// This end closed its sending side only and went on receiving, or the peer did and this end went on sending.
    pub const HALF_CLOSE: u8 = 1 << 3;
    /// FIN_WAIT2 went on without a process, in the kernel's timewait socket.
    pub const ORPHAN: u8 = 1 << 4;
}

/// What was concluded and not seen: a set of bits, each a JSON field's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inferred(pub u8);

#[expect(missing_docs, reason = "the names are those of JSON fields")]
impl Inferred {
    pub const TO: u8 = 1;
    pub const OWNER: u8 = 1 << 1;
    pub const ROLE: u8 = 1 << 2;
    pub const FROM: u8 = 1 << 3;
    pub const END: u8 = 1 << 4;
    pub const LPORT: u8 = 1 << 6;
    pub const START: u8 = 1 << 5;
}

/// States and when they were entered, oldest first. Six fit without an allocation, which is every ordinary life.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    inline: [Word; INLINE],
    len: u8,
    #[expect(
        clippy::box_collection,
        reason = "a pointer in every connection is 16 bytes less than a vector that few need"
    )]
    more: Option<Box<Vec<Word>>>,
}

const INLINE: usize = 6;

/// One state of a [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The state.
    pub state: State,
    /// Nanoseconds from the connection's start: when the state was entered. Where that was not seen, the earliest time
    /// at which the connection was known to be in it.
    pub at: u64,
    /// Was the entry seen?
    pub seen: bool,
}

/// An [`Entry`] in 64 bits: the state in the low four, then one that is set where the entry was not seen, then the time.
#[derive(Clone, Copy, Debug, Default)]
struct Word(u64);

impl Word {
    const STATE: u64 = 0xf;
    const UNSEEN: u64 = 0x10;
    const TIME_SHIFT: u32 = 5;

    fn new(e: Entry) -> Self {
        Self(
            e.at.min(u64::MAX >> Self::TIME_SHIFT) << Self::TIME_SHIFT
                | if e.seen { 0 } else { Self::UNSEEN }
                | u64::from(e.state as u8),
        )
    }

    fn entry(self) -> Option<Entry> {
        let state = State::from_number((self.0 & Self::STATE) as u8)?;
        Some(Entry { state, at: self.0 >> Self::TIME_SHIFT, seen: self.0 & Self::UNSEEN == 0 })
    }
}

impl Timeline {
    /// Append a state.
    pub fn push(&mut self, entry: Entry) {
        let word = Word::new(entry);
        if let Some(slot) = self.inline.get_mut(usize::from(self.len)) {
            *slot = word;
            self.len += 1;
        } else {
            self.more.get_or_insert_default().push(word);
        }
    }

    /// Build from states, oldest first.
    pub(crate) fn collect(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut timeline = Self::default();
        entries.into_iter().for_each(|e| timeline.push(e));
        timeline
    }

    /// Every state, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let rest = self.more.as_ref().map_or(&[][..], |v| &v[..]);
        self.inline[..usize::from(self.len)].iter().chain(rest).filter_map(|word| word.entry())
    }

    /// (state, nanoseconds from the connection's start), oldest first; [`Timeline::entries`] says which were seen.
    pub fn iter(&self) -> impl Iterator<Item = (State, u64)> {
        self.entries().map(|e| (e.state, e.at))
    }

    /// Number of states.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len) + self.more.as_ref().map_or(0, |v| v.len())
    }

    /// No state yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The latest state.
    #[must_use]
    pub fn last(&self) -> Option<Entry> {
        match &self.more {
            Some(more) => more.last(),
            None => self.inline[..usize::from(self.len)].last(),
        }?
        .entry()
    }

    /// When a state was first entered, if that was seen: nanoseconds from the connection's start.
    #[must_use]
    pub fn entered(&self, state: State) -> Option<u64> {
        self.entries().find(|e| e.state == state).filter(|e| e.seen).map(|e| e.at)
    }
}

/// A connection (or a listener) as far as it is known.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Number of the timeline in this trace, from 1.
    pub id: u64,
    /// Socket cookie; 0 where there is none yet.
    pub cookie: u64,
    /// CLOCK_MONOTONIC nanoseconds of the first record.
    pub start_ns: u64,
    /// Both ends; a port or address that is not known is zero.
    pub tuple: Tuple,
    /// Who opened, accepted or inherited the socket.
    pub owner: Option<Arc<Process>>,
    /// Another process that acted on the socket.
    pub actor: Option<Arc<Process>>,
    /// Inode number of the socket, 0 where not known.
    pub inode: u64,
    /// Its life so far.
    pub states: Timeline,
    /// What the handshake settled, once it did. `isn_local` is the true one where the role is known: see
    /// [`Connection::isn_local`].
    pub handshake: Option<Handshake>,
    /// The owner's descriptor, -1 where not known.
    pub fd: i32,
    /// Records of this socket that were lost.
    pub gaps: u32,
    /// SYN-ACKs sent again.
    pub synack_retrans: u16,
    /// Latest state.
    pub state: State,
    /// Side of the handshake.
    pub role: Option<Role>,
    /// Existed when the trace began.
    pub preexisting: bool,
    /// Which of the above were concluded and not seen.
    pub inferred: Inferred,
    /// Shapes recognised so far.
    pub patterns: Patterns,
    /// Details of the tracker.
    pub(crate) notes: Notes,
}

impl Connection {
    /// What is known of something that has ends and an owner, but no socket of its own.
    pub(crate) fn of(id: u64, tuple: Tuple, owner: Option<Arc<Process>>, role: Option<Role>) -> Self {
        Self {
            id,
            cookie: 0,
            start_ns: 0,
            tuple,
            owner,
            actor: None,
            inode: 0,
            states: Timeline::default(),
            handshake: None,
            fd: -1,
            gaps: 0,
            synack_retrans: 0,
            state: State::Close,
            role,
            preexisting: false,
            inferred: Inferred::default(),
            patterns: Patterns::default(),
            notes: Notes::default(),
        }
    }

    /// The own initial sequence number; None before the handshake and where the role, on which its computation depends,
    /// is not known.
    #[must_use]
    pub fn isn_local(&self) -> Option<u32> {
        self.role?;
        self.handshake.map(|h| h.isn_local)
    }
}

/// What the tracker remembers of a connection beside what it shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    /// Nanoseconds between the accept queue and accept(), or, while `in_queue`, when the accept queue was entered;
    /// `u64::MAX`: not known.
    pub accept_wait: u64,
    /// Number in the queue of ends that are not yet decided; `u32::MAX`: not there.
    pub pending: u32,
    /// Number of the last record.
    pub seq: u16,
    /// SYNs sent again; `u16::MAX`: not known. Of a server, a child of Fast Open: data and FINs sent again before its handshake was
    /// over, which the kernel counts with the SYN-ACKs; `u16::MAX`: none.
    pub syn_retrans: u16,
    /// Who closed first, once somebody did.
    pub closed_by: Option<ClosedBy>,
    /// Segments of the close, once known.
    pub segments: Option<CloseSegments>,
    /// `seq` means something.
    pub numbered: bool,
    /// The record with this number is not known: a row told of it.
    pub row_numbered: bool,
    /// A RST was sent.
    pub rst_sent: bool,
    /// A RST was received.
    pub rst_received: bool,
    /// FIN_WAIT1 was entered by shutdown(), not by close().
    pub half_closed: bool,
    /// accept() was seen.
    pub accepted: bool,
    /// In the accept queue, since a moment that a hook saw.
    pub in_queue: bool,
    /// Its birth was not reported yet: which request it comes of is not known.
    pub untold: bool,
    /// Its request's timeline is part of its own.
    pub joined: bool,
    /// Made by a returned SYN cookie.
    pub cookie: bool,
    /// A timewait socket took over: TIME_WAIT or FIN_WAIT2.
    pub remnant: Option<State>,
    /// The first record was that of its birth.
    pub born: bool,
    /// First known from a row of a snapshot.
    pub found: bool,
    /// That was a later one than the start's, which is not complete yet.
    pub discovered: bool,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            accept_wait: u64::MAX,
            pending: u32::MAX,
            seq: 0,
            syn_retrans: u16::MAX,
            closed_by: None,
            segments: None,
            numbered: false,
            row_numbered: false,
            rst_sent: false,
            rst_received: false,
            half_closed: false,
            accepted: false,
            in_queue: false,
            untold: false,
            joined: false,
            cookie: false,
            remnant: None,
            born: false,
            found: false,
            discovered: false,
        }
    }
}

/// The tracker keeps one for every live connection: at most 300 bytes with its share of the index.
const _: () = assert!(size_of::<Connection>() <= 256);

/// One change of state.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// State before.
    pub from: State,
    /// State after. FIN_WAIT2 after FIN_WAIT2: the kernel's timewait socket goes on with it in place of the full one.
    pub to: State,
    /// Nanoseconds spent in `from`; None when its begin was not seen.
    pub state_ns: Option<u64>,
    /// What the tracepoint said, where it said something else.
    pub kernel: Option<(State, State)>,
    /// Errno, 0 for none.
    pub errno: u8,
    /// How it ended, for the last one, where it is known at once. A RST that explains CLOSE comes after it: then only
    /// [`Final::end`] has it.
    pub end: Option<End>,
    /// [`tcptrace_common::record::flag`] bits of the record.
    pub flags: u16,
    /// The kernel's sequence numbers at that moment, where the record has them.
    pub sequence: Option<Sequence>,
    /// What of this transition was concluded and not seen; for the connection see [`Connection::inferred`].
    pub inferred: Inferred,
}

/// Sequence numbers of a socket, as the kernel's variables of these names have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// First byte that the peer has not acknowledged.
    pub snd_una: u32,
    /// Next byte to be sent; None where the record does not have it.
    pub snd_nxt: Option<u32>,
    /// Next byte to be written: the number of a FIN that follows.
    pub write_seq: u32,
    /// Next byte expected from the peer; None where the record does not have it.
    pub rcv_nxt: Option<u32>,
}

/// What happens to a connection and changes no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// The state in which it happened.
    pub state: State,
    /// What.
    pub what: Marked,
}

/// See [`Mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// A segment was sent again.
    Retransmit,
    /// A RST was sent.
    ResetSent,
    /// A RST was received.
    ResetReceived,
}

impl Transition {
    /// No transition that was seen, but a state that the connection was found in after records of it were lost.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.kernel.is_none() && self.inferred.0 & Inferred::TO != 0
    }
}

/// What is known of a connection only at its end, or is kept beside it.
#[derive(Clone, Debug)]
pub struct Final {
    /// CLOCK_MONOTONIC nanoseconds of the end; with `late` of when it was found to be over.
    pub ts: u64,
    /// The end was not seen: it came some time before `ts`.
    pub late: bool,
    /// How it ended; None where that is not known.
    pub end: Option<End>,
    /// Who closed first; None where it is not known.
    pub closed_by: Option<ClosedBy>,
    /// Segments of the close, where it was one by FINs and is known.
    pub close_segments: Option<CloseSegments>,
    /// Errno, 0 for none.
    pub errno: u8,
    /// Final counters, raw as the kernel has them; None when the end was not seen.
    pub counters: Option<Counters>,
    /// SYNs sent again; None where not known.
    pub syn_retrans: Option<u32>,
    /// Nanoseconds from the first SYN to ESTABLISHED, or, of a server whose SYN was not seen, from the final ACK; None where
    /// not seen.
    pub handshake_ns: Option<u64>,
    /// Nanoseconds between the accept queue (where that was not seen, ESTABLISHED) and accept(); None where not seen.
    pub accept_wait_ns: Option<u64>,
    /// Where in its program it was opened or accepted, if that was asked for.
    pub stack: Option<Arc<Stack>>,
}

impl Final {
    /// Nanoseconds that `c` lasted; None where its begin or its end was not seen.
    #[must_use]
    pub fn lasted_ns(&self, c: &Connection) -> Option<u64> {
        (!c.preexisting && !self.late).then(|| self.ts.saturating_sub(c.start_ns))
    }

    /// Smoothed round-trip time of `c` at its end, or else after its handshake, microseconds.
    #[must_use]
    pub fn srtt_us(&self, c: &Connection) -> Option<u32> {
        let known = |us: u32| (us > 0).then_some(us);
        self.counters.and_then(|n| known(n.srtt_us)).or(c.handshake.and_then(|h| known(h.srtt_us)))
    }
}

/// What a snapshot says of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Received and not read (`ss`'s Recv-Q); of a listener the accept queue's length.
    pub unread: u32,
    /// Written and not acknowledged (`ss`'s Send-Q); of a listener the accept queue's limit.
    pub unsent: u32,
    /// Microseconds since the last segment with data; None where not known.
    pub idle_us: Option<u64>,
    /// Half-open requests of a listener.
    pub syn_queue: Option<u32>,
    /// Counters so far.
    pub counters: Counters,
}

/// A request or a TIME_WAIT remnant that the start snapshot found.
#[derive(Clone, Copy, Debug)]
pub struct Mini {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Number of the timeline.
    pub id: u64,
    /// Cookie, 0 for none.
    pub cookie: u64,
    /// NEW_SYN_RECV, TIME_WAIT or FIN_WAIT2.
    pub state: State,
    /// Both ends.
    pub tuple: Tuple,
    /// SYN-ACKs sent again.
    pub retrans: u32,
}
