//! The processes that a trace follows: the kernel programs' list of them in, which of them still run out.

use std::fs;

use aya::maps::{HashMap, Map, MapData};

use super::{Error, load::Loaded, objects::Objects};

/// See the module.
pub struct Processes(HashMap<MapData, u32, u8>);

impl Loaded {
    /// The processes that `--pid` and `--follow` come to, now and later.
    ///
    /// # Errors
    /// [`Error::Load`].
    pub fn processes(&self) -> Result<Processes, Error> {
        Processes::of(&self.objects)
    }
}

impl Processes {
    pub(super) fn of(objects: &Objects) -> Result<Self, Error> {
        let failed = |e| Error::load("opening the list of processes", e);
        let map = MapData::from_fd(objects.map_fd("PIDS")?).map_err(failed)?;
        Ok(Self(HashMap::try_from(Map::HashMap(map)).map_err(failed)?))
    }

    /// All that were listed, those that have ended included.
    pub(super) fn listed(&self) -> impl Iterator<Item = u32> {
        // A number that is removed meanwhile belongs to nobody.
        self.0.keys().flatten()
    }

    /// How many have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.listed().filter(|&pid| runs(pid)).count()
    }
}

/// One that has ended and that nobody has waited for does not run.
fn runs(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // `PID (NAME) STATE …`, and a name may have parentheses of its own.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_that_has_ended_does_not() {
        assert!(runs(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let pid = child.id();
        while runs(pid) {
            std::thread::yield_now();
        }
        assert!(fs::exists(format!("/proc/{pid}/stat")).expect("proc"), "nobody has waited for it yet");
        child.wait().expect("waited");
        assert!(!runs(pid));
    }
}
