//! Who tries which ports: segments to closed ports, half-open requests that their sender resets, connections without a word.

use std::{collections::BTreeMap, net::IpAddr};

use tcptrace_common::record::Tuple;

use crate::model::{
    Connection, End, Final, Outcome, Payload, Probe, Request, Role, Shape, Subject, address, finding, probe::Kind,
};

const SECOND: u64 = 1_000_000_000;
/// Sources that are told apart.
const SOURCES: usize = 1024;
/// Ports of a source that are told apart, in each half of the time.
const PORTS: usize = 4096;
/// What was tried longer ago is forgotten at the latest after twice that.
const HALF_NS: u64 = 60 * SECOND;

/// How often a port was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// It is closed: nobody listens there.
    pub closed: u32,
    /// Somebody listens there, and the handshake was broken off, or nothing was said.
    pub open: u32,
}

/// Who tries ports.
#[derive(Debug)]
pub struct Source {
    /// Network namespace that is tried, and address of who tries.
    pub key: (u32, IpAddr),
    /// The address that was tried last.
    pub laddr: IpAddr,
    /// When it began.
    pub first: u64,
    /// When something was last tried.
    pub last: u64,
    /// By how: segments to closed ports.
    pub kinds: BTreeMap<Kind, u64>,
    /// Segments to closed ports that the kernel programs had held back for their rate, from whomever, at the first that they told and at the
    /// last.
    held_back: Option<(u64, u64)>,
    /// This half's and the last one's.
    ports: [BTreeMap<u16, Tried>; 2],
    turned: u64,
}

impl Source {
    /// Ports that were tried of late, in their order.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u16, Tried> {
        let mut all = BTreeMap::<u16, Tried>::new();
        for (port, tried) in self.ports.iter().flatten() {
            let sum = all.entry(*port).or_default();
            sum.closed += tried.closed;
            sum.open += tried.open;
        }
        all
    }

    /// There were more than are told apart, or told at all.
    #[must_use]
    pub fn is_more(&self) -> bool {
        self.held_back() > 0 || self.ports.iter().any(|half| half.len() >= PORTS)
    }

    /// Segments to closed ports, from whomever, that were not told meanwhile, for their rate.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.held_back.map_or(0, |(first, last)| last.saturating_sub(first))
    }

    /// Who it is.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject { netns: finding::netns(self.key.0), raddr: Some(self.key.1), ..Subject::default() }
    }

    fn turn(&mut self, now: u64) {
        if now.saturating_sub(self.turned) >= HALF_NS {
            self.ports.swap(0, 1);
            self.ports[0].clear();
            if now.saturating_sub(self.turned) >= 2 * HALF_NS {
                self.ports[1].clear();
            }
            self.turned = now;
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Scans {
    of: BTreeMap<(u32, IpAddr), Source>,
}

impl Scans {
    /// A segment met a closed port. One that answers, or goes on with, a connection is none that tries ports.
    pub(in crate::detect) fn probe(&mut self, p: &Probe) {
        let Some(kind) = p.kind() else { return };
        if let Some(source) = self.source(&p.tuple, p.ts) {
            *source.kinds.entry(kind).or_default() += 1;
            source.held_back.get_or_insert((p.held_back, p.held_back)).1 = p.held_back;
            count(source, p.tuple.lport, |tried| tried.closed += 1);
        }
    }

    /// A half-open request ended; not that of a late duplicate.
    pub(in crate::detect) fn request(&mut self, r: &Request) {
        if r.over
            && r.outcome == Some(Outcome::Rst)
            && let Some(source) = self.source(&r.tuple, r.ts)
        {
            count(source, r.tuple.lport, |tried| tried.open += 1);
        }
    }

    /// A connection is over.
    pub(in crate::detect) fn connection(&mut self, c: &Connection, f: &Final) {
        let by_peer = c.role == Some(Role::Server) && matches!(f.end, Some(End::Fin | End::RstReceived));
        let Some(counters) = f.counters.filter(|_| by_peer) else { return };
        let payload = Payload::new(&counters, Shape::of(c));
        // What was received says who spoke first; a server that greets says something at once.
        if payload.received == 0
            && let Some(source) = self.source(&c.tuple, f.ts)
        {
            count(source, c.tuple.lport, |tried| tried.open += 1);
        }
    }

    fn source(&mut self, t: &Tuple, now: u64) -> Option<&mut Source> {
        let key = (t.netns, address(t.family, &t.raddr));
        if self.of.len() >= SOURCES && !self.of.contains_key(&key) {
            // Who tried one port, longest ago, is not whom anybody looks for.
            let idle = |source: &Source| (source.ports.iter().map(BTreeMap::len).sum::<usize>() > 1, source.last);
            let worst = self.of.iter().min_by_key(|(_, source)| idle(source)).map(|(key, _)| *key)?;
            self.of.remove(&worst);
        }
        let laddr = address(t.family, &t.laddr);
        let source = self.of.entry(key).or_insert_with(|| Source {
            key,
            laddr,
            first: now,
            last: now,
            kinds: BTreeMap::new(),
            held_back: None,
            ports: [BTreeMap::new(), BTreeMap::new()],
            turned: now,
        });
        source.turn(now);
        (source.laddr, source.last) = (laddr, now);
        Some(source)
    }

    pub(in crate::detect) fn advance(&mut self, now: u64) {
        self.of.retain(|_, source| {
            source.turn(now);
            source.last.saturating_add(2 * HALF_NS) >= now
        });
    }

    /// All of them, in the order of their addresses.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.of.values()
    }
}

fn count(source: &mut Source, port: u16, add: impl FnOnce(&mut Tried)) {
    let half = &mut source.ports[0];
    if half.len() < PORTS || half.contains_key(&port) {
        add(half.entry(port).or_default());
    }
}
