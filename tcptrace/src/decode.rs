//! Frame → event: by length first, then by kind. Malformed input is an error to be counted, never a panic.

use serde::de::DeserializeOwned;
use tcptrace_common::probe::Probe;
use tcptrace_common::queue::{Listen, ListenerSample, ListenerStats, RequestEvent};
use tcptrace_common::record::{
    self, Accepted, Bound, Child, Closed, Established, Forked, Head, MiniSocket, Open, Owned, Received, Sequence,
    Socket, SynAck, TimeWaitEnd,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::frame::fact;

/// A decoded frame. Borrowed from the frame's buffer where it is a kernel record.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is a record of `tcptrace_common::record::kind` or a fact of `frame::fact::kind`")]
pub enum Event<'a> {
    State(&'a Head),
    Sequence(&'a Sequence),
    Open(&'a Open),
    Child(&'a Child),
    Established(&'a Established),
    Closed(&'a Closed),
    Bound(&'a Bound),
    Forked(&'a Forked),
    Received(&'a Received),
    Accepted(&'a Accepted),
    Actor(&'a Owned),
    Destroyed(&'a Head),
    ResetSent(&'a Head),
    ResetReceived(&'a Head),
    Retransmit(&'a Head),
    SynAckRetransmit(&'a SynAck),
    Error(&'a Head),
    Found(&'a Socket),
    RequestEvent(&'a RequestEvent),
    Listen(&'a Listen),
    TimeWaitBegin(&'a Head),
    TimeWaitEnd(&'a TimeWaitEnd),
    Probe(&'a Probe),
    Socket(&'a Socket),
    Holder(&'a Owned),
    Request(&'a MiniSocket),
    TimeWait(&'a MiniSocket),
    Listener(&'a ListenerSample),
    ListenerStats(&'a ListenerStats),
    Start(Box<fact::Start>),
    Clock(fact::Clock),
    Snapshot(u64, fact::Snapshot),
    Loss(u64, fact::Loss),
    Tick(u64),
    End(u64, fact::End),
    Cgroup(fact::Cgroup),
    Netns(u64, fact::Netns),
    Closing(u64, fact::Closing),
    Interval(u64, fact::Interval),
    Stack(fact::Stack),
    OpenedAt(u64, fact::OpenedAt),
}

/// Why a frame was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than its kind needs.
    #[error("a record of kind {kind} has {len} bytes, too few")]
    Short {
        /// Kind, 0 when even that was missing.
        kind: u8,
        /// Bytes.
        len: usize,
    },
    /// A kind that this version does not know; made by a newer one.
    #[error("unknown record kind {0}")]
    Unknown(u8),
    /// The JSON of a fact does not fit.
    #[error("a fact of kind {0} cannot be read")]
    Fact(u8),
}

/// Decode one record.
///
/// # Errors
/// See [`enum@Error`]; the caller counts and skips.
#[inline]
pub fn decode(record: &[u8]) -> Result<Event<'_>, Error> {
    let (head, body) = Head::ref_from_prefix(record).map_err(|_| Error::Short { kind: 0, len: record.len() })?;
    Ok(match head.kind {
        record::kind::STATE => Event::State(head),
        record::kind::SEQUENCE => Event::Sequence(cast(record)?),
        record::kind::OPEN => Event::Open(cast(record)?),
        record::kind::CHILD => Event::Child(cast(record)?),
        record::kind::ESTABLISHED => Event::Established(cast(record)?),
        record::kind::CLOSED => Event::Closed(cast(record)?),
        record::kind::BOUND => Event::Bound(cast(record)?),
        record::kind::FORKED => Event::Forked(cast(record)?),
        record::kind::RECEIVED => Event::Received(cast(record)?),
        record::kind::ACCEPTED => Event::Accepted(cast(record)?),
        record::kind::ACTOR => Event::Actor(cast(record)?),
        record::kind::DESTROYED => Event::Destroyed(head),
        record::kind::RESET_SENT => Event::ResetSent(head),
        record::kind::RESET_RECEIVED => Event::ResetReceived(head),
        record::kind::RETRANSMIT => Event::Retransmit(head),
        record::kind::SYNACK_RETRANSMIT => Event::SynAckRetransmit(cast(record)?),
        record::kind::ERROR => Event::Error(head),
        record::kind::FOUND => Event::Found(cast(record)?),
        record::kind::REQUEST_EVENT => Event::RequestEvent(cast(record)?),
        record::kind::LISTEN => Event::Listen(cast(record)?),
        record::kind::TIME_WAIT_BEGIN => Event::TimeWaitBegin(head),
        record::kind::PROBE => Event::Probe(cast(record)?),
        record::kind::TIME_WAIT_END => Event::TimeWaitEnd(cast(record)?),
        record::kind::SOCKET => Event::Socket(cast(record)?),
        record::kind::HOLDER => Event::Holder(cast(record)?),
        record::kind::REQUEST => Event::Request(cast(record)?),
        record::kind::TIME_WAIT => Event::TimeWait(cast(record)?),
        record::kind::LISTENER => Event::Listener(cast(record)?),
        record::kind::LISTENER_STATS => Event::ListenerStats(cast(record)?),
        fact::kind::START => Event::Start(json(head, body)?),
        fact::kind::CLOCK => Event::Clock(json(head, body)?),
        fact::kind::SNAPSHOT => Event::Snapshot(head.ts, json(head, body)?),
        fact::kind::LOSS => Event::Loss(head.ts, json(head, body)?),
        fact::kind::TICK => Event::Tick(head.ts),
        fact::kind::END => Event::End(head.ts, json(head, body)?),
        fact::kind::CGROUP => Event::Cgroup(json(head, body)?),
        fact::kind::NETNS => Event::Netns(head.ts, json(head, body)?),
        fact::kind::CLOSING => Event::Closing(head.ts, json(head, body)?),
        fact::kind::INTERVAL => Event::Interval(head.ts, json(head, body)?),
        fact::kind::STACK => Event::Stack(json(head, body)?),
        fact::kind::OPENED_AT => Event::OpenedAt(head.ts, json(head, body)?),
        unknown => return Err(Error::Unknown(unknown)),
    })
}

/// A longer record than this version knows is fine: kinds may grow at their end.
#[inline]
fn cast<T: FromBytes + KnownLayout + Immutable>(record: &[u8]) -> Result<&T, Error> {
    let kind = record.get(16).copied().unwrap_or(0);
    T::ref_from_prefix(record).map(|(t, _)| t).map_err(|_| Error::Short { kind, len: record.len() })
}

fn json<T: DeserializeOwned>(head: &Head, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| Error::Fact(head.kind))
}
