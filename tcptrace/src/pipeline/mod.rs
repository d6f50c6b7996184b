//! The one place where everything is wired: source → recording → decoder → tracker → gate → sink.
//!
//! What is printed depends on the frames alone, so that a replay prints what the live run printed. Only messages on stderr
//! look at clocks.

use std::future::Future;

use tcptrace_common::record::Head;
use zerocopy::FromBytes;

use crate::{
    decode::{Event, decode},
    error::{Error, Result},
    filter::Filter,
    frame::{Frames, fact},
    sink::{Sink, Summary},
    source::Source,
    tracker::{Stats, Tracker},
};

mod flight;
mod gate;
mod gather;
mod ladders;
mod messages;
mod numbered;
mod rotation;
mod shipped;
mod tape;
#[cfg(test)]
mod tests;
mod watched;

pub use flight::Flight;
pub use gate::{Gate, Records};
pub use gather::Gather;
pub use ladders::Ladders;
pub use messages::{Messages, say};
pub use rotation::Rotation;
pub use shipped::draw;
pub use tape::{Deck, Kept, Recorded, Tape, record};
pub use watched::Watched;

/// Facts have kinds from here on, kernel records below.
const FIRST_FACT: u8 = fact::kind::START;
/// Rows of the start snapshot have kinds from here on; below it are what the rings brought.
const FIRST_ROW: u8 = tcptrace_common::record::kind::SOCKET;

/// Asks for the end of a run: a signal, or `--duration`.
pub trait Stop {
    /// Resolves when the run shall end; when called again, when it shall end at once. Cancel safe.
    fn wanted(&mut self) -> impl Future<Output = ()>;

    /// What is traced makes no more connections, and the run is to end as soon as those that there are do.
    fn is_settling(&self) -> bool {
        false
    }

    /// Was SIGUSR1 received since this was asked last?
    fn poked(&mut self) -> bool {
        false
    }

    /// The run ends, for whatever reason: from now on only who wants it to end at once is to be heard.
    fn stopped(&mut self) {}
}

/// Run to the end of the source, or until `stop` wants, `--count` is reached or the output fails. A recording is closed
/// properly in every case.
///
/// # Errors
/// The source, the output or the recording failed. What was received before has been printed.
pub async fn run<S: Source, K: Sink>(
    source: &mut S,
    mut tape: Option<Tape>,
    gate: Gate<K>,
    messages: Messages,
    limit_ns: Option<u64>,
    stop: &mut impl Stop,
) -> Result<()> {
    let mut run = Run::new(gate, messages, limit_ns);
    let result = drive(source, &mut tape, &mut run, stop).await;
    let finished = tape.map_or(Ok(()), |tape| tape.finish(run.lost).map(|_| ()));
    // What was received is printed even if the source failed, unless it is the output that failed.
    let printed = if run.output_failed { Ok(()) } else { run.finish() };
    result.and(printed).and(finished)
}

/// The source's next batch, or its order to stop when that is wanted: is there more? None: it is wanted a second time.
async fn next_batch(
    source: &mut impl Source,
    frames: &mut Frames,
    stop: &mut impl Stop,
    stopping: &mut bool,
) -> Option<Result<bool>> {
    tokio::select! {
        biased;
        () = stop.wanted() => {}
        next = source.next(frames) => return Some(next),
    }
    if *stopping {
        return None;
    }
    *stopping = true;
    stop.stopped();
    source.stop();
    Some(Ok(true))
}

async fn drive<S: Source, K: Sink>(
    source: &mut S,
    tape: &mut Option<Tape>,
    run: &mut Run<K>,
    stop: &mut impl Stop,
) -> Result<()> {
    let mut frames = Frames::with_capacity(1 << 20);
    let mut stopping = false;
    loop {
        let Some(more) = next_batch(source, &mut frames, stop, &mut stopping).await else { return Ok(()) };
        let recorded = match tape {
            Some(tape) => tape.write(&frames),
            None => Ok(()),
        };
        for record in frames.iter() {
            run.record(record)?;
        }
        frames.clear();
        run.batch()?;
        recorded?;
        if !more? {
            return Ok(());
        }
        let settled = stop.is_settling() && run.tracker.live() == 0;
        if S::LIVE && (run.skip || settled) && !stopping {
            stopping = true;
            stop.stopped();
            source.stop();
        }
        // A source that never waits would keep signals from being seen.
        tokio::task::yield_now().await;
    }
}

struct Run<K> {
    gate: Gate<K>,
    messages: Messages,
    tracker: Tracker,
    /// What the tracker had counted at the last fresh snapshot.
    resynced: Stats,
    /// Waits for the clock that its time is shown by.
    start: Option<(u64, Box<fact::Start>)>,
    /// Connections are reported up to here.
    limit_ns: Option<u64>,
    /// Nothing more is printed but losses and the summary.
    skip: bool,
    /// Connections that were open at the end have been reported.
    closed: bool,
    first_ts: Option<u64>,
    last_ts: u64,
    /// Nanoseconds of recordings before this one whose clocks were others: those of other hosts, or from before a boot.
    elapsed_before: u64,
    /// What came up to here has been shown.
    shown_ts: u64,
    events: u64,
    lost: u64,
    undecodable: u64,
    end: Option<fact::End>,
    /// It is a part of a trace: what its end says is of all of it.
    cut: bool,
    output_failed: bool,
}

impl<K: Sink> Run<K> {
    fn new(gate: Gate<K>, messages: Messages, limit_ns: Option<u64>) -> Self {
        Self {
            gate,
            messages,
            tracker: Tracker::new(),
            resynced: Stats::default(),
            start: None,
            limit_ns,
            skip: false,
            closed: true,
            first_ts: None,
            last_ts: 0,
            elapsed_before: 0,
            shown_ts: 0,
            events: 0,
            lost: 0,
            undecodable: 0,
            end: None,
            cut: false,
            output_failed: false,
        }
    }

    #[inline]
    fn record(&mut self, record: &[u8]) -> Result<()> {
        let Ok((&Head { ts, kind, .. }, _)) = Head::ref_from_prefix(record) else {
            self.undecodable += 1;
            return Ok(());
        };
        // Rows of the snapshot are older than what they come after.
        self.last_ts = self.last_ts.max(ts);
        if kind < FIRST_FACT {
            self.events += u64::from(kind < FIRST_ROW);
            if self.skip {
                return Ok(());
            }
            if let Some(limit) = self.limit_ns
                && ts > limit.saturating_add(self.first_ts.unwrap_or(ts))
            {
                self.cut(limit);
                return Ok(());
            }
        }
        let event = match decode(record) {
            Ok(event) => event,
            Err(e) => {
                self.undecodable += 1;
                self.messages.verbose(|| e.to_string());
                return Ok(());
            }
        };
        if kind < FIRST_FACT {
            self.print_start();
            self.shown_ts = self.last_ts;
            self.track(&event);
            if self.gate.is_done() {
                self.skip = true;
            }
            return Ok(());
        }
        self.fact(ts, event)
    }

    fn fact(&mut self, ts: u64, event: Event) -> Result<()> {
        match event {
            Event::Start(start) => {
                // Recordings can be written one behind the other.
                self.close(self.last_ts);
                let filter = Filter::from_pairs(&start.filters).map_err(|e| {
                    let reason = format!("{e}; it was made by tcptrace {}", start.version);
                    Error::io("apply the recording's filters", std::io::Error::other(reason))
                })?;
                self.gate.set_recorded(filter);
                if let Some(cut) = &start.cut {
                    self.cut = true;
                    // Not where the parts of a trace are read one behind the other.
                    if self.first_ts.is_none() {
                        self.messages.cut(cut);
                    }
                }
                if ts < self.last_ts {
                    self.elapsed_before += self.last_ts.saturating_sub(self.first_ts.unwrap_or(self.last_ts));
                    (self.first_ts, self.last_ts, self.shown_ts) = (None, ts, ts);
                }
                // What is carried over a cut is older than what was asked for.
                self.first_ts.get_or_insert(start.cut.map_or(ts, |cut| cut.at));
                self.closed = false;
                if let Some(detect) = &mut self.gate.detect {
                    detect.start();
                }
                self.tracker.event(&Event::Start(start.clone()), &mut self.gate);
                self.start = Some((ts, start));
                return Ok(());
            }
            Event::Clock(clock) => self.gate.sink.clock(clock.offset_ns),
            Event::Loss(ts, ref loss) => {
                self.print_start();
                self.lost += loss.count;
                self.messages.loss(ts, loss);
                self.gate.sink.loss(ts, loss);
            }
            Event::Tick(ts) => {
                self.messages.tick(ts, self.events, self.tracker.live(), self.lost);
                if !self.skip {
                    self.shown_ts = self.last_ts;
                    self.tell_groups(false);
                }
                self.gate.check(ts);
                if let Some(ladders) = &mut self.gate.ladders {
                    ladders.prune(self.tracker.live(), self.tracker.ids());
                }
                self.gate.draw(ts, false);
            }
            Event::Snapshot(_, ref snapshot) => {
                self.print_start();
                if !self.skip {
                    self.track(&event);
                }
                if snapshot.resync.is_some() {
                    let now = self.tracker.stats();
                    self.messages.resync(snapshot, std::mem::replace(&mut self.resynced, now), now);
                } else {
                    self.messages.snapshot(snapshot, self.gate.counts.found);
                }
                return Ok(());
            }
            Event::End(ts, end) => {
                self.print_start();
                if !self.skip {
                    self.shown_ts = ts;
                }
                self.close(ts);
                let before = self.end.get_or_insert_default();
                before.records += end.records;
                before.late += end.late;
                before.collector_cpu_us += end.collector_cpu_us;
                before.stacks_held_back += end.stacks_held_back;
                before.peak_rate = before.peak_rate.max(end.peak_rate);
                before.kernel_ns_per_event = end.kernel_ns_per_event.or(before.kernel_ns_per_event);
                return Ok(());
            }
            // Kernel records do not come here.
            _ => {}
        }
        self.print_start();
        if !self.skip {
            self.shown_ts = self.last_ts;
            self.track(&event);
            // `--count` of intervals.
            self.skip |= self.gate.is_done();
        }
        Ok(())
    }

    /// Connections by what they have in common, as they stand.
    fn tell_groups(&mut self, last: bool) {
        let elapsed = self.elapsed_before + self.shown_ts.saturating_sub(self.first_ts.unwrap_or(self.shown_ts));
        self.gate.tell_groups(self.shown_ts, elapsed / 1000, last);
    }

    #[inline]
    fn track(&mut self, event: &Event) {
        if let Event::Forked(f) = event {
            self.gate.forked(f.parent, f.child);
        }
        self.tracker.event(event, &mut self.gate);
        while let Some(cookie) = self.gate.stopped.pop() {
            self.tracker.forget(cookie);
        }
    }

    /// `--duration` of a replay is over.
    fn cut(&mut self, limit: u64) {
        let at = limit.saturating_add(self.first_ts.unwrap_or(0));
        self.shown_ts = at;
        self.close(at);
        self.skip = true;
    }

    /// Report what is still open.
    fn close(&mut self, ts: u64) {
        if !std::mem::replace(&mut self.closed, true) && !self.skip {
            self.gate.check(ts);
            self.tracker.finish(ts, &mut self.gate);
            self.gate.draw(ts, true);
            self.gate.sink.ended(ts);
        }
    }

    #[inline]
    fn print_start(&mut self) {
        if self.start.is_some() {
            self.print_start_now();
        }
    }

    #[cold]
    fn print_start_now(&mut self) {
        if let Some((ts, start)) = self.start.take() {
            let options = self.gate.options();
            self.gate.sink.start(ts, &start, &options);
        }
    }

    fn batch(&mut self) -> Result<()> {
        for note in self.gate.notes.drain(..) {
            self.messages.verbose(|| note);
        }
        let flushed = self.gate.sink.flush(false);
        self.output_failed = flushed.is_err();
        flushed
    }

    /// Whatever happened: what is open, then the summary.
    fn finish(&mut self) -> Result<()> {
        self.print_start();
        self.close(self.last_ts);
        let counts = self.gate.counts;
        let tracked = self.tracker.stats();
        let whole = self.gate.options().iter().all(|(name, _)| name == "netns");
        let end = self.end.as_ref().filter(|_| !self.cut);
        let summary = Summary {
            events: end.map_or(self.events, |e| e.records),
            lost: self.lost,
            late: end.map(|e| e.late),
            transitions: counts.transitions,
            connections: counts.connections,
            gaps: counts.gaps,
            impossible: counts.impossible,
            undecodable: self.undecodable,
            held_dropped: counts.held_dropped,
            kernel_ns_per_event: end.and_then(|e| e.kernel_ns_per_event),
            collector_cpu_us: end.map(|e| e.collector_cpu_us),
            peak_rate: end.map(|e| e.peak_rate),
            stacks_held_back: end.map_or(0, |e| e.stacks_held_back),
            requests_forgotten: tracked.requests_forgotten,
            remnants_forgotten: tracked.remnants_forgotten,
            residual: self.tracker.residual().filter(|_| whole).map(<[_]>::to_vec),
            intervals: counts.intervals,
            elapsed_ns: self.elapsed_before + self.last_ts.saturating_sub(self.first_ts.unwrap_or(self.last_ts)),
        };
        // A file that is no recording has neither begin nor end.
        if self.first_ts.is_some() {
            self.tell_groups(true);
            self.gate.sink.summary(self.last_ts, &summary);
        }
        self.gate.sink.flush(true)?;
        if self.first_ts.is_some() {
            self.messages.summary(&summary);
        }
        Ok(())
    }
}
