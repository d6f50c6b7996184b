//! What rules found: when it began, when it was over.

use super::Moment;
use crate::model::{Finding, Status};

/// Findings that are told; of more only their number is.
const TOLD: usize = 1000;

/// A finding, from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// As it was last told while it fired.
    pub finding: Finding,
    /// When it began.
    pub since: Moment,
    /// When it was resolved; None: it fired at the end of the recording.
    pub until: Option<Moment>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Findings {
    told: Vec<Trouble>,
    more: u64,
}

impl Findings {
    /// In the order in which they fired.
    #[must_use]
    pub fn all(&self) -> &[Trouble] {
        &self.told
    }

    /// How many there was no room for.
    #[must_use]
    pub fn more(&self) -> u64 {
        self.more
    }

    /// One fired, grew worse or was resolved. `moment` is what CLOCK_MONOTONIC is in this recording.
    pub(super) fn add(&mut self, finding: &Finding, moment: impl Fn(u64) -> Moment) {
        // A file can hold several recordings: the latest of that number.
        let room = self.told.len() < TOLD;
        let known = self.told.iter_mut().rev().find(|t| t.finding.id == finding.id && t.until.is_none());
        match (known, finding.status) {
            (Some(trouble), Status::Firing) => trouble.finding = finding.clone(),
            (Some(trouble), Status::Resolved) => trouble.until = Some(moment(finding.ts)),
            (None, Status::Firing) if room => {
                self.told.push(Trouble { finding: finding.clone(), since: moment(finding.since), until: None });
            }
            (None, Status::Firing) => self.more += 1,
            (None, Status::Resolved) => {}
        }
    }
}
