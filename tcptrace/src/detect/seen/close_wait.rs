//! Connections in CLOSE_WAIT: the peer has closed, this end has not.

use std::{collections::BTreeMap, net::IpAddr, ops::AddAssign, sync::Arc};

use super::window::Window;
use crate::model::{
    Connection, Final, Found, Role, Stack, State, Subject, Transition, Unread, address, finding::netns,
};

const SECOND: u64 = 1_000_000_000;
/// What closed is remembered for so many slots.
const KEPT: u64 = 10;
const SLOT: u64 = 60 * SECOND;
/// Connections that are told apart.
const SOCKETS: usize = 65_536;
/// Groups of them.
const GROUPS: usize = 4096;

/// A connection in CLOSE_WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// When it came there; of one that is older than the trace when it was found.
    pub since: u64,
    /// Its coming was seen.
    pub seen: bool,
    /// The peer.
    pub raddr: IpAddr,
    /// The owner's descriptor, -1 where not known.
    pub fd: i32,
    /// Bytes received and not read; None: not known.
    pub unread: Option<u32>,
    /// Its process has read the end of the stream.
    pub at_end: bool,
    /// When something was last read from it or sent on it, as far as that is known.
    pub used: u64,
    sent: u64,
}

/// Connections that left CLOSE_WAIT, by how long they were in it.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// By the number of binary digits of the seconds.
    ages: [u32; 16],
    /// The longest, nanoseconds.
    pub longest: u64,
}

impl Left {
    fn add(&mut self, ns: u64) {
        self.ages[digits(ns).min(15)] += 1;
        self.longest = self.longest.max(ns);
    }

    /// How many took about as long as this, or longer.
    #[must_use]
    pub fn at_least(&self, ns: u64) -> u32 {
        self.ages[digits(ns).min(15)..].iter().sum()
    }
}

fn digits(ns: u64) -> usize {
    (u64::BITS - (ns / SECOND).leading_zeros()) as usize
}

impl AddAssign<&Self> for Left {
    fn add_assign(&mut self, other: &Self) {
        self.ages.iter_mut().zip(other.ages).for_each(|(a, b)| *a += b);
        self.longest = self.longest.max(other.longest);
    }
}

/// Connections of one process that may have one cause: those to one place, or those that were accepted at one port.
#[derive(Debug)]
pub struct Group {
    /// The process, and the place or the port.
    pub subject: Subject,
    /// This end's side of them.
    pub role: Option<Role>,
    /// In CLOSE_WAIT now, by the number of the timeline.
    pub held: BTreeMap<u64, Held>,
    left: Window<Left>,
}

impl Group {
    /// Those that left CLOSE_WAIT in the last minutes.
    #[must_use]
    pub fn left(&self, now: u64) -> Left {
        self.left.sum(now, KEPT * SLOT)
    }
}

/// Namespace, process, side, the place or the port.
type Key = (u32, u32, Option<Role>, Option<IpAddr>, u16);

/// See the module.
#[derive(Debug, Default)]
pub struct CloseWaits {
    groups: BTreeMap<Key, Group>,
    /// Number of the timeline → its group.
    of: BTreeMap<u64, Key>,
    /// Where connections were opened or accepted, by the number of the timeline: of all that are open, where that is asked for.
    opened: BTreeMap<u64, Arc<Stack>>,
}

fn key(c: &Connection) -> Key {
    let pid = c.owner.as_ref().map_or(0, |owner| owner.pid);
    let raddr = address(c.tuple.family, &c.tuple.raddr);
    match c.role {
        Some(Role::Server | Role::Listener) => (c.tuple.netns, pid, c.role, None, c.tuple.lport),
        Some(Role::Client) => (c.tuple.netns, pid, c.role, Some(raddr), c.tuple.rport),
        // Which of both ports is the service's is not known.
        None => (c.tuple.netns, pid, None, Some(raddr), 0),
    }
}

impl CloseWaits {
    /// A connection came to CLOSE_WAIT or left it.
    pub(super) fn transition(&mut self, c: &Connection, t: &Transition) {
        if t.to == State::CloseWait {
            // Where records of it were lost nobody saw it come.
            self.add(c, t.ts, !t.is_found(), t.ts);
        } else if t.from == State::CloseWait {
            self.leave(c.id, t.ts);
        }
    }

    /// One that is older than the trace.
    pub(super) fn socket(&mut self, c: &Connection, f: &Found) {
        if c.state == State::CloseWait {
            self.add(c, f.ts, false, f.ts);
            let sent = f.counters.bytes_sent;
            // The FIN has a sequence number, too.
            self.unread(
                c,
                &Unread { ts: f.ts, unread: f.unread.saturating_sub(1), at_end: f.unread == 0, unsent: f.unsent, sent },
            );
        }
    }

    pub(super) fn connection(&mut self, c: &Connection, f: &Final) {
        self.leave(c.id, f.ts);
        self.opened.remove(&c.id);
    }

    /// Its owner became known at `now`, or another.
    pub(super) fn owner(&mut self, c: &Connection, now: u64) {
        let Some(before) = self.of.get(&c.id).copied() else {
            if let Some(entry) = c.states.last().filter(|entry| entry.state == State::CloseWait) {
                let since = c.start_ns.saturating_add(entry.at);
                self.add(c, since, entry.seen, now.max(since));
            }
            return;
        };
        let Some(group) = self.groups.get_mut(&before) else { return };
        let Some(mut held) = group.held.remove(&c.id) else { return };
        held.fd = c.fd;
        self.put(c, held);
    }

    /// Where one was opened or accepted.
    pub(super) fn opened_at(&mut self, c: &Connection, stack: &Arc<Stack>) {
        if self.opened.len() < SOCKETS {
            self.opened.insert(c.id, stack.clone());
        }
    }

    /// Where most of a group were opened or accepted, and how many; None: that is not known of any.
    #[must_use]
    pub fn opened(&self, group: &Group) -> Option<(&Stack, usize)> {
        let mut at: Vec<(&Arc<Stack>, usize)> = Vec::new();
        for stack in group.held.keys().filter_map(|id| self.opened.get(id)) {
            match at.iter_mut().find(|(known, _)| Arc::ptr_eq(known, stack)) {
                Some((_, n)) => *n += 1,
                None => at.push((stack, 1)),
            }
        }
        at.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        at.first().map(|(stack, n)| (&***stack, *n))
    }

    /// What one holds.
    pub(super) fn unread(&mut self, c: &Connection, u: &Unread) {
        let held = self.of.get(&c.id).and_then(|key| self.groups.get_mut(key)).and_then(|g| g.held.get_mut(&c.id));
        let Some(held) = held else { return };
        let read = held.unread.is_some_and(|before| u.unread < before) || u.at_end && !held.at_end;
        let sent = held.unread.is_some() && u.sent > held.sent;
        if read || sent {
            held.used = u.ts;
        }
        (held.unread, held.at_end, held.sent) = (Some(u.unread), u.at_end, u.sent);
    }

    fn add(&mut self, c: &Connection, since: u64, seen: bool, used: u64) {
        // In the accept queue it is no process' yet: that nobody accepts is another trouble.
        let queued = c.role == Some(Role::Server) && c.inode == 0 && !c.notes.accepted;
        if !queued && self.of.len() < SOCKETS && !self.of.contains_key(&c.id) {
            let raddr = address(c.tuple.family, &c.tuple.raddr);
            self.put(c, Held { since, seen, raddr, fd: c.fd, unread: None, at_end: false, used, sent: 0 });
        }
    }

    fn put(&mut self, c: &Connection, held: Held) {
        let key = key(c);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            self.of.remove(&c.id);
            return;
        }
        self.of.insert(c.id, key);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            subject: Subject {
                netns: netns(key.0),
                lport: (matches!(key.2, Some(Role::Server | Role::Listener)) && key.4 != 0).then_some(key.4),
                raddr: key.3,
                rport: (key.2 == Some(Role::Client) && key.4 != 0).then_some(key.4),
                owner: c.owner.clone(),
                ..Subject::default()
            },
            role: key.2,
            held: BTreeMap::new(),
            left: Window::new(SLOT, KEPT),
        });
        group.held.insert(c.id, held);
    }

    fn leave(&mut self, id: u64, ts: u64) {
        let Some(group) = self.of.remove(&id).and_then(|key| self.groups.get_mut(&key)) else { return };
        if let Some(held) = group.held.remove(&id) {
            group.left.at(ts).add(ts.saturating_sub(held.since));
        }
    }

    pub(super) fn advance(&mut self, now: u64) {
        self.groups.retain(|_, group| group.left.lives(now) || !group.held.is_empty());
    }

    /// All of them, in an order that is the same each time.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }
}
