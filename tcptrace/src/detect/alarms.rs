//! Judgements → findings: trouble must last before it is told, and must be gone for a while before that is.

use std::collections::{HashMap, HashSet, VecDeque, hash_map::Entry};

use super::{
    limits::{FIRES_AFTER, Limits, RESOLVES_AFTER},
    rule::{Case, Verdicts},
    rules::RULES,
};
use crate::model::{Finding, Severity, Status, finding::Key};

/// Subjects of one rule that are in trouble at a time; more are not told of. An attacker is not to fill the memory.
const SUBJECTS: usize = 1000;

/// A rule's trouble with one subject.
#[derive(Debug)]
struct Alarm {
    /// When the trouble began.
    since: u64,
    /// Number of the finding; None: it has not lasted long enough.
    told: Option<u64>,
    /// The worst that was told.
    worst: Severity,
    /// It is gone since then.
    gone: Option<u64>,
    /// As it was last.
    case: Case,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Alarms {
    /// By rule and subject.
    of: HashMap<(usize, Key), Alarm>,
    /// In the order in which they began, so that what is told has an order.
    order: Vec<(usize, Key)>,
    ids: u64,
}

impl Alarms {
    /// Nothing of it goes on.
    pub fn forget(&mut self) {
        self.of.clear();
        self.order.clear();
    }

    /// What rule number `rule` says at `now`.
    pub fn settle(
        &mut self,
        rule: usize,
        now: u64,
        limits: &Limits<'_>,
        mut verdicts: Verdicts,
        findings: &mut VecDeque<Finding>,
    ) {
        // In whatever order the rule looks at them.
        verdicts.cases.sort_by_cached_key(|case| case.subject.key());
        let mut mentioned = HashSet::new();
        for case in verdicts.cases {
            let key = case.subject.key();
            mentioned.insert(key);
            let limits = limits.at(case.subject.lport.or(case.subject.rport));
            if limits.is_on() {
                self.trouble(rule, key, case, now, limits.ns(&FIRES_AFTER), findings);
            }
        }
        mentioned.extend(verdicts.unknown);
        let Self { of, order, .. } = self;
        order.retain(|number_and_key| {
            let (number, key) = number_and_key;
            if *number != rule || mentioned.contains(key) {
                return true;
            }
            let Some(alarm) = of.get_mut(number_and_key) else { return false };
            let gone = *alarm.gone.get_or_insert(now);
            let port = alarm.case.subject.lport.or(alarm.case.subject.rport);
            let over = alarm.told.is_none() || now.saturating_sub(gone) >= limits.at(port).ns(&RESOLVES_AFTER);
            if over && let Some(alarm) = of.remove(number_and_key) {
                findings.extend(alarm.told.map(|id| alarm.finding(rule, id, now, Status::Resolved)));
            }
            !over
        });
    }

    fn trouble(
        &mut self,
        rule: usize,
        key: Key,
        case: Case,
        now: u64,
        fires_after: u64,
        findings: &mut VecDeque<Finding>,
    ) {
        let is_full = || self.order.iter().filter(|(number, _)| *number == rule).count() >= SUBJECTS;
        if !self.of.contains_key(&(rule, key)) && is_full() {
            return;
        }
        let severity = case.severity;
        let began = case.since.unwrap_or(now);
        let alarm = match self.of.entry((rule, key)) {
            Entry::Occupied(entry) => {
                let alarm = entry.into_mut();
                (alarm.case, alarm.gone) = (case, None);
                alarm
            }
            Entry::Vacant(entry) => {
                self.order.push((rule, key));
                entry.insert(Alarm { since: began, told: None, worst: severity, gone: None, case })
            }
        };
        let worse = alarm.told.is_some() && severity > alarm.worst;
        let due = alarm.told.is_none() && now.saturating_sub(alarm.since) >= fires_after;
        if worse || due {
            alarm.worst = severity;
            let id = *alarm.told.get_or_insert_with(|| {
                self.ids += 1;
                self.ids
            });
            findings.push_back(alarm.finding(rule, id, now, Status::Firing));
        }
    }
}

impl Alarm {
    fn finding(&self, rule: usize, id: u64, now: u64, status: Status) -> Finding {
        let case = self.case.clone();
        Finding {
            ts: now,
            id,
            rule: RULES[rule].name,
            severity: self.worst,
            status,
            since: self.since,
            subject: case.subject,
            summary: case.summary,
            evidence: case.evidence,
            advice: case.advice,
            look: case.look,
        }
    }
}
