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

use std::collections::VecDeque;

use crate::model::Finding;
use alarms::Alarms;
use config::Config;
use rule::Verdicts;
use rules::RULES;
use seen::Seen;

/// See the module.
#[derive(Debug)]
pub struct Detect {
    config: Config,
    /// What happened of late: takes what the tracker concludes.
    pub seen: Seen,
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
    pub fn start(&mut self) {
        self.seen = Seen::default();
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
