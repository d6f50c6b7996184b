//! Events → changes: one timeline for every connection, from its first record to its last.
//!
//! Pure: no I/O, no clock; time comes from the events. What it concludes goes to a [`model::Observer`](crate::model::Observer)
//! in the order of events. Sockets are known by their cookies, on which several timelines may follow each other; addresses
//! are reused at once and name nothing.
//!
//! | file | |
//! |---|---|
//! | `lives` | births and deaths of timelines |
//! | `moves` | transitions, in order and late |
//! | `marks` | what happens to a connection without changing its state |
//! | `ending` | how it ended, who closed |
//! | `closing` | sockets that wait for one of their ends to close |
//! | `pending` | ends that are decided by what follows CLOSE |
//! | `half_open` | what is known before there is a cookie |
//! | `owners` | processes and listeners |
//! | `syn` | what becomes of a SYN; requests join their children's timelines |
//! | `requests` | memory of half-open requests |
//! | `time_wait` | begin and end of TIME_WAIT, where hooks see them |
//! | `remnants` | memory of TIME_WAIT remnants |
//! | `queues` | both queues of every listener, interval by interval |
//! | `signals` | what the trace was made with |
//! | `snapshot` | rows of the start snapshot |
//! | `resync` | rows of a later snapshot: repair after a loss |
//! | `holders` | who has which socket open |
//! | `stacks` | where in their programs sockets were opened |
//! | `followed` | the processes that the trace is about |
//! | `received` | sockets that these are given by others |
//! | `arcs` | which transitions there are |
//! | `table` | the memory |

mod arcs;
mod closing;
mod ending;
mod followed;
mod half_open;
mod holders;
mod lives;
mod marks;
mod moves;
mod owners;
mod pending;
mod queues;
mod received;
mod remnants;
mod requests;
mod resync;
mod signals;
mod snapshot;
mod stacks;
mod syn;
mod table;
mod time_wait;

use crate::{
    decode::Event,
    frame::fact,
    model::{End, Final, Observer, Probe, Residual, Role},
};
use followed::Followed;
use half_open::HalfOpen;
use lives::Ended;
use moves::Detail;
use owners::{Listeners, Processes};
use pending::Queue;
use queues::Queues;
use remnants::Remnants;
use requests::Requests;
use resync::Resync;
use signals::Signals;
use snapshot::Start;
use stacks::Stacks;
use table::Table;

/// Counts of what a [`Tracker`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events taken.
    pub events: u64,
    /// Records of sockets that were lost, as far as numbers and states tell.
    pub gaps: u64,
    /// Records that came after later ones of their socket.
    pub late: u64,
    /// Transitions that neither RFC 9293 nor Linux knows.
    pub impossible: u64,
    /// Children that never became connections: they lost the race for their request, or never got a cookie.
    pub phantoms: u64,
    /// Half-open requests that were given up: more than there is room for, or their end never came.
    pub requests_forgotten: u64,
    /// TIME_WAIT remnants that there was no room for.
    pub remnants_forgotten: u64,
    /// Records with a state that no kernel has, or without the cookie that their kind must have.
    pub nonsense: u64,
    /// Timelines that a snapshot after a loss found in another state than their last records told.
    pub repaired: u64,
    /// Timelines that a snapshot after a loss found to be over.
    pub concluded: u64,
    /// Sockets that a snapshot after a loss found and of which nothing was known.
    pub discovered: u64,
}

/// See the module.
pub struct Tracker {
    table: Table,
    processes: Processes,
    followed: Followed,
    listeners: Listeners,
    half_open: HalfOpen,
    requests: Requests,
    remnants: Remnants,
    queues: Queues,
    signals: Signals,
    stacks: Stacks,
    pending: Queue,
    ended: Ended,
    /// Until the start snapshot is complete.
    start: Option<Box<Start>>,
    /// While rows of a later snapshot come.
    resync: Option<Box<Resync>>,
    /// What came before was let go of. Until a tick frames come that are carried over the cut.
    cut: fact::Cut,
    carried: bool,
    ids: u64,
    stats: Stats,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracker {
    /// A tracker that knows nothing. Until the event that completes the start snapshot, a socket that turns up in the middle
    /// of its life counts as preexisting; afterwards, as one whose earlier records were lost.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Table::new(),
            processes: Processes::default(),
            followed: Followed::default(),
            listeners: Listeners::default(),
            half_open: HalfOpen::default(),
            requests: Requests::default(),
            remnants: Remnants::default(),
            queues: Queues::default(),
            signals: Signals::default(),
            stacks: Stacks::default(),
            pending: Queue::default(),
            ended: Ended::default(),
            start: Some(Box::default()),
            resync: None,
            cut: fact::Cut::default(),
            carried: false,
            ids: 0,
            stats: Stats::default(),
        }
    }

    /// Take the next event; what follows from it goes to `out`.
    #[inline]
    pub fn event(&mut self, event: &Event<'_>, out: &mut impl Observer) {
        self.stats.events += 1;
        if !self.pending.is_empty() {
            self.expire(time(event), out);
        }
        if self.remnants.undecided() {
            self.expire_remnants(time(event), out);
        }
        match event {
            Event::State(head) => self.transition(head, Detail::None, out),
            Event::Sequence(r) => self.transition(&r.head, Detail::Sequence(r), out),
            Event::Open(r) => self.open(r, out),
            Event::Listen(r) => {
                self.queues.listen(r.open.head.sock, r.backlog, r.somaxconn);
                self.open(&r.open, out);
            }
            Event::Child(r) => self.child(r, out),
            Event::Established(r) => self.transition(&r.head, Detail::Established(r), out),
            Event::Closed(r) => self.transition(&r.head, Detail::Closed(r), out),
            Event::Bound(r) => self.bound(r, out),
            Event::Received(r) => self.received(r, out),
            Event::Forked(r) => self.followed.forked(r.parent, r.child),
            Event::Accepted(r) => self.accepted(r, out),
            Event::Actor(r) => self.actor(r, out),
            Event::Destroyed(head) => self.destroyed(head, out),
            Event::ResetSent(head) => self.reset_sent(head, out),
            Event::ResetReceived(head) => self.reset_received(head, out),
            Event::Retransmit(head) => self.retransmit(head, out),
            Event::SynAckRetransmit(r) => self.synack_retransmit(r),
            Event::Error(head) => self.error(head, out),
            Event::Socket(r) if self.start.is_none() => self.resync_socket(r, out),
            Event::Socket(r) | Event::Found(r) => self.socket(r),
            Event::Holder(r) => self.holder(r),
            Event::Request(r) | Event::TimeWait(r) => self.mini_socket(r, out),
            Event::Snapshot(ts, fact) => self.snapshot_complete(*ts, fact, out),
            Event::Tick(ts) => self.tick(*ts),
            Event::Cgroup(fact) => self.processes.cgroup(fact),
            Event::RequestEvent(r) => self.request_event(r, out),
            Event::TimeWaitBegin(head) => self.time_wait_begin(head, out),
            Event::TimeWaitEnd(r) => self.time_wait_end(r, out),
            Event::Probe(r) => out.probe(&probe(r)),
            Event::Listener(r) => self.listener_sample(r),
            Event::ListenerStats(r) => self.queues.stats(r),
            Event::Netns(ts, fact) => self.queues.netns(*ts, fact),
            Event::Closing(ts, fact) => self.closing(*ts, fact, out),
            Event::Interval(ts, fact) => self.interval(*ts, fact, out),
            Event::Stack(stack) => self.stacks.add(stack),
            Event::OpenedAt(ts, fact) => self.opened_at(*ts, fact, out),
            Event::Start(start) => {
                self.signals = Signals::served(start);
                self.followed = Followed::of(&start.filters);
                self.queues.start(start);
                self.cut = start.cut.unwrap_or_default();
                self.carried = start.cut.is_some();
            }
            Event::Clock(_) | Event::Loss(..) | Event::End(..) => {}
        }
    }

    /// The run ended at `ts`: report what is still open, in the order of ids, and forget everything. Listeners are no
    /// connections.
    pub fn finish(&mut self, ts: u64, out: &mut impl Observer) {
        self.report_rows(0, out);
        while let Some(number) = self.pending.oldest() {
            self.settle(number, out);
        }
        let mut open: Vec<(u64, u32)> = self.table.slots().map(|(slot, c)| (c.id, slot)).collect();
        open.sort_unstable();
        for (_, slot) in open {
            if let Some(c) = self.table.get(slot)
                && c.role != Some(Role::Listener)
                && c.cookie != 0
            {
                let stack = self.table.stack(slot);
                out.connection(c, &Final { stack, ..ending::conclude(c, ts, Some(End::Open), 0, None) });
            }
            self.table.remove(slot);
        }
        self.expire_remnants(u64::MAX, out);
        let (stats, ids) = (self.stats(), self.ids);
        let queues = Queues::after(&self.queues);
        // Another trace may follow, which begins with a snapshot of its own.
        *self = Self { stats, ids, queues, ..Self::new() };
    }

    /// Forget a socket without a word: it turned out not to be wanted, and the kernel will not tell of its end.
    pub fn forget(&mut self, cookie: u64) {
        if let Some(slot) = self.table.find(cookie)
            && let Some(c) = self.table.get(slot)
        {
            self.pending.take(c.notes.pending);
            self.remove(slot, 0);
        }
    }

    /// Timelines that are not over: connections and listeners.
    #[must_use]
    pub fn live(&self) -> usize {
        self.table.live()
    }

    /// Their numbers, in no order.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.table.slots().map(|(_, c)| c.id)
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            requests_forgotten: self.stats.requests_forgotten + self.requests.forgotten,
            remnants_forgotten: self.stats.remnants_forgotten + self.remnants.forgotten,
            ..self.stats
        }
    }

    /// The kernel's counters against ours, at the last moment of rest: those that the loaded signals claim to see whole,
    /// and that are not zero. None: there was no such moment, or filters hide a part.
    #[must_use]
    pub fn residual(&self) -> Option<&[Residual]> {
        self.queues.residual()
    }

    /// Is what a row of this time tells of something that is not known older than the cut, and not carried over it: over?
    fn was_told(&self, ts: u64) -> bool {
        ts <= self.cut.at && !self.carried
    }

    fn tick(&mut self, now: u64) {
        self.carried = false;
        self.processes.prune();
        self.requests.expire(now);
        for slot in self.half_open.expire_children(now) {
            self.table.remove(slot);
            self.stats.phantoms += 1;
        }
    }
}

/// It belongs to no timeline.
fn probe(r: &tcptrace_common::probe::Probe) -> Probe {
    Probe { ts: r.head.ts, tuple: r.tuple, flags: r.flags, seq: r.seq, ack: r.ack, held_back: r.held_back }
}

/// CLOCK_MONOTONIC of an event; 0 where it has none, or (rows of the snapshot) none that time may follow.
fn time(event: &Event<'_>) -> u64 {
    match event {
        Event::State(h)
        | Event::Destroyed(h)
        | Event::ResetSent(h)
        | Event::ResetReceived(h)
        | Event::Retransmit(h)
        | Event::Error(h)
        | Event::TimeWaitBegin(h) => h.ts,
        Event::TimeWaitEnd(r) => r.head.ts,
        Event::Probe(r) => r.head.ts,
        Event::Sequence(r) => r.head.ts,
        Event::Open(r) => r.head.ts,
        Event::Child(r) => r.head.ts,
        Event::Established(r) => r.head.ts,
        Event::Closed(r) => r.head.ts,
        Event::Bound(r) => r.head.ts,
        Event::Forked(r) => r.head.ts,
        Event::Received(r) => r.socket.head.ts,
        Event::Accepted(r) => r.head.ts,
        Event::Actor(r) => r.head.ts,
        Event::SynAckRetransmit(r) => r.head.ts,
        Event::RequestEvent(r) => r.head.ts,
        Event::Listen(r) => r.open.head.ts,
        Event::Netns(ts, _)
        | Event::Closing(ts, _)
        | Event::Interval(ts, _)
        | Event::OpenedAt(ts, _)
        | Event::Snapshot(ts, _)
        | Event::Loss(ts, _)
        | Event::Tick(ts)
        | Event::End(ts, _) => *ts,
        Event::Socket(_)
        | Event::Found(_)
        | Event::Holder(_)
        | Event::Request(_)
        | Event::TimeWait(_)
        | Event::Cgroup(_)
        | Event::Stack(_)
        | Event::Listener(_)
        | Event::ListenerStats(_)
        | Event::Start(_)
        | Event::Clock(_) => 0,
    }
}
