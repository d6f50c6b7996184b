//! What hooks cost that other work passes, too: measured for a moment.

use std::time::{Duration, Instant};

use super::{
    audit, bpf,
    load::Loaded,
    signal::{Attached, Cost},
};

/// Long enough for a rate, short enough to wait for.
const MOMENT: Duration = Duration::from_millis(300);

/// Fill in the costs of every signal that has such hooks. Without statistics of the kernel there are none.
pub(super) fn measure(loaded: &mut Loaded) {
    if !loaded.signals.iter().any(|signal| signal.programs.iter().any(|p| p.hot)) {
        return;
    }
    // The kernel counts as long as this is open.
    let Ok(_statistics) = bpf::run_statistics() else { return };
    let programs: Vec<Vec<Attached>> =
        loaded.signals.iter().map(|s| s.programs.iter().copied().filter(|p| p.hot).collect()).collect();
    let read = |loaded: &Loaded| -> Vec<Vec<audit::RunStats>> {
        programs.iter().map(|p| p.iter().map(|p| audit::program_stats(loaded, p.object, p.program)).collect()).collect()
    };
    let (start, before) = (Instant::now(), read(loaded));
    std::thread::sleep(MOMENT);
    let (after, seconds) = (read(loaded), start.elapsed().as_secs_f64());
    for (((signal, programs), before), after) in loaded.signals.iter_mut().zip(&programs).zip(before).zip(after) {
        signal.costs = programs
            .iter()
            .zip(before.iter().zip(after))
            .map(|(program, (before, after))| {
                let hits = after.count.saturating_sub(before.count) as f64;
                let ns = after.time_ns.saturating_sub(before.time_ns) as f64;
                Cost {
                    program: program.program,
                    hits_per_second: hits / seconds,
                    ns_per_hit: (hits > 0.0).then(|| ns / hits),
                }
            })
            .collect();
    }
}
