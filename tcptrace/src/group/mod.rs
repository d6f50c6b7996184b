//! Connections that are over → groups of them, by what they have in common: `conns --by`.

use std::collections::HashMap;

use crate::model::{Connection, End, Final, Payload, Shape};

mod key;
mod spread;
#[cfg(test)]
mod tests;

pub use key::{Key, Value};
pub use spread::{Quantiles, Spread};

/// Groups that are told apart; what would need one more goes into a group of its own.
const ROOM: usize = 100_000;

/// Connections with the same values of all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// By [`End`].
    ends: [u64; End::ALL.len()],
    /// Lifetimes of those that began and ended while they were watched.
    pub lifetime: Spread,
    /// Of those whose handshake was seen.
    pub handshake: Spread,
    /// Smoothed round-trip times at the end.
    pub rtt: Spread,
    /// Payload bytes sent, again included, as far as counters are known.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

impl Group {
    /// How many ended so.
    #[must_use]
    pub fn ended(&self, end: End) -> u64 {
        self.ends[end as usize]
    }

    /// Ends that there were and how many; None: those that are not known.
    pub fn ends(&self) -> impl Iterator<Item = (Option<End>, u64)> {
        let unknown = self.count - self.ends.iter().sum::<u64>();
        let known = End::ALL.into_iter().map(|end| (Some(end), self.ends[end as usize]));
        known.chain([(None, unknown)]).filter(|(_, n)| *n > 0)
    }

    /// Those of another group, too.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.ends.iter_mut().zip(other.ends).for_each(|(n, more)| *n += more);
        self.lifetime.merge(&other.lifetime);
        self.handshake.merge(&other.handshake);
        self.rtt.merge(&other.rtt);
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }

    /// Count a connection that is over, or was open at the end.
    pub fn add(&mut self, c: &Connection, f: &Final) {
        self.count += 1;
        if let Some(end) = f.end {
            self.ends[end as usize] += 1;
        }
        if let Some(ns) = f.lasted_ns(c).filter(|_| f.end != Some(End::Open)) {
            self.lifetime.add(ns / 1000);
        }
        if let Some(ns) = f.handshake_ns {
            self.handshake.add(ns / 1000);
        }
        if let Some(us) = f.srtt_us(c) {
            self.rtt.add(us.into());
        }
        if let Some(counters) = &f.counters {
            let payload = Payload::new(counters, Shape::of(c));
            self.bytes_sent += payload.sent;
            self.bytes_received += payload.received;
        }
    }
}

/// All groups of a run.
#[derive(Clone, Debug)]
pub struct Groups {
    keys: Vec<Key>,
    known: HashMap<Box<[Value]>, Group>,
    other: Group,
    room: usize,
    /// Values of the latest connection, kept for its memory.
    values: Vec<Value>,
}

impl Groups {
    /// None yet.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self { keys, known: HashMap::new(), other: Group::default(), room: ROOM, values: Vec::new() }
    }

    /// The same with room for fewer groups.
    #[cfg(test)]
    pub(crate) fn with_room(keys: Vec<Key>, room: usize) -> Self {
        Self { room, ..Self::new(keys) }
    }

    /// Count a connection that is over.
    pub fn add(&mut self, c: &Connection, f: &Final) {
        let Self { keys, known, other, room, values } = self;
        values.clear();
        values.extend(keys.iter().map(|key| key.of(c, f)));
        if let Some(group) = known.get_mut(values.as_slice()) {
            group.add(c, f);
        } else if known.len() < *room {
            known.entry(values.as_slice().into()).or_default().add(c, f);
        } else {
            other.add(c, f);
        }
    }

    /// What they are grouped by.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// None yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many connections are in them, and in [`Groups::other`].
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.known.values().map(|group| group.count).sum::<u64>() + self.other.count
    }

    /// Largest first; those of one size by their values.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&[Value], &Group)> {
        self.largest(usize::MAX)
    }

    /// The first `n` of [`Groups::sorted`], for little more than a look at each of the others.
    #[must_use]
    pub fn largest(&self, n: usize) -> Vec<(&[Value], &Group)> {
        type Row<'a> = (&'a [Value], &'a Group);
        let order = |a: &Row, b: &Row| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(b.0));
        let mut all: Vec<Row> = self.known.iter().map(|(values, group)| (&**values, group)).collect();
        if n < all.len() {
            all.select_nth_unstable_by(n, order);
            all.truncate(n);
        }
        all.sort_unstable_by(order);
        all
    }

    /// Connections of groups that there was no room for.
    #[must_use]
    pub fn other(&self) -> Option<&Group> {
        (self.other.count > 0).then_some(&self.other)
    }
}
