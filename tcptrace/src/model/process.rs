//! Processes, as owners and actors.

use std::sync::Arc;

use super::Cgroup;

/// A process at the moment it opened, accepted or touched a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Thread group, in the initial pid namespace.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// User id.
    pub uid: u32,
    /// Name of the thread-group leader, NUL-padded, not escaped.
    pub comm: [u8; 16],
    /// cgroup id (v2).
    pub cgroup_id: u64,
    /// That cgroup; None where its path is not known.
    pub cgroup: Option<Arc<Cgroup>>,
    /// When the thread-group leader started, CLOCK_MONOTONIC nanoseconds.
    pub started: u64,
}

/// The bytes of a name up to its padding.
#[must_use]
pub fn comm_str(comm: &[u8; 16]) -> &[u8] {
    let end = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
    &comm[..end]
}
