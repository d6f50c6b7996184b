//! Whose stacks were copied: the executable mappings of each process, read once for as long as they stay the same.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tcptrace_common::stack::StackCopy;

use super::maps::{self, Mapping};

/// Numbers that were given to processes, by any thread.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Processes that are kept.
const MOST: usize = 1024;

/// What a process has mapped.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Tells apart what was read at different times.
    pub number: u64,
    /// Thread group.
    pub pid: u32,
    /// Executable mappings, by their addresses; none: it is gone.
    pub mappings: Vec<Mapping>,
}

/// See the module.
#[derive(Debug)]
pub struct Processes {
    /// By thread group and `mm_struct`, with the number of executable pages.
    known: HashMap<(u32, u64), (u64, Arc<Process>)>,
    /// Numbers of processes here are those that the kernel programs tell.
    numbers_agree: bool,
}

impl Default for Processes {
    fn default() -> Self {
        /// Inode number of the initial pid namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h).
        const INITIAL: u64 = 0xefff_fffc;
        let numbers_agree = fs::metadata("/proc/self/ns/pid").is_ok_and(|meta| meta.ino() == INITIAL);
        Self { known: HashMap::new(), numbers_agree }
    }
}

impl Processes {
    /// The process of a copy, as it is or, if it has ended since, as it was when one of its stacks was copied last.
    pub fn of(&mut self, copy: &StackCopy) -> Arc<Process> {
        let key = (copy.pid, copy.mm);
        if let Some((pages, process)) = self.known.get(&key)
            && copy.mm != 0
            && *pages == copy.exec_pages
        {
            return Arc::clone(process);
        }
        let mappings = if self.numbers_agree { maps::executable(copy.pid).unwrap_or_default() } else { Vec::new() };
        let number = LAST.fetch_add(1, Relaxed);
        let process = Arc::new(Process { number, pid: copy.pid, mappings });
        if copy.mm != 0 && !process.mappings.is_empty() {
            if self.known.len() >= MOST {
                self.known.clear();
            }
            self.known.insert(key, (copy.exec_pages, Arc::clone(&process)));
        }
        process
    }
}
