//! What the tracker concludes → findings: trouble, with its evidence and what to change.
//!
//! Rules are pure functions of what was seen of late ([`seen`]) and of their limits ([`config`]); each says of what it looks at that it is
//! in trouble, that it is fine, or that not enough is known. [`alarms`] makes findings of that, which fire and are resolved.
//!
//! | file | |
//! |---|---|
//! | `seen/` | what was seen of late, in bounded memory |
//! | `rules/` | a file for each rule, or for a few that look at the same |
//! | `rule` | what a rule is, and what it may say |
//! | `limits` | what a rule's behaviour depends on, and its units |
//! | `config` | limits from a file |
//! | `alarms` | judgements → findings that fire and are resolved |

mod alarms;
pub mod config;
pub mod limits;
pub mod rule;
pub mod rules;
pub mod seen;

use std::{collections::VecDeque, sync::Arc};

use crate::{
    frame::fact,
    model::{
        Connection, Final, Finding, Found, Listening, Mark, Mini, NetnsCounters, Observer, Orphans, Probe, Remnant,
        Request, Stack, Transition, Unread,
    },
};
use alarms::Alarms;
use config::Config;
use rule::Verdicts;
use rules::RULES;
use seen::Seen;

/// See the module.
#[derive(Debug)]
pub struct Detect {
    config: Config,
    seen: Seen,
    alarms: Alarms,
    /// Findings that fired, grew worse or were resolved since somebody looked, in their order.
    pub findings: VecDeque<Finding>,
}

impl Detect {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, seen: Seen::default(), alarms: Alarms::default(), findings: VecDeque::new() }
    }

    /// Another trace begins.
    pub fn start(&mut self, start: &fact::Start) {
        self.seen = Seen::of(start);
        self.alarms.forget();
    }

    /// Ask every rule how it stands at `now`, CLOCK_MONOTONIC nanoseconds: time passed, or an interval is over.
    pub fn check(&mut self, now: u64) {
        self.seen.advance(now);
        for (number, rule) in RULES.iter().enumerate() {
            if !self.config.is_on(number) {
                continue;
            }
            let mut verdicts = Verdicts::default();
            let limits = self.config.limits(number);
            (rule.check)(&self.seen, &limits, &mut verdicts);
            self.alarms.settle(number, now, &limits, verdicts, &mut self.findings);
        }
    }
}

impl Observer for Detect {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        self.seen.transition(c, t);
    }

    fn mark(&mut self, c: &Connection, m: &Mark) {
        self.seen.mark(c, m);
    }

    fn owner(&mut self, c: &Connection) {
        self.seen.owner(c);
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        self.seen.connection(c, f);
    }

    fn socket(&mut self, c: &Connection, f: &Found) {
        self.seen.socket(c, f);
    }

    fn mini_socket(&mut self, m: &Mini) {
        self.seen.mini_socket(m);
    }

    fn request(&mut self, r: &Request) {
        self.seen.request(r);
    }

    fn probe(&mut self, p: &Probe) {
        self.seen.probe(p);
    }

    fn time_wait(&mut self, r: &Remnant) {
        self.seen.time_wait(r);
    }

    fn netns(&mut self, n: &NetnsCounters) {
        self.seen.netns(n);
    }

    fn opened_at(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {
        self.seen.opened_at(c, ts, stack);
    }

    fn unread(&mut self, c: &Connection, u: &Unread) {
        self.seen.unread(c, u);
    }

    fn orphans(&mut self, o: &Orphans) {
        self.seen.orphans(o);
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        self.seen.listener(c, l);
    }

    fn interval(&mut self, ts: u64, _: u64) {
        self.check(ts);
    }
}
