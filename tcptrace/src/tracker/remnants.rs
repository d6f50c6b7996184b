//! TIME_WAIT remnants: what is left of a connection after its socket is gone. Only where records tell of their begin and end.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;
use tcptrace_common::record::Tuple;

use crate::model::{Left, Process, Remnant, State};

/// Remnants remembered; more are counted and not told of. (The kernel's own default, `tcp_max_tw_buckets`, is 262,144 on a
/// large host.)
pub(super) const REMNANTS: usize = 131_072;
/// One that went before its time was either reused, of which the proof may take a round trip, or killed, nanoseconds.
pub(super) const UNDECIDED_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Default)]
pub(super) struct Remnants {
    by_cookie: HashMap<u64, Kept>,
    /// Gone, and why is not known yet, oldest first; those that were decided meanwhile are None.
    undecided: VecDeque<Option<Remnant>>,
    /// Number of the first of them.
    first: u64,
    /// Ends → number in `undecided`.
    by_ends: HashMap<Tuple, u64>,
    /// Records tell of begin and end.
    pub heard: bool,
    /// Remnants that there was no room for.
    pub forgotten: u64,
}

/// What is known of a remnant that is there.
pub(super) struct Kept {
    pub id: u64,
    pub tuple: Tuple,
    pub owner: Option<Arc<Process>>,
    pub state: State,
    /// CLOCK_MONOTONIC nanoseconds; None: before the trace.
    pub since: Option<u64>,
}

impl Remnants {
    /// Remember one. One that is known keeps its begin.
    pub fn add(&mut self, cookie: u64, kept: Kept) {
        if let Some(known) = self.by_cookie.get_mut(&cookie) {
            *known = Kept { since: known.since.or(kept.since), ..kept };
        } else if self.by_cookie.len() >= REMNANTS {
            self.forgotten += 1;
        } else {
            self.by_cookie.insert(cookie, kept);
        }
    }

    /// It is none after all.
    pub fn cancel(&mut self, cookie: u64) {
        self.by_cookie.remove(&cookie);
    }

    pub fn contains(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    pub fn undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// One is gone at `ts`: as it is to be told of, if that is known already.
    pub fn end(&mut self, cookie: u64, ts: u64, expired: bool) -> Option<Remnant> {
        let kept = self.by_cookie.remove(&cookie)?;
        let remnant = Remnant {
            ts,
            id: kept.id,
            cookie,
            tuple: kept.tuple,
            owner: kept.owner,
            state: kept.state,
            ns: kept.since.map(|since| ts.saturating_sub(since)),
            how: if expired { Left::Expired } else { Left::Killed },
            preexisting: kept.since.is_none(),
        };
        if expired {
            return Some(remnant);
        }
        self.by_ends.insert(remnant.tuple, self.first + self.undecided.len() as u64);
        self.undecided.push_back(Some(remnant));
        None
    }

    /// A request or connection with these ends started at `since`.
    pub fn reused(&mut self, tuple: &Tuple, since: u64) -> Option<Remnant> {
        if self.by_ends.is_empty() {
            return None;
        }
        let &number = self.by_ends.get(tuple)?;
        let place = self.undecided.get_mut(number.checked_sub(self.first)? as usize)?;
        if since.saturating_add(UNDECIDED_NS) < place.as_ref()?.ts {
            return None;
        }
        let remnant = place.take()?;
        self.by_ends.remove(tuple);
        Some(Remnant { how: Left::Reused, ..remnant })
    }

    /// The oldest undecided one, if it went long enough before `now`.
    pub fn expired(&mut self, now: u64) -> Option<Remnant> {
        loop {
            if let Some(remnant) = self.undecided.front()?
                && now <= remnant.ts.saturating_add(UNDECIDED_NS)
            {
                return None;
            }
            let remnant = self.undecided.pop_front()?;
            let number = self.first;
            self.first += 1;
            if let Some(remnant) = remnant {
                if self.by_ends.get(&remnant.tuple) == Some(&number) {
                    self.by_ends.remove(&remnant.tuple);
                }
                return Some(remnant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(port: u16) -> Kept {
        let tuple = Tuple { rport: port, ..Tuple::default() };
        Kept { id: u64::from(port), tuple, owner: None, state: State::TimeWait, since: Some(0) }
    }

    #[test]
    fn remnants_are_bounded() {
        let mut remnants = Remnants::default();
        (0..=REMNANTS as u64).for_each(|n| remnants.add(1 + n, kept(n as u16)));
        assert_eq!((remnants.by_cookie.len(), remnants.forgotten), (REMNANTS, 1));
    }

    #[test]
    fn the_decision_waits_and_is_made_once() {
        let mut remnants = Remnants::default();
        (1..4).for_each(|n| remnants.add(u64::from(n), kept(n)));
        assert!(remnants.end(1, 10, false).is_none() && remnants.end(2, 11, false).is_none());
        assert_eq!(remnants.end(3, 12, true).map(|r| r.how), Some(Left::Expired));
        let ends = kept(2).tuple;
        assert_eq!(remnants.reused(&ends, 5).map(|r| (r.id, r.how)), Some((2, Left::Reused)));
        assert!(remnants.reused(&ends, 5).is_none());
        assert!(remnants.expired(10 + UNDECIDED_NS).is_none());
        assert_eq!(remnants.expired(11 + UNDECIDED_NS).map(|r| (r.id, r.how)), Some((1, Left::Killed)));
        assert!(remnants.expired(u64::MAX).is_none() && !remnants.undecided() && remnants.by_ends.is_empty());
    }
}
