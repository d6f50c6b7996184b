//! Threads that unwind and name what the kernel programs copied: the rings of copies in, [`Answer`]s out.
//!
//! One on each CPU reads a process' mappings as soon as a stack of it was copied, for it may end right behind: it is woken there, in the
//! place of the process. Another one reads files of whoever is traced, which may lie on a file system that takes its time: nobody
//! waits for it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
    thread::{CpuSet, sched_setaffinity},
};
use tcptrace_common::stack::StackCopy;
use zerocopy::FromBytes as _;

use super::{
    processes::{Process, Processes},
    unwind::Unwinder,
};
use crate::{
    frame::{Frames, fact::StackFrame},
    kernel::{
        monotonic,
        ring::{Merge, Ring},
    },
};

/// Copies that are taken out of the ring at a time, bytes.
const BATCH: usize = 16 * size_of::<StackCopy>();
/// Copies that wait to be unwound at most, half a second's at the highest rate.
const WAITING: usize = 512;

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
    /// Closed, it ends the threads.
    _running: OwnedFd,
}

impl Resolver {
    /// Begin to take what comes into these rings, one of each CPU.
    ///
    /// # Errors
    /// There can be no threads, or no pipe.
    pub fn start(rings: Vec<Ring>) -> io::Result<Self> {
        let (ended, running) = pipe_with(PipeFlags::CLOEXEC)?;
        let (sender, answers) = channel();
        let (to_name, jobs) = sync_channel(WAITING);
        let ended = Arc::new(ended);
        // Not waited for at the end: they may hang in a file system.
        let begin = |name: &str| thread::Builder::new().name(name.to_owned());
        for (cpu, ring) in rings.into_iter().enumerate() {
            let (ended, jobs, refused) = (Arc::clone(&ended), to_name.clone(), sender.clone());
            begin("stacks-look").spawn(move || {
                make_haste(cpu);
                look(ring, &ended, &jobs, &refused);
            })?;
        }
        begin("stacks-name").spawn(move || name(&jobs, &sender))?;
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

/// A copy, and whose it is.
type Job = (Box<StackCopy>, Arc<Process>);

/// Take copies out of the ring, and look at their processes at once.
fn look(ring: Ring, ended: &OwnedFd, jobs: &SyncSender<Job>, answers: &Sender<Answer>) {
    let mut merge = Merge::new(vec![ring]);
    let mut frames = Frames::with_capacity(BATCH);
    let mut processes = Processes::default();
    loop {
        let more = !merge.drain(monotonic(), &mut frames, BATCH);
        for (copy, _) in frames.iter().filter_map(|record| StackCopy::ref_from_prefix(record).ok()) {
            let process = processes.of(copy);
            let Err(refused) = jobs.try_send((Box::new(*copy), process)) else { continue };
            // Whoever unwinds hangs in a file system: this one has no name.
            let lost = Answer { sock: copy.head.sock, seq: copy.head.seq, frames: Arc::from([]) };
            if matches!(refused, TrySendError::Disconnected(_)) || answers.send(lost).is_err() {
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

/// Let this thread run on that CPU, and before others that are ready there: it has little to do, and what it looks at may be about to end.
/// Where that is not permitted, or the CPU is off, it takes its turn.
fn make_haste(cpu: usize) {
    let mut here = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        here.set(cpu);
        let _ = sched_setaffinity(None, &here);
    }
    // SAFETY: of the calling thread alone (setpriority(2), NOTES).
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// Unwind and name.
fn name(jobs: &Receiver<Job>, answers: &Sender<Answer>) {
    let mut unwinder = Unwinder::default();
    while let Ok((copy, process)) = jobs.recv() {
        let frames = unwinder.unwind(&copy, &process).into();
        if answers.send(Answer { sock: copy.head.sock, seq: copy.head.seq, frames }).is_err() {
            return;
        }
    }
}
