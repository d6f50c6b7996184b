//! Intervals: listeners and the kernel's counters, read on a thread of their own, put into the stream as they come.

use std::{collections::HashSet, sync::mpsc, time::Duration};

use tcptrace_common::record::{Open, kind};
use zerocopy::FromBytes as _;

use crate::{
    frame::Frames,
    kernel::{
        Error,
        sampler::{Ask, Sampler},
    },
};

/// How long the last reading may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Namespaces that are remembered.
const NAMESPACES: usize = 4096;

/// See the module.
pub(super) struct Intervals {
    ask: mpsc::Sender<Ask>,
    answer: mpsc::Receiver<Frames>,
    /// The reading at the start, until it is handed out.
    first: Option<Frames>,
    /// CLOCK_MONOTONIC of the next reading.
    next: u64,
    interval: u64,
    /// Asked, and not answered yet.
    waiting: bool,
    /// Namespaces that somebody opened a connection in.
    namespaces: HashSet<u32>,
}

impl Intervals {
    /// Begin with a reading: what the kernel's counters say at the start is not of the first interval. Returns when it has been made:
    /// from then on every event is counted.
    ///
    /// # Errors
    /// [`Error::Load`]: no thread could be had.
    pub fn start(sampler: Sampler) -> Result<Self, Error> {
        let (ask, asked) = mpsc::channel();
        let (answered, answer) = mpsc::channel();
        let interval = u64::try_from(sampler.interval.as_nanos()).unwrap_or(u64::MAX);
        std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sampler.run(&asked, &answered))
            .map_err(|e| Error::load("starting the sampler", e))?;
        let mut intervals =
            Self { ask, answer, first: None, next: 0, interval, waiting: false, namespaces: HashSet::new() };
        intervals.ask(false);
        intervals.first = intervals.answer.recv_timeout(PATIENCE).ok();
        Ok(intervals)
    }

    fn ask(&mut self, last: bool) {
        // A sampler that is gone never answers, and is not asked again.
        self.waiting = true;
        let _ = self.ask.send(Ask::Sample { last });
    }

    /// Look for new listeners and connections in the frames from `start` on: their namespaces may have had none.
    pub fn watch(&mut self, frames: &Frames, start: usize) {
        for record in frames.iter_from(start) {
            let listens = match record.get(16) {
                Some(&kind::LISTEN) => true,
                Some(&kind::OPEN) => false,
                _ => continue,
            };
            // A LISTEN begins like an OPEN.
            let Ok((Open { tuple, owner, .. }, _)) = Open::read_from_prefix(record) else { continue };
            if self.namespaces.len() >= NAMESPACES {
                self.namespaces.clear();
            }
            if self.namespaces.insert(tuple.netns) || listens {
                let _ = self.ask.send(Ask::Lives { netns: tuple.netns, pid: owner.pid });
            }
        }
    }

    /// How long until [`Self::poll`] has something to do.
    pub fn due(&self, now: u64) -> Duration {
        if self.waiting { Duration::ZERO } else { Duration::from_nanos(self.next.saturating_sub(now)) }
    }

    /// Hand out a reading that is there, and ask for the next when it is time to.
    pub fn poll(&mut self, now: u64, frames: &mut Frames) {
        if self.waiting {
            let Some(answer) = self.first.take().or_else(|| self.answer.try_recv().ok()) else { return };
            frames.extend(answer.as_bytes());
            self.waiting = false;
            // On a grid, unless readings take longer than that.
            self.next = if self.next == 0 { now } else { self.next }.saturating_add(self.interval).max(now);
        }
        if now >= self.next {
            self.ask(false);
        }
    }

    /// The last reading.
    pub fn finish(&mut self, frames: &mut Frames) {
        if self.waiting {
            self.receive(frames);
        }
        self.ask(true);
        self.receive(frames);
    }

    fn receive(&mut self, frames: &mut Frames) {
        let first = self.first.take();
        if let Some(answer) = first.or_else(|| self.answer.recv_timeout(PATIENCE).ok()) {
            frames.extend(answer.as_bytes());
        }
        self.waiting = false;
    }
}
