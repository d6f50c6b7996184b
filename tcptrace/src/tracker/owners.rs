//! Whose a socket is: processes, each kept once, and the live listeners, whose processes own their children until one of
//! them is accepted.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use tcptrace_common::record::{Owner, Tuple};

use super::table::Table;
use crate::{
    frame::fact,
    model::{Cgroup, Connection, Inferred, Process, Role},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Each process once, for as long as somebody refers to it.
#[derive(Default)]
pub(super) struct Processes {
    known: HashTable<Arc<Process>>,
    /// The latest: a busy process opens one socket after the other.
    latest: Option<Arc<Process>>,
    /// Cgroups by id.
    cgroups: HashMap<u64, Arc<Cgroup>>,
}

impl Processes {
    /// The process of a record; None where the kernel did not know it.
    #[inline]
    pub fn intern(&mut self, o: &Owner) -> Option<Arc<Process>> {
        if o.pid == 0 {
            return None;
        }
        if let Some(p) = &self.latest
            && same(p, o)
        {
            return Some(Arc::clone(p));
        }
        let entry = self.known.entry(hash(o.pid, o.tid), |p| same(p, o), |p| hash(p.pid, p.tid));
        let cgroups = &self.cgroups;
        let p = Arc::clone(entry.or_insert_with(|| Arc::new(process(o, cgroups.get(&o.cgroup).cloned()))).get());
        self.latest = Some(Arc::clone(&p));
        Some(p)
    }

    /// Where a cgroup is, for the processes that come. One that is told again has got the names that were still looked for:
    /// its processes have them from their next socket on.
    pub fn cgroup(&mut self, fact: &fact::Cgroup) {
        if self.cgroups.len() >= fact::Cgroup::REMEMBERED {
            self.cgroups.clear();
        }
        let cgroup = Cgroup::new(&fact.path, fact.container.as_deref(), fact.pod.as_deref());
        if self.cgroups.insert(fact.id, Arc::new(cgroup)).is_some() {
            self.latest = None;
            self.known.retain(|p| p.cgroup_id != fact.id);
        }
    }

    /// Forget those that no connection refers to.
    pub fn prune(&mut self) {
        self.latest = None;
        self.known.retain(|p| Arc::strong_count(p) > 1);
    }
}

fn process(o: &Owner, cgroup: Option<Arc<Cgroup>>) -> Process {
    let &Owner { pid, tid, uid, comm, cgroup: cgroup_id, started, .. } = o;
    Process { pid, tid, uid, comm, cgroup_id, cgroup, started }
}

fn same(p: &Process, o: &Owner) -> bool {
    p.pid == o.pid
        && p.tid == o.tid
        && p.started == o.started
        && p.comm == o.comm
        && p.uid == o.uid
        && p.cgroup_id == o.cgroup
}

fn hash(pid: u32, tid: u32) -> u64 {
    let h = (u64::from(pid) << 32 | u64::from(tid)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 32
}

/// One process, whatever its name was and whichever of its threads acted?
pub(super) fn same_process(a: &Process, b: &Process) -> bool {
    a.pid == b.pid && a.started == b.started
}

/// Live listeners by namespace and port.
#[derive(Default)]
pub(super) struct Listeners {
    slots: HashMap<(u32, u16), Vec<u32>>,
}

impl Listeners {
    pub fn add(&mut self, t: &Tuple, slot: u32) {
        self.slots.entry((t.netns, t.lport)).or_default().push(slot);
    }

    pub fn remove(&mut self, t: &Tuple, slot: u32) {
        if let Some(slots) = self.slots.get_mut(&(t.netns, t.lport)) {
            slots.retain(|&s| s != slot);
            if slots.is_empty() {
                self.slots.remove(&(t.netns, t.lport));
            }
        }
    }

    /// The only listener without a port that a connection with this local end can be a child of, where none has its port.
    pub fn portless(&self, table: &Table, t: &Tuple) -> Option<u32> {
        let slots = self.slots.get(&(t.netns, 0))?;
        let mut fitting = slots.iter().copied().filter(|&slot| {
            table.get(slot).is_some_and(|l| l.role == Some(Role::Listener) && fit(&l.tuple, t) != Fit::No)
        });
        let only = fitting.next()?;
        (fitting.next().is_none() && self.find(table, t).is_none()).then_some(only)
    }

    /// The listener that a connection with this local end would be a child of.
    pub fn find(&self, table: &Table, t: &Tuple) -> Option<Listener> {
        let slots = self.slots.get(&(t.netns, t.lport))?;
        let listeners = slots.iter().filter_map(|&slot| table.get(slot)).filter(|l| l.role == Some(Role::Listener));
        let best = listeners.clone().map(|l| fit(&l.tuple, t)).max()?;
        let mut matching = listeners.filter(|l| fit(&l.tuple, t) == best);
        if best == Fit::No {
            return None;
        }
        let owner = matching.next()?.owner.clone();
        // Several listeners with SO_REUSEPORT: the kernel chooses one by a hash, so only what they have in common is known.
        let owner = owner.filter(|p| matching.all(|l| l.owner.as_ref().is_some_and(|q| same_process(p, q))));
        Some(Listener { owner })
    }
}

/// What is known of the listener of a connection.
pub(super) struct Listener {
    pub owner: Option<Arc<Process>>,
}

/// How well a listener's address fits a child's; the kernel prefers the better one (`compute_score`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// `[::]`, which takes IPv4 too.
    Any6,
    /// The wildcard of the child's own family.
    Any,
    Exact,
}

fn fit(listener: &Tuple, child: &Tuple) -> Fit {
    let any = listener.laddr == [0; 16];
    // A child that does not know its address yet could be of any listener on its port.
    let exact = listener.laddr == child.laddr || child.laddr == [0; 16];
    match (listener.family, child.family) {
        (l, c) if l == c && exact => Fit::Exact,
        (l, c) if l == c && any => Fit::Any,
        (AF_INET6, AF_INET) if any => Fit::Any6,
        _ => Fit::No,
    }
}

/// Give a child the owner of its listener until accept() says whose it is.
pub(super) fn inherit(c: &mut Connection, listener: Listener) {
    if c.owner.is_none()
        && let Some(owner) = listener.owner
    {
        c.owner = Some(owner);
        c.inferred.0 |= Inferred::OWNER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_kept_once_and_as_long_as_somebody_refers_to_them() {
        let mut processes = Processes::default();
        let owner = |pid, uid| Owner { pid, uid, ..Owner::default() };
        let a = processes.intern(&owner(1, 0)).unwrap();
        drop(processes.intern(&owner(1, 1000)));
        let b = processes.intern(&owner(1, 0)).unwrap();
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(processes.known.len(), 2);
        processes.prune();
        assert_eq!(processes.known.len(), 1);
        assert_eq!(processes.intern(&owner(0, 0)), None);
    }
}
