//! What was seen of late, in bounded memory: what rules look at. Nothing here judges.
//!
//! | file | |
//! |---|---|
//! | `window` | sums over the last seconds |
//! | `listeners` | both queues of each listener, and its SYN rate of old |
//! | `flow` | SYNs, answers and replies of a listener, interval by interval |
//! | `bursts` | when a listener's accept queue was full, and for how long |
//! | `half_opens` | who sends SYNs and does not answer the SYN-ACK |
//! | `turned_away` | who met a full accept queue |
//! | `peers` | whom processes here connect to, which services are connected to, and how that went |
//! | `retransmits` | segments that were sent again, by peer |
//! | `handshakes` | initial sequence numbers of late, and SYNs that bring one again |
//! | `scans` | who tries which ports |
//! | `close_wait` | connections in CLOSE_WAIT |
//! | `namespaces` | settings, counters and counts of sockets of network namespaces; who closes first |
//! | `ports` | local ports of connections that this host opens |

pub mod bursts;
pub mod close_wait;
pub mod flow;
pub mod half_opens;
pub mod handshakes;
pub mod listeners;
pub mod namespaces;
pub mod peers;
pub mod ports;
pub mod retransmits;
pub mod scans;
pub mod turned_away;
pub mod window;

use std::sync::Arc;

use crate::model::{
    Connection, Final, Found, Listening, Mark, Mini, NetnsCounters, Observer, Orphans, Probe, Remnant, Request, Stack,
    Transition, Unread,
};
use close_wait::CloseWaits;
use half_opens::HalfOpens;
use handshakes::Handshakes;
use listeners::Listeners;
use namespaces::Namespaces;
use peers::Peers;
use ports::Ports;
use retransmits::Retransmits;
use scans::Scans;
use turned_away::TurnedAway;

/// See the module. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Default)]
pub struct Seen {
    /// Now.
    pub now: u64,
    /// When the trace began; 0 before its first frame.
    pub began: u64,
    /// Listeners that are there.
    pub listeners: Listeners,
    /// Requests that nobody answers.
    pub half_opens: HalfOpens,
    /// Clients that met a full accept queue.
    pub turned_away: TurnedAway,
    /// Whom processes here connect to, and who connects to them.
    pub peers: Peers,
    /// What was sent again.
    pub retransmits: Retransmits,
    /// Handshakes of late.
    pub handshakes: Handshakes,
    /// Who tries ports.
    pub scans: Scans,
    /// Connections in CLOSE_WAIT.
    pub close_waits: CloseWaits,
    /// Network namespaces.
    pub namespaces: Namespaces,
    /// Local ports of connections that this host opens.
    pub ports: Ports,
}

impl Seen {
    /// Time passed: forget what is too old to matter.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.began == 0 {
            self.began = now;
        }
        self.listeners.advance(self.now);
        self.half_opens.advance(self.now);
        self.turned_away.advance(self.now);
        self.peers.advance(self.now);
        self.retransmits.advance(self.now);
        self.handshakes.advance(self.now);
        self.scans.advance(self.now);
        self.close_waits.advance(self.now);
        self.namespaces.advance(self.now);
        self.ports.advance(self.now);
    }
}

impl Observer for Seen {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        self.peers.transition(c, t);
        self.handshakes.transition(c, t);
        self.close_waits.transition(c, t);
        self.ports.transition(c, t);
    }

    fn mark(&mut self, c: &Connection, m: &Mark) {
        self.peers.mark(c, m);
        self.retransmits.mark(c, m);
    }

    fn owner(&mut self, c: &Connection) {
        self.close_waits.owner(c, self.now);
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        self.peers.connection(c, f);
        self.retransmits.over(c);
        self.handshakes.connection(c, f.ts);
        self.scans.connection(c, f);
        self.close_waits.connection(c, f);
        self.namespaces.connection(c, f);
        self.ports.connection(c, f);
    }

    fn socket(&mut self, c: &Connection, f: &Found) {
        self.close_waits.socket(c, f);
        self.ports.socket(c, f);
    }

    fn mini_socket(&mut self, m: &Mini) {
        self.half_opens.mini_socket(m);
    }

    fn request(&mut self, r: &Request) {
        self.half_opens.request(r);
        self.turned_away.request(r);
        if !self.handshakes.request(r) {
            self.scans.request(r);
        }
    }

    fn probe(&mut self, p: &Probe) {
        self.scans.probe(p);
    }

    fn time_wait(&mut self, r: &Remnant) {
        self.ports.time_wait(r);
    }

    fn netns(&mut self, n: &NetnsCounters) {
        self.listeners.netns(n);
        self.namespaces.counters(n);
    }

    fn opened_at(&mut self, c: &Connection, _: u64, stack: &Arc<Stack>) {
        self.close_waits.opened_at(c, stack);
    }

    fn unread(&mut self, c: &Connection, u: &Unread) {
        self.close_waits.unread(c, u);
    }

    fn orphans(&mut self, o: &Orphans) {
        self.namespaces.orphans(o);
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        self.listeners.interval(c, l);
    }
}
