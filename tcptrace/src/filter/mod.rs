//! Which connections are wanted. What is not known yet is neither wanted nor unwanted: [`Verdict::Unknown`].
//!
//! Values of one option are alternatives, options are all demanded. The same filter is applied twice: a part of it by the
//! kernel programs, all of it by the pipeline's gate.

use std::{collections::HashSet, net::IpAddr};

use tcptrace_common::record::Tuple;

use crate::model::{Connection, End, Final, Inferred, Process, Request, Role, State, address, comm_str};

mod parse;
mod prefix;
mod users;

pub use crate::model::Ports;
pub use parse::netns_number;
pub use prefix::Prefix;
pub use users::home;

/// What a filter says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every option is met.
    Wanted,
    /// One is not.
    Unwanted,
    /// None fails, but something is not known yet.
    Unknown,
}

impl Verdict {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unwanted, _) | (_, Self::Unwanted) => Self::Unwanted,
            (Self::Wanted, Self::Wanted) => Self::Wanted,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
        }
    }

    fn known(yes: bool) -> Self {
        if yes { Self::Wanted } else { Self::Unwanted }
    }
}

/// Local, remote and either end: `--lport`, `--rport`, `--port`. An empty list demands nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides<T> {
    /// The local end must be one of these.
    pub local: Vec<T>,
    /// The remote end must be one of these.
    pub remote: Vec<T>,
    /// One end must be one of these.
    pub either: Vec<T>,
}

impl<T> Default for Sides<T> {
    fn default() -> Self {
        Self { local: Vec::new(), remote: Vec::new(), either: Vec::new() }
    }
}

impl<T> Sides<T> {
    fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.either.is_empty()
    }

    /// `l` and `r` are None where they are not known.
    fn verdict<V: Copy>(&self, l: Option<V>, r: Option<V>, contains: impl Fn(&T, V) -> bool) -> Verdict {
        let end = |list: &[T], v: Option<V>| match v {
            Some(v) => Verdict::known(list.iter().any(|t| contains(t, v))),
            None => Verdict::Unknown,
        };
        let mut verdict = Verdict::Wanted;
        if !self.local.is_empty() {
            verdict = verdict.and(end(&self.local, l));
        }
        if !self.remote.is_empty() {
            verdict = verdict.and(end(&self.remote, r));
        }
        if !self.either.is_empty() {
            verdict = verdict.and(match (end(&self.either, l), end(&self.either, r)) {
                (Verdict::Wanted, _) | (_, Verdict::Wanted) => Verdict::Wanted,
                (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
                (Verdict::Unwanted, Verdict::Unwanted) => Verdict::Unwanted,
            });
        }
        verdict
    }
}

/// The filter options of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `--port`, `--lport`, `--rport`.
    pub ports: Sides<Ports>,
    /// `--addr`, `--laddr`, `--raddr`.
    pub addrs: Sides<Prefix>,
    /// `--netns`, as inode numbers.
    pub netns: Vec<u32>,
    /// `--pid`.
    pub pids: Vec<u32>,
    /// `--follow`: what descends from these, too; see [`Filter::forked`].
    pub follow: bool,
    /// What descends from them so far.
    descendants: HashSet<u32>,
    /// `--comm`, exact names.
    pub comms: Vec<String>,
    /// `--uid`, as numbers.
    pub uids: Vec<u32>,
    /// `--cgroup`: paths below the mount, each with everything below it.
    pub cgroups: Vec<String>,
    /// `--container`: names, ids, beginnings of ids.
    pub containers: Vec<String>,
    /// `--unit`, with suffix or without.
    pub units: Vec<String>,
    /// `--role`.
    pub roles: Vec<Role>,
    /// `--state`: what is printed, not what is followed.
    pub states: Vec<State>,
    /// `--failed`: what did not end well. Known at the end, as the next one.
    pub failed: bool,
    /// `--min-us`: what lasted so many microseconds at least.
    pub min_us: Option<u64>,
}

impl Filter {
    /// Everything is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A process was forked: it belongs to those asked for if its parent does, and does not if the parent does not, whoever had its number
    /// before.
    pub fn forked(&mut self, parent: u32, child: u32) {
        if !self.follow {
            return;
        }
        if self.is_process(parent) {
            self.descendants.insert(child);
        } else {
            self.descendants.remove(&child);
            self.pids.retain(|&pid| pid != child);
        }
    }

    fn is_process(&self, pid: u32) -> bool {
        self.pids.contains(&pid) || self.descendants.contains(&pid)
    }

    /// Are processes asked for?
    fn has_processes(&self) -> bool {
        // With --follow all of them may be gone.
        !self.pids.is_empty() || self.follow
    }

    /// Is the connection, as far as it is known, one of those asked for? Leaves `--state` out.
    #[must_use]
    pub fn connection(&self, c: &Connection) -> Verdict {
        let verdict = self.ends(&c.tuple, is_listener(c));
        if verdict == Verdict::Unwanted {
            return verdict;
        }
        verdict.and(self.role(c.role)).and(self.owner(c))
    }

    /// Is a connection that is over one of those that `--failed` and `--min-us` ask for? What is not known is not asked for. One
    /// whose begin was not seen lasted longer than it was seen.
    #[must_use]
    pub fn outcome(&self, c: &Connection, f: &Final) -> bool {
        let failed = !self.failed || f.end.is_some_and(End::is_failure);
        failed && self.min_us.is_none_or(|us| !f.late && f.ts.saturating_sub(c.start_ns) / 1000 >= us)
    }

    /// [`Filter::outcome`] of a half-open request.
    #[must_use]
    pub fn request(&self, r: &Request) -> bool {
        let failed = !self.failed || r.failed();
        failed && self.min_us.is_none_or(|us| r.age_ns.is_some_and(|ns| ns / 1000 >= us))
    }

    /// Does it ask for an end that is known only when a connection is over?
    #[must_use]
    pub fn asks_for_outcome(&self) -> bool {
        self.failed || self.min_us.is_some()
    }

    /// The first option that asks for where processes are, which only the cgroup v2 hierarchy tells.
    #[must_use]
    pub fn asks_for_cgroup(&self) -> Option<&'static str> {
        let options = [("cgroup", &self.cgroups), ("container", &self.containers), ("unit", &self.units)];
        options.into_iter().find(|(_, values)| !values.is_empty()).map(|(name, _)| name)
    }

    /// Without the options that ask for an outcome.
    #[must_use]
    pub fn without_outcome(self) -> Self {
        Self { failed: false, min_us: None, ..self }
    }

    /// Did the kernel programs, which apply the same filter, stop telling of this connection?
    #[must_use]
    pub fn stopped(&self, c: &Connection) -> bool {
        let certain = c.inferred.0 & Inferred::OWNER == 0;
        let other_owner =
            self.has_processes() && c.owner.as_deref().is_some_and(|owner| certain && !self.is_process(owner.pid));
        other_owner || self.ends(&c.tuple, is_listener(c)) == Verdict::Unwanted
    }

    /// [`Filter::connection`] for something that has no owner and no role of its own: a half-open request, a TIME_WAIT remnant.
    #[must_use]
    pub fn mini(&self, tuple: &Tuple, role: Option<Role>) -> Verdict {
        self.remnant(tuple, role, None)
    }

    /// [`Filter::connection`] for a request, whose owner is its listener's, or a TIME_WAIT remnant.
    #[must_use]
    pub fn remnant(&self, tuple: &Tuple, role: Option<Role>, owner: Option<&Process>) -> Verdict {
        self.ends(tuple, false).and(self.role(role)).and(self.process(owner))
    }

    /// `--pid`, `--comm`, `--uid`, and the options about cgroups.
    fn process(&self, p: Option<&Process>) -> Verdict {
        let somewhere = !self.cgroups.is_empty() || !self.containers.is_empty() || !self.units.is_empty();
        if !somewhere && !self.has_processes() && self.comms.is_empty() && self.uids.is_empty() {
            return Verdict::Wanted;
        }
        let Some(p) = p else { return Verdict::Unknown };
        let is_it = (!self.has_processes() || self.is_process(p.pid))
            && (self.comms.is_empty() || self.comms.iter().any(|c| c.as_bytes() == comm_str(&p.comm)))
            && (self.uids.is_empty() || self.uids.contains(&p.uid));
        let there = match p.cgroup.as_deref() {
            _ if !somewhere => Verdict::Wanted,
            Some(cgroup) => Verdict::known(
                (self.cgroups.is_empty() || self.cgroups.iter().any(|path| cgroup.is_below(path)))
                    && (self.containers.is_empty() || self.containers.iter().any(|name| cgroup.is_in_container(name)))
                    && (self.units.is_empty() || self.units.iter().any(|name| cgroup.is_in_unit(name))),
            ),
            None => Verdict::Unknown,
        };
        Verdict::known(is_it).and(there)
    }

    /// Does `--state` show a transition between these?
    #[must_use]
    pub fn shows(&self, from: State, to: State) -> bool {
        self.states.is_empty() || self.states.contains(&from) || self.states.contains(&to)
    }

    /// Does `--state` show a connection that has been in these?
    #[must_use]
    pub fn shows_any(&self, mut states: impl Iterator<Item = State>) -> bool {
        self.states.is_empty() || states.any(|s| self.states.contains(&s))
    }

    fn ends(&self, t: &Tuple, listener: bool) -> Verdict {
        let mut verdict = Verdict::Wanted;
        if !self.netns.is_empty() {
            verdict = match t.netns {
                0 => Verdict::Unknown,
                n => Verdict::known(self.netns.contains(&n)),
            };
        }
        if !self.ports.is_empty() {
            let known = |p: u16| (p != 0).then_some(p);
            verdict = verdict.and(self.ports.verdict(known(t.lport), known(t.rport), |ports, p| ports.contains(p)));
        }
        if !self.addrs.is_empty() {
            let known = |a: &[u8; 16]| (*a != [0; 16]).then(|| address(t.family, a));
            let l = if listener { Some(address(t.family, &t.laddr)) } else { known(&t.laddr) };
            verdict = verdict.and(self.addrs.verdict::<IpAddr>(l, known(&t.raddr), |prefix, a| prefix.contains(a)));
        }
        verdict
    }

    fn role(&self, role: Option<Role>) -> Verdict {
        match role {
            _ if self.roles.is_empty() => Verdict::Wanted,
            Some(role) => Verdict::known(self.roles.contains(&role)),
            None => Verdict::Unknown,
        }
    }

    fn owner(&self, c: &Connection) -> Verdict {
        let verdict = self.process(c.owner.as_deref());
        // A connection is its listener's until accept() says whose it is; it may be another process that was asked for.
        let concluded = c.inferred.0 & Inferred::OWNER != 0;
        if concluded && verdict == Verdict::Unwanted { Verdict::Unknown } else { verdict }
    }
}

/// A listener on every address has none, and that is known.
fn is_listener(c: &Connection) -> bool {
    c.role == Some(Role::Listener) || c.state == State::Listen
}

#[cfg(test)]
mod tests;
