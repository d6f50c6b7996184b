//! Both ends of a connection on one host: which two belong together, and one list of steps from two.

use std::net::Ipv6Addr;

use super::{Beside, Direction, Part, Segment, Step};
use crate::model::Connection;

/// `AF_INET6` of `<sys/socket.h>`.
const AF_INET6: u16 = 10;

/// What names a connection at one of its ends: both addresses, and both initial sequence numbers, because ports are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    local: End,
    remote: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct End {
    addr: [u8; 16],
    port: u16,
    isn: u32,
}

impl Ends {
    /// None until the handshake is over and where the role, by which the own number is known, is not.
    #[must_use]
    pub fn of(c: &Connection) -> Option<Self> {
        let t = &c.tuple;
        // The network namespace is not part of it: the ends may be in two.
        let end = |addr, port, isn| End { addr: plain(t.family, addr), port, isn };
        let local = end(t.laddr, t.lport, c.isn_local()?);
        Some(Self { local, remote: end(t.raddr, t.rport, c.handshake?.isn_remote) })
    }

    /// What the other end calls it.
    #[must_use]
    pub fn swapped(&self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

/// A v4-mapped address as the IPv4 address that is in the packet.
fn plain(family: u16, addr: [u8; 16]) -> [u8; 16] {
    match Ipv6Addr::from(addr).to_ipv4_mapped() {
        Some(v4) if family == AF_INET6 => {
            let mut plain = [0; 16];
            plain[..4].copy_from_slice(&v4.octets());
            plain
        }
        _ => addr,
    }
}

/// The `n`th segment of its kind.
type Key = (Direction, Part, bool, usize);

/// One list from what the ends at the left and at the right tell, each as if it were the left one.
pub(super) fn merge(left: Vec<Step>, right: Vec<Step>) -> Vec<Step> {
    let right: Vec<Step> = right.into_iter().map(Step::mirrored).collect();
    let (left_order, right_order) = (order(&left, 0), order(&right, 1));
    let right_keys = keys(&right);
    let mut taken = vec![false; right.len()];
    let mut steps = Vec::with_capacity(left.len() + 2);
    for ((step, key), order) in left.iter().zip(keys(&left)).zip(left_order) {
        let same = key.and_then(|key| right_keys.iter().position(|k| *k == Some(key)));
        let Some(i) = same else {
            steps.push((order, alone(*step, 1)));
            continue;
        };
        taken[i] = true;
        // In the order of sending, which is not after receiving.
        let (sent, received) = match step.segment.map(|s| s.direction) {
            Some(Direction::In) => (right[i].times[1].ok_or(right_order[i]), order),
            Some(Direction::Out) | None => (step.times[0].ok_or(order), right_order[i]),
        };
        let order = sent.unwrap_or_else(|inherited| inherited.min(received));
        steps.push((order, both(step, &right[i])));
    }
    let rest = right.iter().zip(right_order).zip(taken).filter(|(_, taken)| !taken);
    steps.extend(rest.map(|((step, order), _)| (order, alone(*step, 0))));
    steps.sort_by_key(|(order, _)| *order);
    steps.into_iter().map(|(_, step)| step).collect()
}

fn keys(steps: &[Step]) -> Vec<Option<Key>> {
    let mut keys: Vec<Option<Key>> = Vec::with_capacity(steps.len());
    for step in steps {
        let key = step.segment.map(|s| {
            // Whether it was the ACK of the other FIN, too, one end may not know.
            let part = if s.part == Part::FinAck { Part::Fin } else { s.part };
            let same = |k: &&Option<Key>| k.is_some_and(|k| (k.0, k.1, k.2) == (s.direction, part, s.again));
            (s.direction, part, s.again, keys.iter().filter(same).count())
        });
        keys.push(key);
    }
    keys
}

/// When each step was taken at that `end`; where that is not known, when the one before it was, or else the first.
fn order(steps: &[Step], end: usize) -> Vec<u64> {
    let first = steps.iter().find_map(|s| s.times[end]).unwrap_or(0);
    let latest = |latest: &mut u64, s: &Step| {
        *latest = s.times[end].unwrap_or(0).max(*latest);
        Some(*latest)
    };
    steps.iter().scan(first, latest).collect()
}

/// A step that the other `end` says nothing about: what was concluded of that end is not needed, for it tells its states itself.
fn alone(step: Step, end: usize) -> Step {
    let mut step = step;
    step.states[end] = seen(step.states[end]);
    step
}

fn seen(beside: Option<Beside>) -> Option<Beside> {
    beside.filter(|b| !b.concluded)
}

/// A segment that both ends tell of.
fn both(left: &Step, right: &Step) -> Step {
    let times = [left.times[0], right.times[1]];
    let segment = left.segment.zip(right.segment).map(|(l, r)| Segment {
        part: if r.part == Part::FinAck { r.part } else { l.part },
        seq: l.seq.or(r.seq),
        // Who received it may tell of a copy, or of the highest ACK by then.
        ack: if l.direction == Direction::Out { l.ack.or(r.ack) } else { r.ack.or(l.ack) },
        // Each end may only conclude it: if one received it then, and the other has it sent, it was there.
        dashed: l.dashed && r.dashed && times[usize::from(l.direction == Direction::Out)].is_none(),
        note: l.note.or(r.note),
        ..l
    });
    Step { times, segment, states: [seen(left.states[0]), seen(right.states[1])], torn: left.torn.or(right.torn) }
}
