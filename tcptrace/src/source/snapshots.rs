//! Snapshots on a thread of their own, merged with the stream by time: one at the start, and one after every loss.
//!
//! The stream is held back while a snapshot is taken. What the rows say is never newer than what the stream has said by the
//! time they are merged: the rings are drained once more after the last row was read.

use std::{
    sync::{
        Arc,
        mpsc::{self, TryRecvError},
    },
    time::Duration,
};

use crate::{
    frame::{Frames, fact},
    kernel::{
        Error, monotonic,
        snapshot::{Iterators, Taken},
    },
};

/// Stream frames held back for a snapshot, bytes. Past it the rows of the start come late, which the tracker copes with; a
/// later snapshot is given up and begun again.
pub(super) const HOLD: usize = 8 << 20;
/// A fresh snapshot waits until nothing was lost for so long, so that one serves a whole burst, nanoseconds …
const QUIET: u64 = 1_000_000_000;
/// … but no longer than this.
const PATIENCE: u64 = 5_000_000_000;
/// From the end of a snapshot to the begin of the next, nanoseconds.
const PAUSE: u64 = 5_000_000_000;
/// The same in durations of the snapshot, so that large hosts do not spend their time on it.
const PAUSE_FACTOR: u64 = 200;

/// The last one of a run has no time to wait until nothing is lost, but must not be younger than this: see
/// [`fact::Resync::UNHASHED_NS`].
const SETTLE: Duration = Duration::from_nanos(fact::Resync::UNHASHED_NS + 10_000_000);

/// See the module.
pub(super) struct Snapshots {
    iterators: Arc<Iterators>,
    netns: Vec<u32>,
    running: Option<Running>,
    /// Stream frames that wait for the snapshot.
    pub held: Frames,
    schedule: Schedule,
}

struct Running {
    taken: mpsc::Receiver<Taken>,
    /// Waited for and not merged yet.
    here: Option<Taken>,
    /// Not the one of the start.
    again: bool,
}

/// Which snapshot to take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Start,
    Again { after: Duration },
}

impl Snapshots {
    /// Begin that of the start.
    ///
    /// # Errors
    /// [`Error::Load`]: no thread could be had.
    pub fn start(iterators: Iterators, netns: Vec<u32>) -> Result<Self, Error> {
        let iterators = Arc::new(iterators);
        let running = Some(spawn(Arc::clone(&iterators), netns.clone(), Which::Start)?);
        Ok(Self { iterators, netns, running, held: Frames::default(), schedule: Schedule::default() })
    }

    /// Something was lost before `now`.
    pub fn lost(&mut self, now: u64) {
        self.schedule.lost(now);
    }

    /// Is one being taken?
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begin a fresh one if it is time to; `last`: there will be no other time.
    pub fn begin_if_due(&mut self, now: u64, last: bool) {
        if self.running.is_none() && self.schedule.is_due(now, last) {
            // Where no thread can be had there is another chance in a second.
            let which = Which::Again { after: if last { SETTLE } else { Duration::ZERO } };
            self.running = spawn(Arc::clone(&self.iterators), self.netns.clone(), which).ok();
            if self.running.is_some() {
                self.schedule.begun();
            }
        }
    }

    /// Wait for the one that is being taken.
    pub fn wait(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|running| running.here.is_none()) {
            running.here = Some(running.taken.recv().unwrap_or_default());
        }
    }

    /// The snapshot, once it is there; `wait` for it.
    pub fn poll(&mut self, wait: bool) -> Option<Taken> {
        let running = self.running.as_mut()?;
        if let Some(taken) = running.here.take() {
            return Some(taken);
        }
        let taken =
            if wait { running.taken.recv().map_err(|_| TryRecvError::Disconnected) } else { running.taken.try_recv() };
        match taken {
            Ok(taken) => Some(taken),
            Err(TryRecvError::Empty) => None,
            // The thread is gone: go on with what there is.
            Err(TryRecvError::Disconnected) => Some(Taken::default()),
        }
    }

    /// Hand out what is ready: rows and stream when the snapshot was `taken`, the stream alone when too much waits.
    pub fn merge(&mut self, taken: Option<Taken>, now: u64, frames: &mut Frames) {
        let again = self.running.as_ref().is_some_and(|running| running.again);
        let full = self.held.len() > HOLD;
        match taken {
            Some(taken) => {
                self.running = None;
                if let Some(resync) = &taken.fact.resync {
                    self.schedule.ended(resync.begin, now);
                }
                if again && (full || taken.fact.resync.is_none()) {
                    self.give_up(now, frames);
                } else {
                    merge_rows(&taken.rows, &self.held, frames);
                    frames.push_fact(fact::kind::SNAPSHOT, now, &taken.fact);
                }
                self.held = Frames::default();
            }
            None if full && again => {
                // Its thread ends by itself, and nobody listens.
                self.running = None;
                self.give_up(now, frames);
                self.held = Frames::default();
            }
            None if full => {
                frames.extend(self.held.as_bytes());
                self.held.clear();
            }
            None => {}
        }
    }

    /// Rows could not be put in time order with the stream any more: try again later.
    fn give_up(&mut self, now: u64, frames: &mut Frames) {
        frames.extend(self.held.as_bytes());
        self.schedule.lost(now);
    }
}

/// Run the iterators on a thread of its own, which they move between network namespaces.
fn spawn(iterators: Arc<Iterators>, netns: Vec<u32>, which: Which) -> Result<Running, Error> {
    let (send, taken) = mpsc::channel();
    std::thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || {
            let taken = match which {
                Which::Again { after } => {
                    std::thread::sleep(after);
                    iterators.again(&netns, monotonic())
                }
                Which::Start => iterators.take(&netns),
            };
            drop(send.send(taken));
        })
        .map_err(|e| Error::load("starting the snapshot", e))?;
    Ok(Running { taken, here: None, again: which != Which::Start })
}

/// Both in one order of time. Only in snapshots, so a sort of references will do.
fn merge_rows(rows: &Frames, stream: &Frames, out: &mut Frames) {
    let ts = |record: &[u8]| u64::from_le_bytes(record[..8].try_into().unwrap_or_default());
    let mut all: Vec<&[u8]> = rows.iter().chain(stream.iter()).filter(|r| r.len() >= 8).collect();
    all.sort_by_key(|record| ts(record));
    for record in all {
        out.push(0, record);
    }
}

/// When to take a fresh snapshot: time in, decision out.
#[derive(Default)]
struct Schedule {
    /// First and last loss since the last snapshot began.
    lost: Option<(u64, u64)>,
    /// No snapshot before this.
    not_before: u64,
}

impl Schedule {
    fn lost(&mut self, now: u64) {
        let first = self.lost.map_or(now, |(first, _)| first);
        self.lost = Some((first, now));
    }

    fn is_due(&self, now: u64, last: bool) -> bool {
        self.lost.is_some_and(|(first, latest)| {
            let ripe = now >= latest + QUIET || now >= first + PATIENCE;
            last || ripe && now >= self.not_before
        })
    }

    fn begun(&mut self) {
        self.lost = None;
    }

    fn ended(&mut self, begin: u64, now: u64) {
        let took = now.saturating_sub(begin);
        self.not_before = now + took.saturating_mul(PAUSE_FACTOR).max(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn nothing_lost_nothing_due() {
        let schedule = Schedule::default();
        assert!(!schedule.is_due(100 * S, false) && !schedule.is_due(100 * S, true));
    }

    #[test]
    fn one_serves_a_burst_and_one_more_comes_after_what_was_lost_meanwhile() {
        let mut schedule = Schedule::default();
        schedule.lost(10 * S);
        schedule.lost(11 * S);
        assert!(!schedule.is_due(11 * S + S / 2, false));
        assert!(schedule.is_due(12 * S, false));
        schedule.begun();
        schedule.lost(13 * S);
        schedule.ended(12 * S, 12 * S + 1000);
        assert!(!schedule.is_due(14 * S, false), "it is too early for the next");
        assert!(schedule.is_due(14 * S, true), "the run ends");
        assert!(schedule.is_due(18 * S, false));
        schedule.begun();
        assert!(!schedule.is_due(1000 * S, true), "the last state is right");
    }

    #[test]
    fn losses_without_end_do_not_put_it_off_for_ever() {
        let mut schedule = Schedule::default();
        (10..15).for_each(|s| schedule.lost(s * S));
        assert!(!schedule.is_due(14 * S, false));
        schedule.lost(15 * S);
        assert!(schedule.is_due(15 * S, false));
        schedule.begun();
        schedule.ended(15 * S, 15 * S + S / 10);
        schedule.lost(16 * S);
        assert!(!schedule.is_due(35 * S, false), "a slow one is not repeated at once");
        assert!(schedule.is_due(36 * S, false));
    }

    #[test]
    fn rows_and_stream_in_one_order() {
        let frames = |ts: &[u64]| {
            let mut frames = Frames::default();
            ts.iter().for_each(|ts| frames.push(0, &ts.to_le_bytes()));
            frames
        };
        let mut out = Frames::default();
        merge_rows(&frames(&[5, 3]), &frames(&[1, 4, 9]), &mut out);
        let order: Vec<u8> = out.iter().map(|record| record[0]).collect();
        assert_eq!(order, [1, 3, 4, 5, 9]);
    }
}
