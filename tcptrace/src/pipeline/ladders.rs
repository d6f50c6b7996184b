//! `conns --ladder`: what is kept of connections while they live, and which two of them are the ends of one.
//!
//! An end that is over waits for the other one, if that is on this host and still lives: for [`PATIENCE_NS`] of the trace's own
//! time, and while no more than [`WAITING`] wait. Then it is drawn alone, and the other end alone when it is over.

use std::collections::{HashMap, VecDeque};

use crate::model::{
    Connection, Final, Mark, Role, Transition,
    ladder::{Ends, Ladder, Moments, Side},
};

/// How long an end waits for the other one, nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How many ends wait at most; the oldest is drawn to make room.
const WAITING: usize = 4096;
/// Timelines that end without a word leave something behind: so many more than live ones may be kept before they are looked for.
const SPARE: usize = 1024;

#[derive(Debug, Default)]
struct Live {
    moments: Moments,
    ends: Option<Ends>,
}

#[derive(Debug)]
struct Waiting {
    side: Side,
    moments: Moments,
    ends: Ends,
    until: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ladders {
    live: HashMap<u64, Live>,
    /// Which of the live ones has which ends.
    ends: HashMap<Ends, u64>,
    /// In the order in which they were over.
    waiting: VecDeque<Waiting>,
    /// To be drawn.
    pub ready: VecDeque<Ladder>,
}

impl Ladders {
    /// A connection changed its state.
    pub fn transition(&mut self, c: &Connection, t: &Transition) {
        if c.role == Some(Role::Listener) {
            return;
        }
        self.live.entry(c.id).or_default().moments.transition(t);
        self.name(c);
    }

    /// A segment was sent again, or a RST was sent or received.
    pub fn mark(&mut self, c: &Connection, mark: &Mark) {
        self.live.entry(c.id).or_default().moments.mark(mark);
        self.name(c);
    }

    /// Know a connection by its ends, from when it has them.
    fn name(&mut self, c: &Connection) {
        let Some(live) = self.live.get_mut(&c.id).filter(|live| live.ends.is_none()) else { return };
        if let Some(ends) = Ends::of(c) {
            live.ends = Some(ends);
            self.ends.insert(ends, c.id);
        }
    }

    /// A connection is over and not to be drawn.
    pub fn forget(&mut self, id: u64) {
        self.unwanted(id);
        self.take(id);
    }

    /// A connection is not to be drawn, as far as is known: its other end does not wait for it, or has waited long enough.
    pub fn unwanted(&mut self, id: u64) {
        let Some(ends) = self.live.get(&id).and_then(|live| live.ends) else { return };
        if self.ends.get(&ends) == Some(&id) {
            self.ends.remove(&ends);
        }
        if let Some(Waiting { side, moments, .. }) = self.take_waiting(ends.swapped()) {
            self.ready.push_back(Ladder::of_one(side, &moments));
        }
    }

    fn take_waiting(&mut self, ends: Ends) -> Option<Waiting> {
        let at = self.waiting.iter().position(|w| w.ends == ends)?;
        self.waiting.remove(at)
    }

    fn take(&mut self, id: u64) -> Live {
        let live = self.live.remove(&id).unwrap_or_default();
        if let Some(ends) = live.ends
            && self.ends.get(&ends) == Some(&id)
        {
            self.ends.remove(&ends);
        }
        live
    }

    /// A connection is over, or the run is.
    pub fn over(&mut self, c: &Connection, f: &Final) {
        let Live { moments, .. } = self.take(c.id);
        let side = Side { connection: c.clone(), last: f.clone() };
        let Some(ends) = Ends::of(c) else {
            return self.ready.push_back(Ladder::of_one(side, &moments));
        };
        let other = ends.swapped();
        if let Some(first) = self.take_waiting(other) {
            let (first, second) = ((first.side, &first.moments), (side, &moments));
            let client =
                second.0.connection.role == Some(Role::Client) && first.0.connection.role != Some(Role::Client);
            let (left, right) = if client { (second, first) } else { (first, second) };
            return self.ready.push_back(Ladder::of_both(left, right));
        }
        // A socket that is connected to itself is both ends.
        if other == ends || !self.ends.contains_key(&other) {
            return self.ready.push_back(Ladder::of_one(side, &moments));
        }
        if self.waiting.len() >= WAITING {
            self.draw_oldest();
        }
        self.waiting.push_back(Waiting { side, moments, ends, until: f.ts.saturating_add(PATIENCE_NS) });
    }

    /// Time goes on.
    pub fn advance(&mut self, now: u64) {
        while self.waiting.front().is_some_and(|w| w.until < now) {
            self.draw_oldest();
        }
    }

    /// Nothing will come any more.
    pub fn finish(&mut self) {
        while !self.waiting.is_empty() {
            self.draw_oldest();
        }
    }

    fn draw_oldest(&mut self) {
        if let Some(Waiting { side, moments, .. }) = self.waiting.pop_front() {
            self.ready.push_back(Ladder::of_one(side, &moments));
        }
    }

    /// Forget what timelines left that ended without a word, if it is much. `ids`: those that live.
    pub fn prune(&mut self, live: usize, ids: impl Iterator<Item = u64>) {
        if self.live.len() > live + SPARE {
            let ids: std::collections::HashSet<u64> = ids.collect();
            self.live.retain(|id, _| ids.contains(id));
            self.ends.retain(|_, id| ids.contains(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        End, State,
        fixture::{self, MS, transition},
    };

    /// Both ends of one connection, number `n` of its kind.
    fn pair(n: u16) -> [Connection; 2] {
        let mut client = fixture::client();
        client.id = u64::from(n) * 2;
        client.tuple = fixture::v4([10, 0, 0, 1], n, [10, 0, 0, 2], 80);
        let mut server = client.clone();
        server.id += 1;
        server.role = Some(Role::Server);
        server.tuple = fixture::v4([10, 0, 0, 2], 80, [10, 0, 0, 1], n);
        if let Some(h) = &mut server.handshake {
            std::mem::swap(&mut h.isn_local, &mut h.isn_remote);
        }
        [client, server]
    }

    fn established(ladders: &mut Ladders, c: &Connection) {
        ladders.transition(c, &transition(112 * MS, State::SynSent, State::Established, None));
    }

    fn drawn(ladders: &mut Ladders) -> Vec<(u64, Option<u64>)> {
        ladders.ready.drain(..).map(|l| (l.left.connection.id, l.right.map(|r| r.connection.id))).collect()
    }

    #[test]
    fn the_end_that_is_over_first_waits_and_the_client_is_at_the_left() {
        let mut ladders = Ladders::default();
        for first in [0, 1] {
            let ends = pair(7);
            ends.iter().for_each(|c| established(&mut ladders, c));
            ladders.over(&ends[first], &fixture::fin());
            assert_eq!(drawn(&mut ladders), []);
            ladders.over(&ends[1 - first], &fixture::fin());
            assert_eq!(drawn(&mut ladders), [(14, Some(15))]);
        }
        assert!(ladders.live.is_empty() && ladders.ends.is_empty());
    }

    #[test]
    fn an_end_whose_other_is_elsewhere_does_not_wait() {
        let mut ladders = Ladders::default();
        let [client, other] = [&pair(7)[0], &pair(8)[1]].map(Clone::clone);
        [&client, &other].into_iter().for_each(|c| established(&mut ladders, c));
        ladders.over(&client, &fixture::fin());
        assert_eq!(drawn(&mut ladders), [(14, None)]);
    }

    #[test]
    fn an_end_whose_other_is_not_wanted_does_not_wait() {
        let mut ladders = Ladders::default();
        let ends = pair(7);
        ends.iter().for_each(|c| established(&mut ladders, c));
        ladders.unwanted(15);
        ladders.over(&ends[0], &fixture::fin());
        assert_eq!(drawn(&mut ladders), [(14, None)], "known before");
        ladders.forget(15);

        let ends = pair(8);
        ends.iter().for_each(|c| established(&mut ladders, c));
        ladders.over(&ends[0], &fixture::fin());
        assert_eq!(drawn(&mut ladders), []);
        ladders.forget(17);
        assert_eq!(drawn(&mut ladders), [(16, None)], "known when it waits");
        assert!(ladders.live.is_empty() && ladders.ends.is_empty() && ladders.waiting.is_empty());
    }

    #[test]
    fn patience_ends_and_so_does_the_run() {
        let mut ladders = Ladders::default();
        let ends = pair(7);
        ends.iter().for_each(|c| established(&mut ladders, c));
        let f = Final { end: Some(End::Fin), ..fixture::fin() };
        ladders.over(&ends[0], &f);
        ladders.advance(f.ts + PATIENCE_NS);
        assert_eq!(drawn(&mut ladders), []);
        ladders.advance(f.ts + PATIENCE_NS + 1);
        assert_eq!(drawn(&mut ladders), [(14, None)]);
        ladders.over(&ends[1], &f);
        assert_eq!(drawn(&mut ladders), [(15, None)]);

        let ends = pair(9);
        ends.iter().for_each(|c| established(&mut ladders, c));
        ladders.over(&ends[0], &f);
        ladders.finish();
        assert_eq!(drawn(&mut ladders), [(18, None)]);
    }

    #[test]
    fn those_that_wait_and_what_is_left_behind_are_bounded() {
        let mut ladders = Ladders::default();
        for n in 1..=WAITING as u16 + 1 {
            let ends = pair(n);
            ends.iter().for_each(|c| established(&mut ladders, c));
            ladders.over(&ends[0], &fixture::fin());
        }
        assert_eq!(drawn(&mut ladders), [(2, None)]);
        assert_eq!(ladders.live.len(), WAITING + 1);
        ladders.prune(1, [5].into_iter());
        assert_eq!((ladders.live.len(), ladders.ends.len()), (1, 1));
    }
}
