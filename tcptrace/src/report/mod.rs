//! What a recording comes to, in bounded memory: what the tracker concludes goes in, totals, the busiest and the slowest, how it
//! ended and what looks wrong can be asked for.
//!
//! | file | |
//! |---|---|
//! | `series` | something over time, in slots that grow wider as time goes on |
//! | `top` | the few largest of many |
//! | `tables` | connections by peer and by process |
//! | `listeners` | both queues of each listener, and the connections that came through it |
//! | `picks` | which connections are worth a ladder |
//! | `findings` | what rules found, from its beginning to its end |
//! | `checks` | what looks wrong, with its evidence |

mod checks;
mod findings;
mod listeners;
mod picks;
mod series;
mod tables;
#[cfg(test)]
mod tests;
mod top;

use std::{collections::BTreeMap, sync::Arc};

pub use checks::Wrong;
pub use findings::{Findings, Trouble};
pub use listeners::{Depths, Listener, Peak, Place};
pub use picks::{Pick, Why};
pub use series::{Merge, Series};
pub use tables::{Peer, ProcessTally, Stuck, Table, Tally};
pub use top::Top;

use crate::{
    frame::fact,
    group::Spread,
    model::{
        ClosedBy, Connection, End, Final, Finding, Left, Listening, NetnsCounters, Observer, Remnant, Request, Role,
        State, Summary, ladder::Ladder,
    },
};
use listeners::Listeners;
use picks::Picks;

/// Slots of what is drawn over time.
const SLOTS: usize = 1024;
/// Seconds that are counted singly, for the busiest one: a day and a half.
const SECONDS: usize = 1 << 17;
/// Peers that are told apart.
const PEERS: usize = 50_000;
/// Names of processes that are told apart.
const PROCESSES: usize = 10_000;
const SECOND: u64 = 1_000_000_000;

/// A moment of one of the recordings in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// CLOCK_MONOTONIC nanoseconds.
    pub mono: u64,
    /// CLOCK_REALTIME minus that, nanoseconds; None where it is not known.
    pub offset: Option<i64>,
}

impl Moment {
    /// Nanoseconds since 1970; where the wall clock is not known, since boot.
    #[must_use]
    pub fn wall(self) -> u64 {
        self.mono.wrapping_add_signed(self.offset.unwrap_or(0))
    }
}

/// One recording: a file can hold several, one behind the other.
#[derive(Clone, Debug)]
pub struct Part {
    /// Host, kernel, version, signals.
    pub start: fact::Start,
    /// Those of the recording, and of the command line.
    pub filters: Vec<(String, String)>,
    /// When it began.
    pub from: Moment,
    /// When it ended, as far as it could be read.
    pub to: Moment,
}

impl Part {
    /// How long it lasted, nanoseconds.
    #[must_use]
    pub fn lasted(&self) -> u64 {
        self.to.mono.saturating_sub(self.from.mono)
    }
}

/// Sums over all connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that are over, or were open at the end.
    pub connections: u64,
    /// Of them, this end connected.
    pub clients: u64,
    /// Of them, the peer connected.
    pub servers: u64,
    /// Of them, there before the recording began.
    pub preexisting: u64,
    /// Of them, still open at its end.
    pub open: u64,
    /// Of them, begun within it.
    pub opened: u64,
    /// Of them, with final counters: what follows is known of these.
    pub counted: u64,
    /// Payload bytes sent, again included.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Payload bytes sent again.
    pub bytes_retrans: u64,
    /// Segments sent.
    pub segs_out: u64,
    /// Segments received.
    pub segs_in: u64,
    /// Segments sent again.
    pub retrans: u64,
    /// SYNs sent again.
    pub syn_retrans: u64,
    /// Clients' connections whose SYN was sent again.
    pub syn_again: u64,
    /// SYN-ACKs sent again.
    pub synack_retrans: u64,
    /// By [`ClosedBy`], of those that are over; not known: the rest.
    pub closed_by: [u64; 4],
    /// Half-open requests and SYNs that came to nothing, told singly.
    pub requests_failed: u64,
    /// TIME_WAIT remnants that went, by [`Left`].
    pub remnants: [u64; 3],
    /// Of those that were killed, not those of orphans, which a RST ends in FIN_WAIT2.
    pub time_wait_killed: u64,
}

impl Totals {
    /// Connections that are over, and who closed first is not known.
    #[must_use]
    pub fn closed_unknown(&self) -> u64 {
        self.connections - self.open - self.closed_by.iter().sum::<u64>()
    }
}

/// A connection that is worth a line.
#[derive(Clone, Debug)]
pub struct Notable {
    /// As it was at its end.
    pub connection: Connection,
    /// Its end.
    pub last: Final,
    /// When it began, or was first seen.
    pub start: Moment,
}

/// How many ended how, in a slot of time: by [`End`], those that are not known last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends(pub [u32; End::ALL.len() + 1]);

impl Merge for Ends {
    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(n, more)| *n += more);
    }
}

impl Merge for u32 {
    fn merge(&mut self, other: &Self) {
        *self += other;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Report {
    /// The file's name, as it was given.
    pub file: String,
    /// Entries of each list.
    pub top: usize,
    /// Why not all of the file could be read.
    pub unread: Option<String>,
    /// What the run came to; None before its end, and where the file is no recording.
    pub summary: Option<Summary>,
    /// Recordings in the file.
    pub parts: Vec<Part>,
    /// Sums.
    pub totals: Totals,
    /// Ends, those that are not known included; `Open` never.
    pub ends: Series<Ends>,
    /// Connections that began.
    pub opened: Series<u32>,
    /// All connections.
    pub all: Tally,
    /// Between the accept queue and accept().
    pub accept_wait: Spread,
    /// By peer.
    pub peers: Table<Peer, Tally>,
    /// By the name of the process.
    pub processes: Table<[u8; 16], ProcessTally>,
    /// Value: nanoseconds of the handshake.
    pub slowest_handshakes: Top<Notable>,
    /// Value: nanoseconds between the accept queue and accept().
    pub longest_waits: Top<Notable>,
    /// Value: nanoseconds that it lasted, or has been seen.
    pub longest_lived: Top<Notable>,
    /// Value: segments sent again.
    pub most_retransmitted: Top<Notable>,
    /// Events lost, by kind and kernel program.
    pub lost: BTreeMap<(String, String), u64>,
    /// What rules found.
    pub findings: Findings,
    /// Growth of the kernel's counters, by network namespace and name.
    pub counters: BTreeMap<(u32, String), u64>,
    listeners: Listeners,
    picks: Picks,
    offset: Option<i64>,
    /// The latest moment that something was told of in this part.
    latest: u64,
    begun: bool,
}

impl Report {
    /// Nothing yet. Lists have `top` entries.
    #[must_use]
    pub fn new(file: String, top: usize) -> Self {
        Self {
            file,
            top,
            unread: None,
            summary: None,
            parts: Vec::new(),
            totals: Totals::default(),
            // 10 ms, so that a recording of a few seconds has something to draw.
            ends: Series::new(SECOND / 100, SLOTS),
            opened: Series::new(SECOND, SECONDS),
            all: Tally::default(),
            accept_wait: Spread::default(),
            peers: Table::new(PEERS),
            processes: Table::new(PROCESSES),
            slowest_handshakes: Top::new(top),
            longest_waits: Top::new(top),
            longest_lived: Top::new(top),
            most_retransmitted: Top::new(top),
            lost: BTreeMap::new(),
            findings: Findings::default(),
            counters: BTreeMap::new(),
            listeners: Listeners::default(),
            picks: Picks::default(),
            offset: None,
            latest: 0,
            begun: false,
        }
    }

    /// What CLOCK_REALTIME is from here on: `offset_ns` more than CLOCK_MONOTONIC.
    pub fn clock(&mut self, offset_ns: i64) {
        self.offset = Some(offset_ns);
    }

    /// A recording begins.
    pub fn start(&mut self, ts: u64, start: &fact::Start, filters: &[(String, String)]) {
        // What is carried over a cut is older than the recording.
        let from = self.moment(start.cut.map_or(ts, |cut| cut.at));
        self.parts.push(Part { start: start.clone(), filters: filters.to_vec(), from, to: from });
        self.latest = ts;
        self.begun = true;
    }

    /// Events were lost. What is missing in the file itself is told by [`Report::unread`].
    pub fn loss(&mut self, loss: &fact::Loss) {
        *self.lost.entry((loss.kind.clone(), loss.program.clone())).or_default() += loss.count;
    }

    /// A recording ended.
    pub fn ended(&mut self, ts: u64) {
        let to = self.moment(ts.max(self.latest));
        if std::mem::take(&mut self.begun)
            && let Some(part) = self.parts.last_mut()
        {
            part.to = to;
        }
        self.latest = 0;
    }

    /// A rule found trouble, or it is over.
    pub fn finding(&mut self, finding: &Finding) {
        let offset = self.offset;
        self.findings.add(finding, |mono| Moment { mono, offset });
    }

    /// A connection as a ladder.
    pub fn ladder(&mut self, ladder: &Ladder) {
        self.picks.offer(ladder);
    }

    /// Nanoseconds that connections were watched for: all recordings together.
    #[must_use]
    pub fn lasted(&self) -> u64 {
        self.parts.iter().map(Part::lasted).sum()
    }

    /// The recordings were made with filters, or looked at with some, other than namespaces: totals are of what these let through.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.parts.iter().any(|part| part.filters.iter().any(|(name, _)| name != "netns"))
    }

    /// Was any listener read at the end of an interval?
    #[must_use]
    pub fn has_queues(&self) -> bool {
        self.listeners.were_read()
    }

    /// Listeners, the busiest first.
    #[must_use]
    pub fn listeners(&self) -> Vec<(Place, Listener)> {
        self.listeners.busiest()
    }

    /// Connections of listeners that there was no room for.
    #[must_use]
    pub fn other_listeners(&self) -> u64 {
        self.listeners.other()
    }

    /// Connections worth a ladder, where ladders were made.
    #[must_use]
    pub fn picks(&self) -> Vec<Pick<'_>> {
        self.picks.all()
    }

    /// What looks wrong, by what the recording proves.
    #[must_use]
    pub fn wrong(&self) -> Vec<Wrong> {
        checks::all(self)
    }

    fn moment(&self, mono: u64) -> Moment {
        Moment { mono, offset: self.offset }
    }

    fn at(&mut self, ts: u64) -> Moment {
        self.latest = self.latest.max(ts);
        self.moment(ts)
    }

    /// `before`: it was there before the recording began.
    fn count(&mut self, c: &Connection, f: &Final, before: bool) {
        let t = &mut self.totals;
        t.connections += 1;
        match c.role {
            Some(Role::Client) => t.clients += 1,
            Some(Role::Server) => t.servers += 1,
            Some(Role::Listener) | None => {}
        }
        t.preexisting += u64::from(before);
        t.opened += u64::from(!before);
        t.synack_retrans += u64::from(c.synack_retrans);
        if let Some(n) = f.syn_retrans.filter(|_| c.role == Some(Role::Client)) {
            t.syn_retrans += u64::from(n);
            t.syn_again += u64::from(n > 0);
        }
        if let Some(n) = &f.counters {
            t.counted += 1;
            t.segs_out += u64::from(n.segs_out);
            t.segs_in += u64::from(n.segs_in);
            t.retrans += u64::from(n.retrans);
            t.bytes_retrans += n.bytes_retrans;
        }
        if f.end == Some(End::Open) {
            t.open += 1;
        } else if let Some(by) = f.closed_by {
            t.closed_by[by as usize] += 1;
        }
    }

    fn rank(&mut self, c: &Connection, f: &Final, start: Moment) {
        let make = || Notable { connection: c.clone(), last: f.clone(), start };
        if let Some(ns) = f.handshake_ns {
            self.slowest_handshakes.add(ns, c.id, make);
        }
        if let Some(ns) = f.accept_wait_ns {
            self.longest_waits.add(ns, c.id, make);
        }
        if !f.late {
            self.longest_lived.add(f.ts.saturating_sub(c.start_ns), c.id, make);
        }
        if let Some(n) = f.counters.filter(|n| n.retrans > 0) {
            self.most_retransmitted.add(n.retrans.into(), c.id, make);
        }
    }
}

impl Observer for Report {
    fn connection(&mut self, c: &Connection, f: &Final) {
        if c.role == Some(Role::Listener) {
            return;
        }
        let (start, end) = (self.moment(c.start_ns), self.at(f.ts));
        let before = c.preexisting || self.parts.last().is_some_and(|part| c.start_ns < part.from.mono);
        self.count(c, f, before);
        if !before {
            *self.opened.at(start.wall()) += 1;
        }
        if f.end != Some(End::Open) {
            self.ends.at(end.wall()).0[f.end.map_or(End::ALL.len(), |end| end as usize)] += 1;
        }
        self.all.add(c, f);
        self.totals.bytes_sent = self.all.group.bytes_sent;
        self.totals.bytes_received = self.all.group.bytes_received;
        if let Some(ns) = f.accept_wait_ns {
            self.accept_wait.add(ns / 1000);
        }
        if let Some(peer) = Peer::of(c) {
            self.peers.entry(peer).add(c, f);
        }
        if let Some(owner) = &c.owner {
            self.processes.entry(owner.comm).add(owner, c, f);
        }
        if c.role == Some(Role::Server) {
            self.listeners.connection(c, f);
        }
        self.rank(c, f, start);
    }

    fn request(&mut self, r: &Request) {
        self.at(r.ts);
        if r.failed() {
            self.totals.requests_failed += 1;
            self.listeners.request(r);
        }
    }

    fn time_wait(&mut self, r: &Remnant) {
        self.at(r.ts);
        let number = match r.how {
            Left::Expired => 0,
            Left::Reused => 1,
            Left::Killed => 2,
        };
        self.totals.remnants[number] += 1;
        self.totals.time_wait_killed += u64::from(r.how == Left::Killed && r.state == State::TimeWait);
    }

    fn netns(&mut self, n: &NetnsCounters) {
        for (name, grown) in n.counters.iter().filter(|(_, grown)| *grown > 0) {
            *self.counters.entry((n.netns, name.clone())).or_default() += grown;
        }
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        let at = self.at(l.ts).wall();
        self.listeners.interval(at, c, l);
    }
}

/// Who closed first, in the order of [`Totals::closed_by`].
pub const CLOSED_BY: [ClosedBy; 4] = [ClosedBy::Local, ClosedBy::Remote, ClosedBy::Both, ClosedBy::None];

/// A process as an owner.
pub type Owner = Arc<crate::model::Process>;
