//! The processes that a trace is about (`--pid`, `--follow`, `-- COMMAND`). Which sockets are wanted is the filters' business; of several
//! processes that have a socket open, one of these is told.

use std::collections::HashSet;

/// See the module.
#[derive(Default)]
pub(super) struct Followed {
    pids: HashSet<u32>,
    /// What descends from them, too.
    children: bool,
}

impl Followed {
    /// Those that the trace's filters name.
    pub fn of(filters: &[(String, String)]) -> Self {
        let pids = filters.iter().filter(|(name, _)| name == "pid").flat_map(|(_, list)| list.split(','));
        Self {
            pids: pids.filter_map(|pid| pid.parse().ok()).collect(),
            children: filters.iter().any(|(name, _)| name == "follow"),
        }
    }

    /// A process was forked; whoever had its number before has ended.
    pub fn forked(&mut self, parent: u32, child: u32) {
        if self.children && self.pids.contains(&parent) {
            self.pids.insert(child);
        } else {
            self.pids.remove(&child);
        }
    }

    /// Is the trace about this one?
    pub fn has(&self, pid: u32) -> bool {
        self.pids.contains(&pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_followed_where_that_was_asked_for() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut all = Followed::of(&[pair("pid", "7,8"), pair("follow", "true"), pair("lport", "9")]);
        let mut alone = Followed::of(&[pair("pid", "7,8")]);
        for followed in [&mut all, &mut alone] {
            followed.forked(8, 10);
            followed.forked(1, 7);
        }
        assert_eq!([7, 8, 9, 10].map(|pid| all.has(pid)), [false, true, false, true]);
        assert_eq!([7, 8, 9, 10].map(|pid| alone.has(pid)), [false, true, false, false]);
    }
}
