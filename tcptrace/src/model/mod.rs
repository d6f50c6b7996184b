//! The words of everything above the decoder: what a connection is, what can happen to it, how it can end.
//!
//! Plain data, no logic beyond naming. The tracker fills these in and hands them to an [`Observer`].

use std::sync::Arc;

mod address;
mod cgroup;
mod connection;
pub mod finding;
#[cfg(test)]
pub(crate) mod fixture;
pub mod ladder;
mod payload;
mod ports;
pub mod probe;
mod process;
mod queue;
mod said;
mod state;
mod summary;

pub use crate::frame::fact::{Stack, StackFrame};
pub use address::address;
pub use cgroup::{Cgroup, Container, Runtime};
pub(crate) use connection::Notes;
pub use connection::{
    CloseSegments, ClosedBy, Connection, End, Entry, Final, Found, Inferred, Mark, Marked, Mini, Patterns, Role,
    Sequence, Timeline, Transition,
};
pub use finding::{Finding, Measure, Severity, Status, Subject};
pub use payload::{Payload, Shape};
pub use ports::Ports;
pub use probe::Probe;
pub use process::{Process, comm_str};
pub use queue::{
    DROPPED, Depth, Detail, Dropped, Left, LimitedBy, Listening, NetnsCounters, Orphans, Outcome, Remnant, Request,
    Residual, Unread, Waits,
};
pub use said::{Piece, Said, count};
pub use state::State;
pub use summary::Summary;

/// Takes what the tracker concludes, in the order of events. Every method may be left out.
#[expect(unused_variables, reason = "default methods ignore their arguments")]
pub trait Observer {
    /// A connection changed its state; `c` is as it is after the change.
    fn transition(&mut self, c: &Connection, t: &Transition) {}
    /// A segment was sent again, or a RST was sent or received.
    fn mark(&mut self, c: &Connection, m: &Mark) {}
    /// Something became known without a change of state: the owner of a connection (accept()), another process that inherited
    /// it, the port of a listener.
    fn owner(&mut self, c: &Connection) {}
    /// The user-space stack at which a process opened or accepted the socket of `c`, where it was asked for.
    fn opened_at(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {}
    /// A connection reached CLOSE or TIME_WAIT, or the run ended while it was open; `c` is forgotten afterwards.
    fn connection(&mut self, c: &Connection, f: &Final) {}
    /// A socket that existed when the trace began.
    fn socket(&mut self, c: &Connection, f: &Found) {}
    /// A half-open request or a TIME_WAIT remnant that existed when the trace began.
    fn mini_socket(&mut self, m: &Mini) {}
    /// Something happened to a SYN or a half-open request.
    fn request(&mut self, r: &Request) {}
    /// A segment came to a port where nobody listens.
    fn probe(&mut self, p: &Probe) {}
    /// A TIME_WAIT remnant is gone.
    fn time_wait(&mut self, r: &Remnant) {}
    /// The kernel's counters of a network namespace over the interval that ends, before its listeners.
    fn netns(&mut self, n: &NetnsCounters) {}
    /// What a connection in CLOSE_WAIT holds, where it was asked for: when it is read first, when that changes, and from time to time.
    fn unread(&mut self, c: &Connection, u: &Unread) {}
    /// Sockets in FIN_WAIT2 without a process, where they were asked for, every few seconds.
    fn orphans(&mut self, o: &Orphans) {}
    /// Both queues of a listener over the interval that ends; `c` is the listener.
    fn listener(&mut self, c: &Connection, l: &Listening) {}
    /// All of the interval that ends has been told; it was `interval_us` long.
    fn interval(&mut self, ts: u64, interval_us: u64) {}
    /// A transition that neither RFC 9293 nor Linux knows; the timeline goes on with it.
    fn impossible(&mut self, c: &Connection, t: &Transition) {}
}
