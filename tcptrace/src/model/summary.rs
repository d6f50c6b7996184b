//! What a run comes to, in numbers.

use super::Residual;

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
    /// See [`crate::frame::fact::End`].
    pub kernel_ns_per_event: Option<u64>,
    /// See [`crate::frame::fact::End`].
    pub collector_cpu_us: Option<u64>,
    /// See [`crate::frame::fact::End`].
    pub peak_rate: Option<u64>,
    /// See [`crate::frame::fact::End`].
    pub stacks_held_back: u64,
    /// Half-open requests given up, see the tracker.
    pub requests_forgotten: u64,
    /// TIME_WAIT remnants that there was no room for.
    pub remnants_forgotten: u64,
    /// The kernel's counters against ours; None where they were not compared.
    pub residual: Option<Vec<Residual>>,
    /// Intervals of listeners' queues that were told.
    pub intervals: u64,
    /// Nanoseconds from the first frame to the last.
    pub elapsed_ns: u64,
}
