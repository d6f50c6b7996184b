//! A thread that unwinds and names what the kernel programs copied: the ring of copies in, [`Answer`]s out.
//!
//! It reads files of whoever is traced, which may lie on a file system that takes its time: nobody waits for it. What is unwound is a
//! process that goes on meanwhile, and may end: its mappings are read first of all.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
};
use tcptrace_common::stack::StackCopy;
use zerocopy::FromBytes as _;

use super::{maps, modules::Modules, unwind};
use crate::{
    frame::{Frames, fact::StackFrame},
    kernel::{
        monotonic,
        ring::{Merge, Ring},
    },
};

/// Copies that are taken out of the ring at a time, bytes.
const BATCH: usize = 16 * size_of::<StackCopy>();

/// What became of a copy.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Cookie of the socket.
    pub sock: u64,
    /// Number of the record that told of the copy.
    pub seq: u16,
    /// Innermost first; empty: nothing could be learnt of it.
    pub frames: Arc<[StackFrame]>,
}

/// See the module.
pub struct Resolver {
    answers: Receiver<Answer>,
    /// Closed, it ends the thread.
    _running: OwnedFd,
}

impl Resolver {
    /// Begin to take what comes into this ring.
    ///
    /// # Errors
    /// There can be no thread, or no pipe.
    pub fn start(ring: Ring) -> io::Result<Self> {
        let (ended, running) = pipe_with(PipeFlags::CLOEXEC)?;
        let (sender, answers) = channel();
        // Not waited for at the end: it may hang in a file system.
        thread::Builder::new().name("stacks".to_owned()).spawn(move || work(ring, &ended, &sender))?;
        Ok(Self { answers, _running: running })
    }

    /// What is there.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.answers.try_iter()
    }

    /// The next one, if it comes in time.
    ///
    /// # Errors
    /// It did not.
    pub fn wait(&self, time: Duration) -> Result<Answer, RecvTimeoutError> {
        self.answers.recv_timeout(time)
    }
}

fn work(ring: Ring, ended: &OwnedFd, sender: &Sender<Answer>) {
    let mut merge = Merge::new(vec![ring]);
    let mut frames = Frames::with_capacity(BATCH);
    let mut stacks = Stacks::new();
    loop {
        let more = !merge.drain(monotonic(), &mut frames, BATCH);
        let copies = frames.iter().filter_map(|record| StackCopy::ref_from_prefix(record).ok());
        for (copy, _) in copies {
            let frames = stacks.resolve(copy).into();
            if sender.send(Answer { sock: copy.head.sock, seq: copy.head.seq, frames }).is_err() {
                return;
            }
        }
        frames.clear();
        if more {
            continue;
        }
        let Some(ring) = merge.rings().first() else { return };
        let ring = ring.as_fd();
        let mut wanted = [PollFd::new(&ring, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut wanted, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if !wanted[1].revents().is_empty() {
            return;
        }
    }
}

/// Unwinds one copy after the other.
pub struct Stacks {
    modules: Modules,
    cache: unwind::Cache,
    /// Numbers of processes here are those that the kernel programs tell.
    numbers_agree: bool,
}

impl Stacks {
    /// Nothing is read yet.
    pub fn new() -> Self {
        /// Inode number of the initial pid namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h).
        const INITIAL: u64 = 0xeffffffc;
        let numbers_agree = fs::metadata("/proc/self/ns/pid").is_ok_and(|meta| meta.ino() == INITIAL);
        Self { modules: Modules::default(), cache: unwind::Cache::new(), numbers_agree }
    }

    /// The frames of a copied stack.
    pub fn resolve(&mut self, copy: &StackCopy) -> Vec<StackFrame> {
        if !self.numbers_agree {
            return Vec::new();
        }
        // The process may be gone: then nothing is known of it.
        let mappings = maps::executable(copy.pid).unwrap_or_default();
        unwind::unwind(copy, &mappings, &mut self.modules, &mut self.cache)
    }
}
