//! Local ports of connections that this host opens, by where they go.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::window::Window;
use crate::model::{Connection, End, Final, Found, Process, Remnant, Role, State, Transition, address};

const SECOND: u64 = 1_000_000_000;
/// Calls that found no port are remembered for so many seconds.
const KEPT: u64 = 16;
/// A timewait socket of which nobody tells when it goes.
const TIME_WAIT_NS: u64 = 61 * SECOND;
/// Connections that are told apart.
const CONNECTIONS: usize = 131_072;
/// Ways that are told apart.
const WAYS: usize = 16_384;

/// From an address of this host to a service: each connection on it needs a local port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// Network namespace.
    pub netns: u32,
    /// This end's address.
    pub laddr: IpAddr,
    /// The service.
    pub raddr: IpAddr,
    /// Its port.
    pub rport: u16,
}

/// How many ports a way takes.
#[derive(Debug)]
pub struct Used {
    /// By connections that are there.
    pub open: u64,
    /// By timewait sockets.
    pub waiting: u64,
    /// Calls of connect() that found none, of late.
    pub failed: Window<u64>,
    /// Who made the last of them.
    pub failed_for: Option<Arc<Process>>,
}

impl Default for Used {
    fn default() -> Self {
        Self { open: 0, waiting: 0, failed: Window::new(SECOND, KEPT), failed_for: None }
    }
}

impl Used {
    /// Calls that found no port in the last seconds before `now`.
    #[must_use]
    pub fn failed(&self, now: u64, seconds: u64) -> u64 {
        self.failed.sum(now, seconds * SECOND)
    }
}

#[derive(Debug)]
struct Port {
    way: Way,
    owner: Option<Arc<Process>>,
    /// When its time is up, if it is one of a timewait socket.
    until: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ports {
    /// By the number of the timeline.
    of: BTreeMap<u64, Port>,
    ways: BTreeMap<Way, Used>,
    /// When old ones are looked for next.
    next: u64,
}

/// connect() looks for a port in SYN_SENT. Without one it goes back to CLOSE: no segment was sent, and the socket has no error. (What bind()
/// says that finds none changes no state.)
fn found_no_port(c: &Connection, f: &Final) -> bool {
    let connecting = c.states.iter().all(|(state, _)| matches!(state, State::Close | State::SynSent));
    let silent = f.counters.is_none_or(|counters| counters.segs_out == 0);
    connecting
        && silent
        && c.tuple.lport == 0
        && f.end == Some(End::Aborted)
        && f.errno == 0
        && !c.preexisting
        && !f.late
}

fn way(c: &Connection) -> Way {
    let [laddr, raddr] = [&c.tuple.laddr, &c.tuple.raddr].map(|addr| address(c.tuple.family, addr));
    Way { netns: c.tuple.netns, laddr, raddr, rport: c.tuple.rport }
}

impl Ports {
    /// A connection goes on.
    pub(super) fn transition(&mut self, c: &Connection, t: &Transition) {
        if c.role == Some(Role::Client) && matches!(t.to, State::SynSent | State::Established) {
            self.open(c);
        }
    }

    /// One that is older than the trace.
    pub(super) fn socket(&mut self, c: &Connection, _: &Found) {
        if c.role == Some(Role::Client) {
            self.open(c);
        }
    }

    fn open(&mut self, c: &Connection) {
        let way = way(c);
        if let Some(port) = self.of.get_mut(&c.id) {
            if port.way == way || port.until.is_some() {
                return;
            }
            // Its address was not chosen yet.
            self.drop_port(c.id);
        }
        if self.of.len() >= CONNECTIONS || (self.ways.len() >= WAYS && !self.ways.contains_key(&way)) {
            return;
        }
        self.of.insert(c.id, Port { way, owner: c.owner.clone(), until: None });
        self.ways.entry(way).or_default().open += 1;
    }

    fn drop_port(&mut self, id: u64) {
        let Some(port) = self.of.remove(&id) else { return };
        if let Some(used) = self.ways.get_mut(&port.way) {
            let n = if port.until.is_some() { &mut used.waiting } else { &mut used.open };
            *n = n.saturating_sub(1);
        }
    }

    /// A connection is over; a timewait socket may keep its port.
    pub(super) fn connection(&mut self, c: &Connection, f: &Final) {
        if c.role != Some(Role::Client) {
            return;
        }
        if found_no_port(c, f) {
            self.drop_port(c.id);
            let way = way(c);
            if self.ways.len() < WAYS || self.ways.contains_key(&way) {
                let used = self.ways.entry(way).or_default();
                *used.failed.at(f.ts) += &1;
                used.failed_for.clone_from(&c.owner);
            }
            return;
        }
        let last = c.states.last().map(|entry| entry.state);
        let Some(port) = self.of.get_mut(&c.id) else { return };
        if matches!(last, Some(State::TimeWait | State::FinWait2)) {
            port.until = Some(f.ts.saturating_add(TIME_WAIT_NS));
            if let Some(used) = self.ways.get_mut(&port.way) {
                (used.open, used.waiting) = (used.open.saturating_sub(1), used.waiting + 1);
            }
        } else {
            self.drop_port(c.id);
        }
    }

    /// A timewait socket is gone.
    pub(super) fn time_wait(&mut self, r: &Remnant) {
        self.drop_port(r.id);
    }

    pub(super) fn advance(&mut self, now: u64) {
        if now < self.next {
            return;
        }
        self.next = now + SECOND;
        let Self { of, ways, .. } = self;
        of.retain(|_, port| {
            let stays = port.until.is_none_or(|until| until > now);
            if !stays && let Some(used) = ways.get_mut(&port.way) {
                used.waiting = used.waiting.saturating_sub(1);
            }
            stays
        });
        ways.retain(|_, used| used.failed.lives(now) || used.open + used.waiting > 0);
    }

    /// All ways.
    pub fn iter(&self) -> impl Iterator<Item = (&Way, &Used)> {
        self.ways.iter()
    }

    /// Whose ports these are: the process with the most of them first.
    #[must_use]
    pub fn owners(&self, way: &Way) -> Vec<(Arc<Process>, u64)> {
        let mut owners = BTreeMap::<u32, (Arc<Process>, u64)>::new();
        for owner in self.of.values().filter(|port| port.way == *way).filter_map(|port| port.owner.as_ref()) {
            owners.entry(owner.pid).or_insert_with(|| (Arc::clone(owner), 0)).1 += 1;
        }
        let mut owners: Vec<_> = owners.into_values().collect();
        owners.sort_by_key(|(owner, n)| (std::cmp::Reverse(*n), owner.pid));
        owners
    }
}
