//! Processes, as owners and actors.

use std::sync::Arc;

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
    pub cgroup: u64,
    /// Path of that cgroup below the mount of its hierarchy, `/system.slice/nginx.service`; None where it is not known.
    pub cgroup_path: Option<Arc<str>>,
    /// When the thread-group leader started, CLOCK_MONOTONIC nanoseconds.
    pub started: u64,
}

/// The bytes of a name up to its padding.
#[must_use]
pub fn comm_str(comm: &[u8; 16]) -> &[u8] {
    let end = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
    &comm[..end]
}
