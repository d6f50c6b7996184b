//! What flows in: transitions, connections, facts. What flows out: text or JSON on a writer.

use crate::{
    error::Result,
    frame::fact,
    group::Groups,
    model::{Observer, Residual, ladder::Ladder},
};

pub mod escape;
pub mod json;
pub mod output;
pub mod text;
pub mod time;

pub use output::Output;

/// Prints what it is told of, in the order it is told.
pub trait Sink: Observer {
    /// What CLOCK_REALTIME is from here on: `offset_ns` more than CLOCK_MONOTONIC.
    fn clock(&mut self, offset_ns: i64);

    /// The first line. `filters` are those of the recording and of the command line.
    fn start(&mut self, ts: u64, start: &fact::Start, filters: &[(String, String)]);

    /// Events were lost.
    fn loss(&mut self, ts: u64, loss: &fact::Loss);

    /// Connections by what they have in common, counted for `elapsed_us`: at every tick how it stands, and at the end the `last`.
    fn groups(&mut self, _ts: u64, _elapsed_us: u64, _groups: &Groups, _last: bool) {}
    /// A connection is over, or the run is: `conns --ladder`, in place of [`Observer::connection`].
    #[expect(unused_variables, reason = "no other command asks for ladders")]
    fn ladder(&mut self, ladder: &Ladder) {}

    /// The last line.
    fn summary(&mut self, ts: u64, summary: &Summary);

    /// A batch is over: hand on what a reader may be waiting for; everything when it was the `last`.
    ///
    /// # Errors
    /// The output cannot be written, now or since the last call.
    fn flush(&mut self, last: bool) -> Result<()>;
}

/// What a run comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Kernel records.
    pub events: u64,
    /// Events that the kernel side could not hand over.
    pub lost: u64,
    /// Records that came too late for the merge.
    pub late: Option<u64>,
    /// Transitions that passed the filters.
    pub transitions: u64,
    /// Connections that passed the filters and are over, or were open at the end.
    pub connections: u64,
    /// Of these, connections with lost records.
    pub gaps: u64,
    /// Transitions that no TCP makes.
    pub impossible: u64,
    /// Records that could not be understood.
    pub undecodable: u64,
    /// Transitions dropped because too many waited for their owner to become known.
    pub held_dropped: u64,
    /// See [`fact::End`].
    pub kernel_ns_per_event: Option<u64>,
    /// See [`fact::End`].
    pub collector_cpu_us: Option<u64>,
    /// See [`fact::End`].
    pub peak_rate: Option<u64>,
    /// Half-open requests given up, see the tracker.
    pub requests_forgotten: u64,
    /// TIME_WAIT remnants that there was no room for.
    pub remnants_forgotten: u64,
    /// The kernel's counters against ours; None where they were not compared.
    pub residual: Option<Vec<Residual>>,
    /// Intervals of `queues` that were printed.
    pub intervals: u64,
    /// Nanoseconds from the first frame to the last.
    pub elapsed_ns: u64,
}
