//! What the kernel side lost and what it cost: the loss counters in, [`fact::Loss`]es out.

use std::{collections::HashMap, fs, os::fd::AsRawFd as _};

use tcptrace_common::settings::program;

use super::{
    load::Loaded,
    objects::Object,
    signal::{Attached, PROGRAMS},
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
        for attached in programs(loaded) {
            let now = missed(loaded, attached);
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

/// User-space stacks that were not copied because there were too many.
#[must_use]
pub fn stacks_held_back(loaded: &Loaded) -> u64 {
    loaded.stats.get(&0, 0).map_or(0, |cpus| cpus.iter().map(|stats| stats.0.stacks_held_back).sum())
}

/// Every attached program once.
fn programs(loaded: &Loaded) -> impl Iterator<Item = Attached> {
    let mut seen = Vec::new();
    loaded.signals.iter().flat_map(|signal| signal.programs.iter().copied()).filter(move |p| {
        let new = !seen.contains(&(p.object, p.program));
        seen.push((p.object, p.program));
        new
    })
}

/// Runs that were skipped and that no second program took. A second one has looked at what it was not skipped for: it may have found
/// that nothing was missed, as both look at little of what passes some hooks.
fn missed(loaded: &Loaded, attached: Attached) -> u64 {
    // In this order: a skip between two readings must not look like one that nobody took.
    let skipped = program_stats(loaded, attached.object, attached.program).missed
        + loaded.links.missed_hits(attached.object, attached.program);
    let Some(second) = attached.second else { return skipped };
    let taken: u64 =
        loaded.stats.get(&0, 0).map_or(0, |cpus| cpus.iter().map(|stats| stats.0.nested[second.number]).sum());
    skipped.saturating_sub(taken).min(program_stats(loaded, attached.object, second.program).missed)
}

/// Run time and runs of all programs; runs of a second program are part of the first one's cost.
#[must_use]
pub fn run_stats(loaded: &Loaded) -> RunStats {
    let mut sum = RunStats::default();
    for attached in programs(loaded) {
        let first = program_stats(loaded, attached.object, attached.program);
        let second = attached.second.map(|second| program_stats(loaded, attached.object, second.program));
        sum.time_ns += first.time_ns + second.unwrap_or_default().time_ns;
        sum.count += first.count;
        sum.missed += missed(loaded, attached);
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
