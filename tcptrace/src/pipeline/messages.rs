//! What goes to stderr while a trace runs: losses, `--stats`, notes under `-v`, the summary.

use std::{fmt::Write as _, io::Write as _, time::Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    frame::fact,
    model::Residual,
    progress,
    sink::{Summary, text::duration},
    tracker::Stats,
};

/// Losses are told at most so often, by the time of the events.
const LOSS_INTERVAL_NS: u64 = 1_000_000_000;

/// One line on stderr. A stderr that is closed is nobody's concern.
pub fn say(line: &str) {
    progress::wipe();
    let _ = writeln!(std::io::stderr(), "tcptrace: {line}");
}

/// Which messages are wanted.
#[derive(Debug, Default)]
pub struct Messages {
    summary: bool,
    verbose: bool,
    stats: bool,
    untold: u64,
    told_ns: Option<u64>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    ts: u64,
    events: u64,
    wall: Instant,
    cpu_ns: u64,
}

impl Messages {
    /// The summary at the end, notes (`-v`), a line a second (`--stats`).
    #[must_use]
    pub fn new(summary: bool, verbose: bool, stats: bool) -> Self {
        Self { summary, verbose, stats, ..Self::default() }
    }

    /// A note under `-v`.
    pub fn verbose(&self, note: impl FnOnce() -> String) {
        if self.verbose {
            say(&note());
        }
    }

    /// Events were lost. Damage of a recording is told by whoever reads it.
    pub fn loss(&mut self, ts: u64, loss: &fact::Loss) {
        if loss.kind == "recording" {
            return;
        }
        self.untold += loss.count;
        if self.told_ns.is_none_or(|told| ts.saturating_sub(told) >= LOSS_INTERVAL_NS) {
            self.told_ns = Some(ts);
            self.tell_loss(Some(loss));
        }
    }

    fn tell_loss(&mut self, last: Option<&fact::Loss>) {
        let n = std::mem::take(&mut self.untold);
        if n == 0 {
            return;
        }
        let mut line = format!("{n} events lost");
        if let Some(loss) = last {
            let way_out = if loss.kind == "ring_full" { "; a larger --buffer helps" } else { "" };
            write!(line, " ({} in {}){way_out}", loss.kind, loss.program).expect("a String takes everything");
        }
        say(&line);
    }

    /// A snapshot that was taken after losses has done its work, which the tracker counted before and after.
    pub fn resync(&self, snapshot: &fact::Snapshot, before: Stats, after: Stats) {
        if !self.verbose && !self.stats {
            return;
        }
        let Stats { repaired, concluded, discovered, .. } = after;
        let (repaired, concluded) = (repaired - before.repaired, concluded - before.concluded);
        let discovered = discovered - before.discovered;
        let failed = match snapshot.netns_failed {
            0 => String::new(),
            n => format!(" ({n} more could not be read)"),
        };
        say(&format!(
            "fresh snapshot after the loss: {} rows from {} network namespaces{failed}; {repaired} timelines put right, \
             {concluded} found to be over, {discovered} sockets found that were not known",
            snapshot.rows, snapshot.netns
        ));
    }

    /// The recording is a later part of a trace.
    pub fn cut(&self, cut: &fact::Cut) {
        if self.summary {
            say(&cut.to_string());
        }
    }

    /// The start snapshot is complete.
    pub fn snapshot(&self, snapshot: &fact::Snapshot, found: u64) {
        if snapshot.netns_failed > 0 && self.summary {
            let n = snapshot.netns_failed;
            let s = if n == 1 { "" } else { "s" };
            say(&format!(
                "{n} network namespace{s} could not be entered: sockets there are known only once they change state"
            ));
        }
        self.verbose(|| {
            let sockets = if found == 1 { "socket was" } else { "sockets were" };
            let namespaces = if snapshot.netns == 1 { "namespace" } else { "namespaces" };
            format!("{found} {sockets} there at the start, in {} network {namespaces}", snapshot.netns)
        });
    }

    /// A second has passed.
    pub fn tick(&mut self, ts: u64, events: u64, live: usize, lost: u64) {
        if !self.stats {
            return;
        }
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let now = Last { ts, events, wall: Instant::now(), cpu_ns: (cpu.tv_sec * 1_000_000_000 + cpu.tv_nsec) as u64 };
        if let Some(last) = self.last.replace(now)
            && let Some(now) = &self.last
        {
            let rate = (events - last.events) as f64 * 1e9 / ts.saturating_sub(last.ts).max(1) as f64;
            let wall = now.wall.duration_since(last.wall).as_nanos().max(1);
            let cpu = (now.cpu_ns - last.cpu_ns) as f64 * 100.0 / wall as f64;
            say(&format!("{rate:.0} events/s, {live} sockets live, {lost} events lost, {cpu:.1} % CPU"));
        }
    }

    /// The last line.
    pub fn summary(&mut self, s: &Summary) {
        self.tell_loss(None);
        if !self.summary {
            return;
        }
        let mut line = String::new();
        let mut part = |n: u64, one: &str, many: &str| {
            if !line.is_empty() {
                line.push_str(", ");
            }
            write!(line, "{n} {}", if n == 1 { one } else { many }).expect("a String takes everything");
        };
        if s.intervals > 0 {
            part(s.intervals, "interval", "intervals");
        } else {
            part(s.connections, "connection", "connections");
            part(s.transitions, "transition", "transitions");
        }
        part(s.lost, "event lost", "events lost");
        if s.gaps > 0 {
            part(s.gaps, "connection with gaps", "connections with gaps");
        }
        if s.held_dropped > 0 {
            part(
                s.held_dropped,
                "transition dropped before its owner was known",
                "transitions dropped before their owner was known",
            );
        }
        if s.impossible > 0 {
            part(s.impossible, "impossible transition", "impossible transitions");
        }
        if s.undecodable > 0 {
            part(s.undecodable, "record not understood", "records not understood");
        }
        if s.stacks_held_back > 0 {
            part(s.stacks_held_back, "stack too many", "stacks too many");
        }
        line.push_str(" in ");
        duration(&mut line, s.elapsed_ns);
        say(&line);
        for r in s.residual.iter().flatten().filter(|r| r.kernel != r.ours) {
            let Residual { netns, counter, kernel, ours, .. } = r;
            say(&format!("the kernel's {counter} in network namespace {netns} grew by {kernel}; seen: {ours}"));
        }
    }
}
