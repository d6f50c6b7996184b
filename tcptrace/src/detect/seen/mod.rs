//! What was seen of late, in bounded memory: what rules look at. Nothing here judges.
//!
//! | file | |
//! |---|---|
//! | `window` | sums over the last seconds |
//! | `listeners` | both queues of each listener, and its SYN rate of old |
//! | `close_wait` | connections in CLOSE_WAIT |
//! | `namespaces` | settings, counters and counts of sockets of network namespaces; who closes first |
//! | `ports` | local ports of connections that this host opens |

pub mod close_wait;
pub mod listeners;
pub mod namespaces;
pub mod ports;
pub mod window;

use crate::{
    frame::fact,
    model::{
        Connection, Final, Found, Listening, Mark, Mini, NetnsCounters, Observer, Orphans, Remnant, Request,
        Transition, Unread,
    },
};
use close_wait::CloseWaits;
use listeners::Listeners;
use namespaces::Namespaces;
use ports::Ports;

/// See the module. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Default)]
pub struct Seen {
    /// Now.
    pub now: u64,
    /// When the trace began; 0 before its first frame.
    pub began: u64,
    /// Listeners that are there.
    pub listeners: Listeners,
    /// Connections in CLOSE_WAIT.
    pub close_waits: CloseWaits,
    /// Network namespaces.
    pub namespaces: Namespaces,
    /// Local ports of connections that this host opens.
    pub ports: Ports,
}

impl Seen {
    /// A trace begins.
    #[must_use]
    pub fn of(_start: &fact::Start) -> Self {
        Self::default()
    }

    /// Time passed: forget what is too old to matter.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.began == 0 {
            self.began = now;
        }
        self.listeners.advance(self.now);
        self.close_waits.advance(self.now);
        self.namespaces.advance(self.now);
        self.ports.advance(self.now);
    }
}

#[expect(unused_variables, reason = "what no rule looks at yet")]
impl Observer for Seen {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        self.close_waits.transition(c, t);
        self.ports.transition(c, t);
    }

    fn mark(&mut self, c: &Connection, m: &Mark) {}

    fn owner(&mut self, c: &Connection) {
        self.close_waits.owner(c, self.now);
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        self.close_waits.connection(c, f);
        self.namespaces.connection(c, f);
        self.ports.connection(c, f);
    }

    fn socket(&mut self, c: &Connection, f: &Found) {
        self.close_waits.socket(c, f);
        self.ports.socket(c, f);
    }

    fn mini_socket(&mut self, m: &Mini) {}

    fn request(&mut self, r: &Request) {}

    fn time_wait(&mut self, r: &Remnant) {
        self.ports.time_wait(r);
    }

    fn netns(&mut self, n: &NetnsCounters) {
        self.namespaces.counters(n);
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
