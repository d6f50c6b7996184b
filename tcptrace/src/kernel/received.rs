//! Sockets that processes which are followed were given by others: looked for among their descriptors.
//!
//! The iterator writes its records into the rings, among those of everything else, and knows what it has told.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    bpf::{self, Walk},
    processes::Processes,
    snapshot::read,
};

/// See the module.
pub struct Received {
    program: OwnedFd,
    processes: Processes,
    /// The descriptors of single processes cannot be had.
    everywhere: bool,
}

impl Received {
    pub(super) fn new(program: OwnedFd, processes: Processes) -> Self {
        Self { program, processes, everywhere: false }
    }

    /// Look once. What cannot be looked at now is looked at the next time.
    pub fn look(&mut self) {
        if !self.everywhere {
            let each =
                self.processes.listed().filter(|&pid| runs(pid)).try_for_each(|pid| self.run(Walk::Process(pid)));
            // Before Linux 6.1 no run is of one process: the program then passes over the others' descriptors.
            self.everywhere = each.is_err();
        }
        if self.everywhere {
            // An iterator that the kernel has no memory for now.
            let _ = self.run(Walk::All);
        }
    }

    /// One run. A link that is kept for each process would be as many descriptors.
    fn run(&self, walk: Walk<'_>) -> io::Result<()> {
        let link = bpf::link_iterator(self.program.as_fd(), walk)?;
        read(&link).map(drop)
    }
}

/// Has this process not ended?
fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}
