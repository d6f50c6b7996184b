//! Which connections are wanted. What is not known yet is neither wanted nor unwanted: [`Verdict::Unknown`].
//!
//! Values of one option are alternatives, options are all demanded. The same filter is applied twice: a part of it by the
//! kernel programs, all of it by the pipeline's gate.

use std::net::IpAddr;

use tcptrace_common::record::Tuple;

use crate::model::{Connection, Inferred, Process, Role, State, comm_str};

mod parse;
mod prefix;

pub use parse::netns_number;
pub use prefix::{Ports, Prefix};

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
    /// `--comm`, exact names.
    pub comms: Vec<String>,
    /// `--role`.
    pub roles: Vec<Role>,
    /// `--state`: what is printed, not what is followed.
    pub states: Vec<State>,
}

impl Filter {
    /// Everything is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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

    /// Did the kernel programs, which apply the same filter, stop telling of this connection?
    #[must_use]
    pub fn stopped(&self, c: &Connection) -> bool {
        let certain = c.inferred.0 & Inferred::OWNER == 0;
        let other_owner =
            !self.pids.is_empty() && c.owner.as_deref().is_some_and(|owner| certain && !self.pids.contains(&owner.pid));
        other_owner || self.ends(&c.tuple, is_listener(c)) == Verdict::Unwanted
    }

    /// [`Filter::connection`] for something that has no owner and no role of its own: a half-open request, a TIME_WAIT remnant.
    #[must_use]
    pub fn mini(&self, tuple: &Tuple, role: Option<Role>) -> Verdict {
        let nobody = !self.pids.is_empty() || !self.comms.is_empty();
        self.ends(tuple, false).and(self.role(role)).and(if nobody { Verdict::Unknown } else { Verdict::Wanted })
    }

    /// [`Filter::connection`] for a request, whose owner is its listener's, or a TIME_WAIT remnant.
    #[must_use]
    pub fn remnant(&self, tuple: &Tuple, role: Option<Role>, owner: Option<&Process>) -> Verdict {
        let verdict = self.ends(tuple, false).and(self.role(role));
        if self.pids.is_empty() && self.comms.is_empty() {
            return verdict;
        }
        verdict.and(owner.map_or(Verdict::Unknown, |owner| Verdict::known(self.is_owner(owner))))
    }

    fn is_owner(&self, p: &Process) -> bool {
        (self.pids.is_empty() || self.pids.contains(&p.pid))
            && (self.comms.is_empty() || self.comms.iter().any(|c| c.as_bytes() == comm_str(&p.comm)))
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
            let known = |a: &[u8; 16]| (*a != [0; 16]).then(|| prefix::address(t.family, a));
            let l = if listener { Some(prefix::address(t.family, &t.laddr)) } else { known(&t.laddr) };
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
        if self.pids.is_empty() && self.comms.is_empty() {
            return Verdict::Wanted;
        }
        let Some(owner) = c.owner.as_deref() else { return Verdict::Unknown };
        let asked_for = self.is_owner(owner);
        // A connection is its listener's until accept() says whose it is; it may be another process that was asked for.
        let concluded = c.inferred.0 & Inferred::OWNER != 0;
        if concluded && !asked_for { Verdict::Unknown } else { Verdict::known(asked_for) }
    }
}

/// A listener on every address has none, and that is known.
fn is_listener(c: &Connection) -> bool {
    c.role == Some(Role::Listener) || c.state == State::Listen
}

#[cfg(test)]
mod tests;
