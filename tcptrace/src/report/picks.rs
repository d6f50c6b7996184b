//! Which connections are worth a ladder: the slowest handshake, the one with the most segments sent again, one of each abnormal end,
//! and an ordinary one to compare them with.

use crate::model::{
    End, Role,
    ladder::{Ladder, Side},
};

/// Why a connection was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No other handshake took as long.
    SlowestHandshake,
    /// No other had as many segments sent again.
    MostRetransmitted,
    /// The first that ended so: its number in [`End::ALL`].
    Ended(usize),
    /// The first that was closed in order.
    Ordinary,
}

/// A connection that was picked.
#[derive(Clone, Debug)]
pub struct Pick<'a> {
    /// Why: at least one reason.
    pub why: Vec<Why>,
    /// Its ladder.
    pub ladder: &'a Ladder,
}

#[derive(Debug)]
struct Picked {
    why: Why,
    /// The larger one stays; of equals the first.
    score: u64,
    ladder: Ladder,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Picks(Vec<Picked>);

impl Picks {
    /// A connection as a ladder: keep it if it is worth it.
    pub fn offer(&mut self, l: &Ladder) {
        let sides = || std::iter::once(&l.left).chain(&l.right);
        if l.left.connection.role == Some(Role::Listener) {
            return;
        }
        if let Some(ns) = sides().filter_map(|side| side.last.handshake_ns).max() {
            self.keep(Why::SlowestHandshake, ns, l);
        }
        let again: u64 = sides().filter_map(|side| side.last.counters).map(|n| u64::from(n.retrans)).sum();
        if again > 0 {
            self.keep(Why::MostRetransmitted, again, l);
        }
        // One that is known from its beginning is better than one that is not, and both ends are better than one.
        let whole = sides().all(|side| !side.connection.preexisting && side.connection.gaps == 0);
        let score = 2 * u64::from(whole) + u64::from(l.right.is_some());
        let failed = |side: &Side| side.last.end.filter(|end| end.is_failure());
        for end in sides().filter_map(failed) {
            self.keep(Why::Ended(end as usize), score, l);
        }
        if l.left.last.end == Some(End::Fin) && sides().all(|side| failed(side).is_none()) && again == 0 {
            self.keep(Why::Ordinary, score, l);
        }
    }

    fn keep(&mut self, why: Why, score: u64, l: &Ladder) {
        match self.0.iter_mut().find(|p| p.why == why) {
            Some(before) if before.score >= score => {}
            Some(before) => *before = Picked { why, score, ladder: l.clone() },
            None => self.0.push(Picked { why, score, ladder: l.clone() }),
        }
    }

    /// Each connection once.
    pub fn all(&self) -> Vec<Pick<'_>> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|p| p.why);
        let mut picks: Vec<Pick> = Vec::new();
        for Picked { why, ladder, .. } in sorted {
            let id = ladder.left.connection.id;
            match picks.iter_mut().find(|p| p.ladder.left.connection.id == id) {
                Some(pick) => pick.why.push(*why),
                None => picks.push(Pick { why: vec![*why], ladder }),
            }
        }
        picks
    }
}
