//! What a rule is, and what it may say of what it looks at.

use super::{
    limits::{Limit, Limits},
    seen::Seen,
};
use crate::model::{Measure, Said, Severity, Subject};

/// A rule. What `explain` says of it is in `explain/rules_*`.
#[derive(Debug)]
pub struct Rule {
    /// Its name, in findings, on the command line and in configurations.
    pub name: &'static str,
    /// What it finds, one line.
    pub about: &'static str,
    /// What its behaviour depends on.
    pub limits: &'static [&'static Limit],
    /// How long trouble lasts before it is told, as in a configuration: `0s`.
    pub fires_after: &'static str,
    /// How long trouble is gone before that is told.
    pub resolves_after: &'static str,
    /// How it stands.
    pub check: fn(&Seen, &Limits<'_>, &mut Verdicts),
}

/// Trouble of a subject.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// When it began, CLOCK_MONOTONIC nanoseconds; None: when it was found.
    pub since: Option<u64>,
    /// One sentence.
    pub summary: Said,
    /// What was measured.
    pub evidence: Vec<(&'static str, Measure)>,
    /// What to change: the exact knob, file or call.
    pub advice: String,
    /// A command that looks closer.
    pub look: String,
}

/// What a rule says of all that it looks at. What it does not mention is fine.
#[derive(Debug, Default)]
pub struct Verdicts {
    pub(super) cases: Vec<Case>,
    pub(super) unknown: Vec<crate::model::finding::Key>,
}

impl Verdicts {
    /// Trouble.
    pub fn trouble(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// Not enough is known to say how it stands: what fires goes on, what does not does not begin.
    pub fn not_enough(&mut self, subject: &Subject) {
        self.unknown.push(subject.key());
    }
}
