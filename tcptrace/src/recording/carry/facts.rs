//! Facts: what a part of a trace must be told again, and what follows for sockets.

use std::collections::HashSet;

use tcptrace_common::record::{Head, flag};
use zerocopy::FromBytes;

use super::{
    Carry,
    entry::{Entry, SYN_RECV, SYN_SENT},
};
use crate::frame::{Frames, Header, fact};

/// Changes of the clock that are carried; then every second of the older ones goes.
const CLOCKS: usize = 64;

impl Carry {
    pub(super) fn fact(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        let body = &record[size_of::<Head>()..];
        match head.kind {
            fact::kind::START => {
                if let Ok(start) = serde_json::from_slice::<fact::Start>(body) {
                    let pids = start.filters.iter().filter(|(name, _)| name == "pid").flat_map(|(_, v)| v.split(','));
                    self.roots = pids.filter_map(|pid| pid.parse().ok()).collect();
                    self.followed = self.roots.iter().map(|&pid| (pid, true)).collect();
                    self.facts += record.len() as u64;
                    self.start = Some((head.ts, start));
                }
            }
            fact::kind::CLOCK => {
                if self.clocks.len() >= CLOCKS {
                    let (mut n, half) = (0, CLOCKS / 2);
                    self.clocks.retain(|_| {
                        n += 1;
                        n % 2 == 1 || n > half
                    });
                }
                self.clocks.push((self.order, frame.into()));
            }
            fact::kind::SNAPSHOT => {
                if let Ok(fact) = serde_json::from_slice::<fact::Snapshot>(body) {
                    self.snapshot(head.ts, fact, frame);
                }
            }
            fact::kind::LOSS => {
                let count = serde_json::from_slice::<fact::Loss>(body).map_or(0, |loss| loss.count);
                self.gone.lost = self.gone.lost.saturating_add(count);
            }
            fact::kind::CGROUP => {
                if let Ok(cgroup) = serde_json::from_slice::<fact::Cgroup>(body) {
                    // Who tells them forgets them, too, and tells those again that are met again.
                    if self.cgroups.len() >= fact::Cgroup::REMEMBERED {
                        self.facts -= self.cgroups.values().map(|frame| frame.len() as u64).sum::<u64>();
                        self.cgroups.clear();
                    }
                    self.facts += frame.len() as u64;
                    if let Some(before) = self.cgroups.insert(cgroup.id, frame.into()) {
                        self.facts -= before.len() as u64;
                    }
                }
            }
            fact::kind::STACK => {
                if let Ok(stack) = serde_json::from_slice::<fact::Stack>(body) {
                    self.stack(&stack, frame);
                }
            }
            fact::kind::OPENED_AT => {
                if let Ok(opened) = serde_json::from_slice::<fact::OpenedAt>(body) {
                    self.keep(&Head { sock: opened.sock, flags: flag::SEQ_ABSENT, ..*head }, frame);
                    if let Some(entry) = self.sockets.get_mut(&opened.sock) {
                        entry.stack = opened.stack;
                    }
                }
            }
            fact::kind::NETNS => self.come(frame),
            fact::kind::INTERVAL => {
                if let Ok(interval) = serde_json::from_slice(body) {
                    self.interval(head.ts, interval);
                }
            }
            fact::kind::TICK => self.expire(head.ts),
            _ => {}
        }
    }

    /// Who tells them forgets them, too, and tells those again that are met again; what sockets refer to that are open stays.
    fn stack(&mut self, stack: &fact::Stack, frame: &[u8]) {
        let Self { stacks, sockets, facts, .. } = self;
        if stacks.len() >= fact::Stack::REMEMBERED {
            let used: HashSet<u64> = sockets.values().map(|entry| entry.stack).collect();
            stacks.retain(|id, frame| {
                *facts -= if used.contains(id) { 0 } else { frame.len() as u64 };
                used.contains(id)
            });
        }
        *facts += frame.len() as u64;
        if let Some(before) = stacks.insert(stack.id, frame.into()) {
            *facts -= before.len() as u64;
        }
    }

    /// The rows of a snapshot are complete.
    fn snapshot(&mut self, ts: u64, fact: fact::Snapshot, frame: &[u8]) {
        let Some(resync) = &fact.resync else {
            self.snapshot.get_or_insert_with(|| (self.order, frame.into()));
            let inodes = std::mem::take(&mut self.inodes);
            for (inode, holder) in std::mem::take(&mut self.holders) {
                self.taken -= holder.cost();
                if let Some(&cookie) = inodes.get(&inode) {
                    self.join(cookie, &holder);
                }
            }
            self.gone.forgotten -= std::mem::take(&mut self.forgotten_over).min(self.gone.forgotten);
            return self.leave(|entry| entry.over);
        };
        let (begin, all) = (resync.begin, resync.all);
        let covered: HashSet<u32> = resync.netns.iter().copied().collect();
        self.leave(|entry| {
            let unhashed = matches!(entry.state, SYN_SENT | SYN_RECV);
            let settled = entry.moved.saturating_add(if unhashed { fact::Resync::UNHASHED_NS } else { 0 });
            let visible = all || entry.netns != 0 && covered.contains(&entry.netns);
            !std::mem::take(&mut entry.named) && settled < begin && visible
        });
        let nothing = fact::Resync { begin, netns: Vec::new(), all: false };
        let fact = fact::Snapshot { resync: Some(nothing), ..fact };
        self.resync = Some((self.order, made(fact::kind::SNAPSHOT, ts, &fact)));
    }

    /// Let go of the sockets that are `over`.
    fn leave(&mut self, mut over: impl FnMut(&mut Entry) -> bool) {
        let Self { sockets, taken, .. } = self;
        sockets.retain(|_, entry| {
            let over = over(entry);
            *taken -= if over { entry.cost() } else { 0 };
            !over
        });
    }

    /// A row of an interval.
    pub(super) fn come(&mut self, frame: &[u8]) {
        self.facts += frame.len() as u64;
        self.coming.push((self.order, frame.into()));
    }

    /// An interval is complete: its rows are those that the next one's are compared with.
    fn interval(&mut self, ts: u64, interval: fact::Interval) {
        self.forget_leaving(u64::MAX);
        let Self { rows, sockets, facts, .. } = self;
        for (_, frame) in std::mem::take(&mut self.coming) {
            *facts -= frame.len() as u64;
            let Ok((head, body)) = Head::read_from_prefix(&frame[size_of::<Header>()..]) else { continue };
            let name = if head.kind == fact::kind::NETNS {
                // JSON, then the padding.
                let mut facts = serde_json::Deserializer::from_slice(body).into_iter::<fact::Netns>();
                facts.next().and_then(Result::ok).map_or(0, |netns| u64::from(netns.netns))
            } else {
                head.sock
            };
            *facts += frame.len() as u64;
            if let Some(before) = rows.insert((head.kind, name), frame) {
                *facts -= before.len() as u64;
            }
        }
        // What a listener came to that is over was told.
        rows.retain(|(kind, name), frame| {
            let stays = *kind == fact::kind::NETNS || sockets.contains_key(name);
            *facts -= if stays { 0 } else { frame.len() as u64 };
            stays
        });
        let base = fact::Interval { interval_us: 0, ..interval };
        self.interval = Some((self.order, made(fact::kind::INTERVAL, ts, &base)));
        self.interval_ts = ts;
    }

    /// Let go of the listeners that were over before `ts`.
    pub(super) fn forget_leaving(&mut self, ts: u64) {
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|cookie| {
            let over = self.sockets.get(cookie).filter(|entry| entry.over).map(|entry| entry.moved);
            if over.is_some_and(|moved| moved < ts) {
                self.remove(*cookie);
            }
            over.is_some_and(|moved| moved >= ts)
        });
        self.leaving = leaving;
    }
}

/// The frame of a fact.
fn made(kind: u8, ts: u64, fact: &impl serde::Serialize) -> Box<[u8]> {
    let mut frames = Frames::default();
    frames.push_fact(kind, ts, fact);
    frames.as_bytes().into()
}
