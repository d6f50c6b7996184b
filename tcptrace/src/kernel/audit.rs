//! What the kernel side lost and what it cost: the loss counters in, [`fact::Loss`]es out.

use std::{fs, os::fd::AsRawFd as _};

use tcptrace_common::settings::program;

use super::{
    load::Loaded,
    signal::{PROGRAMS, Signal},
};
use crate::frame::fact;

/// Remembers what was already told.
#[derive(Default)]
pub struct Audit {
    /// Per CPU: lost records and failed storage, by program.
    told: Vec<[[u64; 2]; program::COUNT]>,
    /// Missed runs, by signal.
    missed: Vec<u64>,
}

/// Run statistics of one kernel program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Nanoseconds; 0 unless `kernel.bpf_stats_enabled` is on.
    pub time_ns: u64,
    /// Runs, likewise.
    pub count: u64,
    /// Runs that were skipped because the program interrupted itself on its CPU.
    pub missed: u64,
}

impl Audit {
    /// Everything that was lost since the last call.
    pub fn losses(&mut self, loaded: &Loaded) -> Vec<fact::Loss> {
        let mut losses = Vec::new();
        if let Ok(cpus) = loaded.stats.get(&0, 0) {
            self.told.resize(cpus.len(), Default::default());
            for ((cpu, stats), told) in (0u32..).zip(cpus.iter()).zip(&mut self.told) {
                for (i, told) in told.iter_mut().enumerate() {
                    let now = [stats.0.ring_full[i], stats.0.storage[i]];
                    for (kind, (now, told)) in ["ring_full", "storage"].into_iter().zip(now.into_iter().zip(told)) {
                        if now > *told {
                            losses.push(fact::Loss {
                                kind: kind.to_owned(),
                                count: now - *told,
                                cpu: Some(cpu),
                                program: PROGRAMS[i].to_owned(),
                            });
                            *told = now;
                        }
                    }
                }
            }
        }
        self.missed.resize(loaded.signals.len(), 0);
        for (signal, told) in loaded.signals.iter().zip(&mut self.missed) {
            let now = missed(loaded, signal);
            if now > *told {
                losses.push(fact::Loss {
                    kind: "missed_run".to_owned(),
                    count: now - *told,
                    cpu: None,
                    program: signal.program.unwrap_or(signal.name).to_owned(),
                });
                *told = now;
            }
        }
        losses
    }
}

/// Runs that were skipped and that no second program took.
fn missed(loaded: &Loaded, signal: &Signal) -> u64 {
    // In this order: a skip between the two readings must not look like one that nobody took.
    let skipped = signal.program.map_or(0, |name| program_stats(loaded, name).missed);
    let taken = match signal.second {
        Some(_) => loaded.stats.get(&0, 0).map_or(0, |cpus| cpus.iter().map(|stats| stats.0.nested).sum()),
        None => 0,
    };
    // Skips of the second program are no loss: it is interrupted while it has nothing to do, and the first takes that run.
    skipped.saturating_sub(taken)
}

/// Run statistics of the programs behind a signal; runs of a second program are part of the first one's cost.
#[must_use]
pub fn run_stats(loaded: &Loaded, signal: &Signal) -> RunStats {
    let of = |name: Option<&str>| name.map(|name| program_stats(loaded, name)).unwrap_or_default();
    let (first, second) = (of(signal.program), of(signal.second));
    RunStats { time_ns: first.time_ns + second.time_ns, count: first.count, missed: missed(loaded, signal) }
}

fn program_stats(loaded: &Loaded, name: &str) -> RunStats {
    let Some(program) = loaded.ebpf.program(name) else { return RunStats::default() };
    let Ok(fd) = program.fd() else { return RunStats::default() };
    use std::os::fd::AsFd as _;
    // Without procfs nobody counts: no statistics, no missed runs.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).unwrap_or_default();
    let value = |key: &str| {
        info.lines().find_map(|line| line.strip_prefix(key)).and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    };
    RunStats { time_ns: value("run_time_ns:"), count: value("run_cnt:"), missed: value("recursion_misses:") }
}
