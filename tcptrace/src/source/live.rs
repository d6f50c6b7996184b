//! The live kernel as a source: rings, snapshots, losses and the clock in, frames out.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
    task::Poll,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

use super::{
    Source,
    intervals::Intervals,
    received::Looking,
    snapshots::{HOLD, Snapshots},
    stacks::Stacks,
};
use crate::{
    error::Result,
    frame::{Frames, fact},
    kernel::{
        Error,
        audit::{self, Audit},
        cgroup::Cgroups,
        facts::{self, Facts},
        load::{self, Loaded, Settings},
        monotonic,
        processes::Processes,
        ring::Merge,
    },
};

/// All rings together, unless the command line says otherwise: 8 MB hold two producers at full speed.
pub const DEFAULT_BUFFER: u64 = 8 << 20;
/// Period of [`Settings`] when somebody watches.
pub const PROMPT: Duration = Duration::from_millis(20);
/// Period of [`Settings`] when the output goes to a file: every wakeup finds cold caches, so fewer are cheaper. A ring that fills
/// wakes the collector earlier.
pub const RELAXED: Duration = Duration::from_millis(100);
/// After so long without a record even somebody who watches is served at the relaxed period: nothing is due that would be late.
const QUIET: u64 = SECOND;
/// Frames handed out in one batch, bytes.
const BATCH: usize = 1 << 20;
/// How often losses are read, ticks and clock changes told.
const SECOND: u64 = 1_000_000_000;
/// How soon frames are looked at again that wait for a stack.
const HELD_PERIOD: Duration = Duration::from_millis(5);
/// A change of the wall clock that is worth telling.
const CLOCK_STEP_NS: i64 = 1_000_000;

/// See the module.
pub struct Live {
    loaded: Loaded,
    merge: Merge,
    wakeups: Vec<AsyncFd<RawFd>>,
    /// [`Settings::period`].
    period: Duration,
    /// When the rings are looked at next.
    due: Instant,
    /// Records so far, and CLOCK_MONOTONIC when they became so many.
    busy: (u64, u64),
    snapshots: Snapshots,
    /// None: nothing is known about queues.
    intervals: Option<Intervals>,
    /// None: no processes are followed.
    _received: Option<Looking>,
    /// None: they are not wanted.
    stacks: Option<Stacks>,
    audit: Audit,
    cgroups: Cgroups,
    clock_offset: i64,
    next_second: u64,
    rate: Rate,
    /// The last drain stopped at its limit: do not wait.
    more: bool,
    phase: Phase,
    /// The last chance to repair what losses did was taken.
    repaired: bool,
    start: fact::Start,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Running,
    Stopping,
    Ended,
}

#[derive(Default)]
struct Rate {
    since: u64,
    records: u64,
    peak: u64,
}

impl Live {
    /// Load, attach, and begin the snapshot. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What [`facts::check`], [`load::resolve`] and [`load::load`] refuse.
    pub fn start(settings: &Settings, mut start: fact::Start) -> Result<Self, Error> {
        let facts = Facts::gather();
        facts::check(&facts)?;
        let (resolved, types) = load::resolve(&facts)?;
        let (mut loaded, rings) = load::load(&resolved, types, settings)?;
        let wakeups = rings
            .iter()
            .map(|ring| {
                // SAFETY: the ring owns the descriptor and outlives the registration: both are fields of `Live`, and wakeups
                // are dropped with it.
                unsafe { AsyncFd::register_with_interest(ring.as_fd().as_raw_fd(), Interest::READABLE) }
                    .map_err(|e| Error::load("waiting for the rings", e))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let iterators = loaded.iterators.take().ok_or_else(|| Error::missing("iter_tcp"))?;
        let snapshots = Snapshots::start(iterators, settings.filter.netns.clone())?;
        let received = loaded.received.take().map(Looking::start).transpose()?;
        let intervals = loaded.sampler.take().map(Intervals::start).transpose()?;
        let copies = std::mem::take(&mut loaded.stacks);
        let stacks = if copies.is_empty() { None } else { Some(Stacks::start(copies)?) };
        for signal in &loaded.signals {
            start.signals.push((signal.name.to_owned(), signal.hook.clone().unwrap_or_else(|| "none".to_owned())));
            if signal.hook.is_none() || !signal.exact {
                start.degraded.push(signal.name.to_owned());
            }
        }
        Ok(Self {
            loaded,
            merge: Merge::new(rings),
            wakeups,
            period: settings.period,
            due: Instant::now(),
            busy: (0, monotonic()),
            snapshots,
            intervals,
            _received: received,
            stacks,
            audit: Audit::default(),
            cgroups: Cgroups::new(settings.patience),
            clock_offset: 0,
            next_second: 0,
            rate: Rate::default(),
            more: false,
            phase: Phase::Begin,
            repaired: false,
            start,
        })
    }

    /// The processes that are followed.
    ///
    /// # Errors
    /// As [`Loaded::processes`].
    pub fn processes(&self) -> Result<Processes, Error> {
        self.loaded.processes()
    }

    /// Wait until the snapshot of the start has been taken: what it is to find does not change before.
    pub fn look_around(&mut self) {
        self.snapshots.wait();
    }

    /// Until the period has passed or the kernel woke us.
    async fn wait(&mut self) {
        let wakeups = &mut self.wakeups;
        let woken = std::future::poll_fn(|cx| {
            for ring in wakeups.iter_mut() {
                // The registration is edge-triggered: clear before the drain, so that a wakeup during it sets it again.
                if let Poll::Ready(Ok(mut guard)) = ring.poll_read_ready_mut(cx) {
                    guard.clear_ready();
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        });
        tokio::select! {
            () = woken => {}
            () = sleep_until(self.due) => {}
        }
    }

    /// How long the rings may be left alone.
    fn pause(&mut self, now: u64) -> Duration {
        if self.merge.records != self.busy.0 {
            self.busy = (self.merge.records, now);
        }
        let longest = if now.saturating_sub(self.busy.1) > QUIET { RELAXED.max(self.period) } else { self.period };
        self.intervals.as_ref().map_or(longest, |intervals| intervals.due(now).clamp(self.period, longest))
    }

    /// Take what the rings have; while a snapshot is taken, hold it back and merge both by time.
    fn drain(&mut self, frames: &mut Frames) {
        if !self.snapshots.is_running() {
            self.more = !self.merge.drain(monotonic(), frames, BATCH);
            return;
        }
        let taken = self.snapshots.poll(self.phase == Phase::Stopping);
        // Read only now: the stream must not be behind the rows.
        let now = monotonic();
        self.more = !self.merge.drain(now, &mut self.snapshots.held, HOLD + BATCH);
        self.snapshots.merge(taken, now, frames);
    }

    fn each_second(&mut self, now: u64, frames: &mut Frames) {
        self.next_second = now + SECOND;
        self.loaded.flush_log();
        for loss in self.audit.losses(&self.loaded) {
            frames.push_fact(fact::kind::LOSS, now, &loss);
            self.snapshots.lost(now);
        }
        self.snapshots.begin_if_due(now, self.phase == Phase::Stopping && !self.repaired);
        self.repaired = self.phase == Phase::Stopping;
        let offset = clock_offset();
        if (offset - self.clock_offset).abs() > CLOCK_STEP_NS {
            self.clock_offset = offset;
            frames.push_fact(fact::kind::CLOCK, now, &fact::Clock { offset_ns: offset });
        }
        frames.push_fact(fact::kind::TICK, now, &());
        let span = now.saturating_sub(self.rate.since).max(1);
        let rate = (self.merge.records - self.rate.records) * SECOND / span;
        self.rate = Rate { since: now, records: self.merge.records, peak: self.rate.peak.max(rate) };
    }

    fn end_fact(&self) -> fact::End {
        let ran = audit::run_stats(&self.loaded);
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        fact::End {
            records: self.merge.records,
            late: self.merge.late,
            kernel_ns_per_event: ran.time_ns.checked_div(ran.count),
            collector_cpu_us: cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1000,
            peak_rate: self.rate.peak,
            stacks_held_back: audit::stacks_held_back(&self.loaded),
        }
    }
}

impl Source for Live {
    const LIVE: bool = true;

    async fn next(&mut self, frames: &mut Frames) -> Result<bool> {
        match self.phase {
            Phase::Begin => {
                let now = monotonic();
                self.clock_offset = clock_offset();
                frames.push_fact(fact::kind::START, now, &self.start);
                frames.push_fact(fact::kind::CLOCK, now, &fact::Clock { offset_ns: self.clock_offset });
                self.next_second = now + SECOND;
                self.rate.since = now;
                self.phase = Phase::Running;
                return Ok(true);
            }
            Phase::Ended => return Ok(false),
            Phase::Stopping => {}
            Phase::Running => {
                if !self.more {
                    self.wait().await;
                }
            }
        }
        let before = frames.len();
        self.drain(frames);
        let now = monotonic();
        self.cgroups.tell(frames, before);
        if let Some(intervals) = &mut self.intervals {
            intervals.watch(frames, before);
            // Behind the rows of a snapshot.
            if !self.snapshots.is_running() {
                intervals.poll(now, frames);
            }
        }
        self.due = Instant::now() + self.pause(now);
        if now >= self.next_second || self.phase == Phase::Stopping {
            self.each_second(now, frames);
        }
        let stopping = self.phase == Phase::Stopping;
        if let Some(stacks) = &mut self.stacks {
            if stopping && stacks.is_holding() {
                stacks.wait();
            }
            // Behind all that others put in between.
            stacks.pass(monotonic(), frames);
        }
        let holding = self.stacks.as_ref().is_some_and(Stacks::is_holding);
        if holding {
            self.due = self.due.min(Instant::now() + HELD_PERIOD);
        }
        if stopping && !self.more && !self.snapshots.is_running() && !holding {
            if let Some(intervals) = &mut self.intervals {
                intervals.finish(frames);
            }
            let now = monotonic();
            frames.push_fact(fact::kind::END, now, &self.end_fact());
            self.phase = Phase::Ended;
        }
        Ok(true)
    }

    fn stop(&mut self) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Stopping;
        }
    }
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC: the pair with the shortest distance between its two readings of three.
fn clock_offset() -> i64 {
    (0..3)
        .map(|_| {
            let before = monotonic() as i64;
            let real = clock_gettime(ClockId::Realtime);
            let after = monotonic() as i64;
            let real = real.tv_sec * SECOND as i64 + real.tv_nsec;
            (after - before, real - (before + after) / 2)
        })
        .min()
        .map_or(0, |(_, offset)| offset)
}

/// When a tokio deadline is due; kept here so that nothing else needs tokio's clock.
#[must_use]
pub fn after(duration: Duration) -> Instant {
    Instant::now() + duration
}
