//! The objects about listeners' queues, half-open requests and TIME_WAIT remnants.

use super::{
    encode::{Endpoint, Hex, Inner, Out, Text, Value},
    object::object,
    objects::{Socket, some},
};
use crate::model::{
    Connection, DROPPED, Depth, Detail, Dropped, Inferred, Left, LimitedBy, Listening, Mini, NetnsCounters, Outcome,
    Remnant, Request, Residual, Role, State, Waits,
};

object! {
    /// Half-open: what became of a SYN that did not become a connection; with `--requests`, everything that happens to each
    /// request, one line each. A request that existed when the trace began is `preexisting` and has no `outcome`; neither has one
    /// whose end was not seen. The owner is the listener's.
    pub struct RequestObject<'a> = "request" {
        /// See above; the remote end is the peer.
        socket: Socket<'a>,
        /// The remote end: `10.0.0.2:40000`, `[2001:db8::1]:40000`.
        peer: Option<Endpoint<'a>>,
        /// Cookie of the listener.
        listener: Option<Hex>,
        /// `queued`, `completed`, `cookie_sent`, `cookie_completed`, `syn_queue_full` (the SYN was dropped), `accept_queue_full_syn` (the SYN was dropped), `accept_queue_full_ack` (the final ACK was dropped; the request may complete later), `rst` (the peer reset it), `synack_timeout` (no SYN-ACK was answered), `other`.
        outcome: Option<Outcome>,
        /// Of `completed`: `fast_open`. Of `queued`: `migrated` (another listener of the group has it now: `listener`). Of `other`: `listener_closed`. Of `accept_queue_full_ack`: `aborted` (answered with a RST, `tcp_abort_on_overflow`: the request is gone). Of an end: `overflowed` (its final ACK had met a full accept queue before).
        detail: Option<Detail>,
        /// SYN-ACKs sent again.
        synack_retrans: u32,
        /// Initial sequence number of the peer.
        rcv_isn: Option<u32>,
        /// Initial sequence number of this end.
        snt_isn: Option<u32>,
        /// Microseconds since the SYN.
        age_us: Option<u64>,
        /// The listener's half-open requests right after it: `len`, `young` (whose SYN-ACK was not sent again), `limit`.
        syn_queue: Option<Queue>,
        /// The listener's accept queue right after it: `len`, `limit`.
        accept_queue: Option<Queue>,
        /// Names of fields that were concluded and not seen: `age_us`, where the first record of the request was not made for its rate.
        inferred: Names<'a>,
    }
}

impl<'a> RequestObject<'a> {
    pub(super) fn found(m: &'a Mini) -> Self {
        Self {
            socket: Socket::mini(m, Some(Role::Server)),
            peer: Some(Endpoint(m.tuple.family, &m.tuple.raddr, m.tuple.rport)),
            listener: None,
            outcome: None,
            detail: None,
            synack_retrans: m.retrans,
            rcv_isn: None,
            snt_isn: None,
            age_us: None,
            syn_queue: None,
            accept_queue: None,
            inferred: Names(&[]),
        }
    }

    pub(super) fn new(r: &'a Request) -> Self {
        let t = &r.tuple;
        let depth = |len, young| Queue(Depth { len: Some(len), young, peak: None, limit: r.limit }, Extra::default());
        Self {
            socket: Socket {
                sock: some(r.child).map(Hex),
                role: Some(Role::Server),
                preexisting: r.preexisting.then_some(true),
                ..Socket::ends(r.id, t, r.owner.as_deref())
            },
            peer: Some(Endpoint(t.family, &t.raddr, t.rport)),
            listener: some(r.listener).map(Hex),
            outcome: r.outcome,
            detail: r.detail,
            synack_retrans: r.synack_retrans,
            rcv_isn: r.rcv_isn,
            snt_isn: r.snt_isn,
            age_us: r.age_ns.map(|ns| ns / 1000),
            syn_queue: r.syn_queue.map(|(len, young)| depth(len, Some(young))),
            accept_queue: r.accept_queue.map(|len| depth(len, None)),
            inferred: Names(if r.inferred.0 & Inferred::START != 0 { &["age_us"] } else { &[] }),
        }
    }
}

object! {
    /// A TIME_WAIT remnant is gone. Only where a hook sees it: see `time_wait` in the `signals` of `start`.
    pub struct TimeWaitObject<'a> = "time_wait" {
        /// See above; the owner had the connection.
        socket: Socket<'a>,
        /// What the remnant began as: TIME_WAIT, or FIN_WAIT2 of an orphan, which became TIME_WAIT when the peer's FIN came.
        state: State,
        /// Microseconds that it existed.
        us: Option<u64>,
        /// `expired`; `reused`: a new connection with the same ends took its place; `killed`: removed early for no such connection.
        how: Left,
    }
}

impl<'a> TimeWaitObject<'a> {
    pub(super) fn new(r: &'a Remnant) -> Self {
        let socket = Socket {
            sock: some(r.cookie).map(Hex),
            preexisting: r.preexisting.then_some(true),
            ..Socket::ends(r.id, &r.tuple, r.owner.as_deref())
        };
        Self { socket, state: r.state, us: r.ns.map(|ns| ns / 1000), how: r.how }
    }
}

object! {
    /// Both queues of a listener at the end of an interval, and what happened in it (`queues`). Counts are of the interval; one that no
    /// hook tells is absent, unless the namespace's counters tell it: then it is `inferred`.
    pub struct ListenerObject<'a> = "listener" {
        /// See above.
        socket: Socket<'a>,
        /// Microseconds.
        interval_us: u64,
        /// SO_REUSEPORT group: the lowest `id` that was ever in it.
        group: Option<u64>,
        /// Half-open requests: `len`, `young` (whose SYN-ACK was not sent again), `peak` in the interval, `limit`. Absent `len`: the listener was closed.
        syn_queue: Queue,
        /// Connections that wait for accept(): `len`, `peak` in the interval, `limit` (`sk_max_ack_backlog`; full when `len` is greater), `backlog` (listen()'s argument, where it was seen), `somaxconn`, `limited_by` (`backlog` or `somaxconn`: which of them set the limit).
        accept_queue: Queue,
        /// SYNs that reached it.
        syns: Option<u64>,
        /// Put into the SYN queue.
        queued: Option<u64>,
        /// Put into the accept queue, by a cookie or Fast Open included.
        completed: Option<u64>,
        /// Taken from the accept queue.
        accepted: Option<u64>,
        /// SYNs answered with a cookie.
        cookies_sent: Option<u64>,
        /// Connections made by a returned cookie.
        cookies_ok: Option<u64>,
        /// Connections made by TCP Fast Open.
        fast_opens: Option<u64>,
        /// `syn_queue_full` (SYNs), `accept_queue_full_syn` (SYNs), `accept_queue_full_ack` (final ACKs), `rst` (requests, aborts on overflow included), `synack_timeout` (requests), `other` (SYNs and final ACKs: no memory, no route; requests: an ICMP error), `listener_closed` (requests that outlived it).
        dropped: Drops,
        /// SYN-ACKs sent again.
        synack_retrans: Option<u64>,
        /// Requests that went to another listener of the group.
        migrated: Option<u64>,
        /// Distinct sources of SYNs, estimated (HyperLogLog of 128 registers: 9 % standard error).
        sources: Option<u64>,
        /// Times in the accept queue of what was accepted: `p50`, `p99`, `max`. The last is exact; the others come from a histogram by powers of two and can be wrong by a factor of two, though never above `max`. Absent: nothing was accepted.
        accept_wait_us: Option<WaitTimes>,
        /// Segments that its half-open requests did not take: RSTs, final ACKs that met a full accept queue, SYNs that came again, what is outside the window or ignored by TCP_DEFER_ACCEPT.
        segments_not_taken: Option<u64>,
        /// Growth of the socket's `sk_drops`: everything that it dropped, for any reason.
        sk_drops: Option<u64>,
        /// Records of single requests (`request`) that were not made for their rate; the counts here have them.
        held_back: Option<u64>,
        /// TCP Fast Open: `len` (children that are not established yet), `limit`.
        fast_open_queue: Option<Queue>,
        /// TCP_DEFER_ACCEPT: how many SYN-ACK timeouts it lets pass.
        defer_accept: Option<u32>,
        /// `exact`: everything that happened to it passed a hook. `sampled`: some of it is known from what stands at the end of an interval; peaks can be higher.
        fidelity: Text<'a>,
        /// Names of fields that were concluded and not seen: from the counters of its network namespace, where no other listener can have caused them, or from its limit.
        inferred: Names<'a>,
    }
}

impl<'a> ListenerObject<'a> {
    pub(super) fn new(c: &'a Connection, l: &'a Listening) -> Self {
        let extra = Extra { backlog: l.backlog, somaxconn: l.somaxconn, limited_by: l.limited_by };
        Self {
            socket: Socket::new(c),
            interval_us: l.interval_us,
            group: l.group,
            syn_queue: Queue(l.syn_queue, Extra::default()),
            accept_queue: Queue(l.accept_queue, extra),
            syns: l.syns,
            queued: l.queued,
            completed: l.completed,
            accepted: l.accepted,
            cookies_sent: l.cookies_sent,
            cookies_ok: l.cookies_ok,
            fast_opens: l.fast_opens,
            dropped: Drops(l.dropped),
            synack_retrans: l.synack_retrans,
            migrated: l.migrated,
            sources: l.sources,
            accept_wait_us: l.waits.map(WaitTimes),
            segments_not_taken: l.not_taken,
            sk_drops: l.sk_drops,
            held_back: some(l.held_back),
            fast_open_queue: l.fast_open_queue.map(|(len, limit)| {
                Queue(Depth { len: Some(len), limit: Some(limit), ..Depth::default() }, Extra::default())
            }),
            defer_accept: l.defer_accept,
            fidelity: Text(if l.exact { b"exact" } else { b"sampled" }),
            inferred: Names(&l.inferred),
        }
    }
}

object! {
    /// The kernel's own counters of a network namespace with listeners over an interval (`queues`), before its listeners. What no hook sees is
    /// known from these alone.
    pub struct NetnsObject<'a> = "netns" {
        /// Inode number of `/proc/PID/ns/net`.
        netns: u32,
        /// Microseconds.
        interval_us: u64,
        /// Listeners in it.
        listeners: u32,
        /// Growth in the interval, by the names of `/proc/net/netstat` and `/proc/net/snmp`. Absent where the begin of the interval was not seen.
        counters: Counters<'a>,
    }
}

impl<'a> NetnsObject<'a> {
    pub(super) fn new(n: &'a NetnsCounters) -> Self {
        let counters = Counters(&n.counters);
        Self { netns: n.netns, interval_us: n.interval_us, listeners: n.listeners, counters }
    }
}

/// A queue, and of an accept queue what set its limit.
#[derive(Clone, Copy, Debug)]
pub struct Queue(Depth, Extra);

#[derive(Clone, Copy, Debug, Default)]
struct Extra {
    backlog: Option<u32>,
    somaxconn: Option<u32>,
    limited_by: Option<LimitedBy>,
}

impl Value for Queue {
    const JSON: &'static str = "object";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        inner.field("len", self.0.len);
        inner.field("young", self.0.young);
        inner.field("peak", self.0.peak);
        inner.field("limit", self.0.limit);
        inner.field("backlog", self.1.backlog);
        inner.field("somaxconn", self.1.somaxconn);
        inner.field("limited_by", self.1.limited_by);
        inner.end();
    }
}

/// Drops by reason.
#[derive(Clone, Copy, Debug)]
pub struct Drops(pub Dropped);

impl Value for Drops {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        for (name, n) in DROPPED.into_iter().zip(self.0) {
            inner.field(name, n);
        }
        inner.end();
    }
}

/// Accept waits.
#[derive(Clone, Copy, Debug)]
pub struct WaitTimes(Waits);

impl Value for WaitTimes {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        inner.field("p50", Some(self.0.p50));
        inner.field("p99", Some(self.0.p99));
        inner.field("max", Some(self.0.max));
        inner.end();
    }
}

/// Name → number.
#[derive(Clone, Copy, Debug)]
pub struct Counters<'a>(&'a [(String, u64)]);

impl Value for Counters<'_> {
    const JSON: &'static str = "object of integers";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        for (name, n) in self.0 {
            inner.field(name, Some(*n));
        }
        inner.end();
    }
}

/// Names of fields, or other texts.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a, T = &'static str>(pub &'a [T]);

impl<T: AsRef<str>> Value for Names<'_, T> {
    const JSON: &'static str = "array of strings";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
    fn write(&self, out: &mut Out) {
        for (i, name) in self.0.iter().enumerate() {
            out.raw(if i == 0 { b"[" } else { b"," });
            Text(name.as_ref().as_bytes()).write(out);
        }
        out.raw(b"]");
    }
}

/// Kernel against ours.
#[derive(Clone, Copy, Debug)]
pub struct Residuals<'a>(pub &'a [Residual]);

impl Value for Residuals<'_> {
    const JSON: &'static str = "array of objects";
    fn write(&self, out: &mut Out) {
        out.raw(b"[");
        for (i, r) in self.0.iter().enumerate() {
            if i > 0 {
                out.raw(b",");
            }
            let mut inner = Inner::new(out);
            inner.field("netns", Some(r.netns));
            inner.field("counter", Some(Text(r.counter.as_bytes())));
            inner.field("sock", r.listener.map(Hex));
            inner.field("kernel", Some(r.kernel));
            inner.field("ours", Some(r.ours));
            inner.end();
        }
        out.raw(b"]");
    }
}
