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

pub mod bursts;
pub mod flow;
pub mod half_opens;
pub mod listeners;
pub mod turned_away;
pub mod window;

use crate::{
    frame::fact,
    model::{Connection, Final, Found, Listening, Mark, Mini, NetnsCounters, Observer, Remnant, Request, Transition},
};
use half_opens::HalfOpens;
use listeners::Listeners;
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
        self.half_opens.advance(self.now);
        self.turned_away.advance(self.now);
    }
}

#[expect(unused_variables, reason = "what no rule looks at yet")]
impl Observer for Seen {
    fn transition(&mut self, c: &Connection, t: &Transition) {}

    fn mark(&mut self, c: &Connection, m: &Mark) {}

    fn owner(&mut self, c: &Connection) {}

    fn connection(&mut self, c: &Connection, f: &Final) {}

    fn socket(&mut self, c: &Connection, f: &Found) {}

    fn mini_socket(&mut self, m: &Mini) {
        self.half_opens.mini_socket(m);
    }

    fn request(&mut self, r: &Request) {
        self.half_opens.request(r);
        self.turned_away.request(r);
    }

    fn time_wait(&mut self, r: &Remnant) {}

    fn netns(&mut self, n: &NetnsCounters) {
        self.listeners.netns(n);
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        self.listeners.interval(c, l);
    }
}
