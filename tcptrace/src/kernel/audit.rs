//! What the kernel side lost and what it cost: the loss counters in, [`fact::Loss`]es out.

use std::{collections::HashMap, fs, os::fd::AsRawFd as _};

use tcptrace_common::settings::{CpuStats, program};

use super::{
    load::Loaded,
    objects::Object,
    signal::{Attached, MARKS_NESTED, PROGRAMS, Signal},
};
use crate::frame::fact;

/// Remembers what was already told.
#[derive(Default)]
pub struct Audit {
    /// Per CPU: lost records, failed storage and full maps, by program.
    told: Vec<[[u64; 3]; program::COUNT]>,
    /// Missed runs, by program.
    missed: HashMap<(Object, &'static str), u64>,
}

/// Run statistics of kernel programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Nanoseconds; 0 unless `kernel.bpf_stats_enabled` is on.
    pub time_ns: u64,
    /// Runs, likewise.
    pub count: u64,
    /// Runs that were skipped because the program, or on a kprobe any other, was running on that CPU.
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
                    let now = [stats.0.ring_full[i], stats.0.storage[i], stats.0.map_full[i]];
                    for (kind, (now, told)) in
                        ["ring_full", "storage", "map_full"].into_iter().zip(now.into_iter().zip(told))
                    {
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
        for (signal, attached) in programs(loaded) {
            let now = missed(loaded, signal, attached);
            let told = self.missed.entry((attached.object, attached.program)).or_default();
            if now > *told {
                losses.push(fact::Loss {
                    kind: "missed_run".to_owned(),
                    count: now - *told,
                    cpu: None,
                    program: attached.program.to_owned(),
                });
                *told = now;
            }
        }
        losses
    }
}

/// Every attached program once, with the first signal that it serves. Programs of connections come first, which have a second.
fn programs(loaded: &Loaded) -> impl Iterator<Item = (&Signal, Attached)> {
    let mut seen = Vec::new();
    let all = loaded.signals.iter().flat_map(|signal| signal.programs.iter().map(move |p| (signal, *p)));
    all.filter(move |(_, p)| {
        let new = !seen.contains(&(p.object, p.program));
        seen.push((p.object, p.program));
        new
    })
}

/// Runs that were skipped and that no second program took.
fn missed(loaded: &Loaded, signal: &Signal, attached: Attached) -> u64 {
    // In this order: a skip between the two readings must not look like one that nobody took.
    let skipped = program_stats(loaded, attached.object, attached.program).missed
        + loaded.links.missed_hits(attached.object, attached.program);
    let sum = |of: fn(&CpuStats) -> u64| loaded.stats.get(&0, 0).map_or(0, |cpus| cpus.iter().map(|s| of(&s.0)).sum());
    let taken = match attached.program {
        MARKS_NESTED => return 0,
        "state_marks" => sum(|stats| stats.nested_marks),
        _ if signal.second.is_some() => sum(|stats| stats.nested),
        _ => 0,
    };
    // Skips of the second program are no loss: it is interrupted while it has nothing to do, and the first takes that run.
    skipped.saturating_sub(taken)
}

/// Run time and runs of all programs; runs of a second program are part of the first one's cost.
#[must_use]
pub fn run_stats(loaded: &Loaded) -> RunStats {
    let mut sum = RunStats::default();
    for (signal, attached) in programs(loaded) {
        let first = program_stats(loaded, attached.object, attached.program);
        let second = signal.second.map(|name| program_stats(loaded, Object::Core, name)).unwrap_or_default();
        sum.time_ns += first.time_ns + second.time_ns;
        sum.count += first.count;
        sum.missed += missed(loaded, signal, attached);
    }
    sum
}

pub(super) fn program_stats(loaded: &Loaded, object: Object, name: &str) -> RunStats {
    let Some(program) = loaded.objects.program(object, name) else { return RunStats::default() };
    let Ok(fd) = program.fd() else { return RunStats::default() };
    use std::os::fd::AsFd as _;
    // Without procfs nobody counts: no statistics, no missed runs.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).unwrap_or_default();
    let value = |key: &str| {
        info.lines().find_map(|line| line.strip_prefix(key)).and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    };
    RunStats { time_ns: value("run_time_ns:"), count: value("run_cnt:"), missed: value("recursion_misses:") }
}
