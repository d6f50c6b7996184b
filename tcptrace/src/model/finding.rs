//! Findings: trouble that a rule found, with its evidence and what to change.

use std::{net::IpAddr, sync::Arc};

use super::{Connection, Process, Said, address};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It costs something already, or will.
    Warning,
    /// Clients are turned away, or will be soon.
    Critical,
}

impl Severity {
    /// The name in JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Does it go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It does.
    Firing,
    /// It is over.
    Resolved,
}

impl Status {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What a finding is about. Two findings of a rule with the same subject are one that goes on.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Number of the timeline, where it is a listener.
    pub id: Option<u64>,
    /// Network namespace.
    pub netns: Option<u32>,
    /// This end's address; of a listener the one that it is bound to.
    pub laddr: Option<IpAddr>,
    /// This end's port.
    pub lport: Option<u16>,
    /// The peer.
    pub raddr: Option<IpAddr>,
    /// Its port.
    pub rport: Option<u16>,
    /// Whose sockets they are.
    pub owner: Option<Arc<Process>>,
}

/// What makes two subjects the same.
pub type Key = (Option<u64>, Option<u32>, [Option<IpAddr>; 2], [Option<u16>; 2], Option<u32>);

impl Subject {
    /// A listener.
    #[must_use]
    pub fn listener(c: &Connection) -> Self {
        Self {
            id: Some(c.id),
            netns: netns(c.tuple.netns),
            laddr: Some(address(c.tuple.family, &c.tuple.laddr)),
            lport: (c.tuple.lport != 0).then_some(c.tuple.lport),
            owner: c.owner.clone(),
            ..Self::default()
        }
    }

    /// What makes it the same as another. A listener stays itself when its owner changes.
    #[must_use]
    pub fn key(&self) -> Key {
        let pid = self.owner.as_ref().map(|owner| owner.pid).filter(|_| self.id.is_none());
        (self.id, self.netns, [self.laddr, self.raddr], [self.lport, self.rport], pid)
    }
}

/// A namespace's number, if it is known.
#[must_use]
pub fn netns(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// A piece of evidence.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// How many.
    Count(u64),
    /// How many a second.
    PerSecond(f64),
    /// How long, microseconds; its name ends in `_us`.
    Us(u64),
    /// A share of a hundred; its name ends in `_percent`.
    Percent(f64),
    /// Our own words, numbers and addresses.
    Text(String),
    /// From outside, not escaped.
    Name(Box<[u8]>),
    /// Several.
    List(Vec<Measure>),
    /// Several with names.
    Fields(Vec<(&'static str, Measure)>),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Finding {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Number, the same from its beginning to its end.
    pub id: u64,
    /// Name of the rule.
    pub rule: &'static str,
    /// How bad it is; it may grow worse.
    pub severity: Severity,
    /// Does it go on?
    pub status: Status,
    /// When it began, CLOCK_MONOTONIC nanoseconds.
    pub since: u64,
    /// What it is about.
    pub subject: Subject,
    /// One sentence.
    pub summary: Said,
    /// What was measured.
    pub evidence: Vec<(&'static str, Measure)>,
    /// What to change: the knob, the file or the call.
    pub advice: String,
    /// A command that looks closer.
    pub look: String,
}
