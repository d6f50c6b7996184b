//! Who has which socket open, as a snapshot of all descriptors tells.

use std::{collections::BTreeMap, sync::Arc};

use tcptrace_common::record::Owned;

use super::owners::{self, Processes};
use crate::model::{Connection, Inferred, Process};

/// Sockets → the processes that have them open.
#[derive(Default)]
pub(super) struct Holders(BTreeMap<Key, Holder>);

/// A descriptor can be met before its socket has a cookie; then the inode joins them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Cookie(u64),
    Inode(u64),
}

/// Who has a socket open: one of the processes that the trace is about, of these the one that started first, and whether there are
/// others.
struct Holder {
    process: Arc<Process>,
    followed: bool,
    fd: i32,
    inode: u64,
    shared: bool,
}

impl Holders {
    /// A process that has a socket open; `followed`: the trace is about it.
    pub fn add(&mut self, r: &Owned, followed: bool, processes: &mut Processes) {
        let Some(process) = processes.intern(&r.owner) else { return };
        let key = match (r.head.sock, r.owner.inode) {
            (0, 0) => return,
            (0, inode) => Key::Inode(inode),
            (cookie, _) => Key::Cookie(cookie),
        };
        let (fd, inode) = (r.owner.fd, r.owner.inode);
        let Some(holder) = self.0.get_mut(&key) else {
            self.0.insert(key, Holder { process, followed, fd, inode, shared: false });
            return;
        };
        holder.shared |= holder.process.pid != process.pid;
        let before = (!holder.followed, holder.process.started, holder.process.pid);
        if (!followed, process.started, process.pid) < before {
            *holder = Holder { process, followed, fd, inode, shared: holder.shared };
        }
    }

    /// Cookies of the sockets that are open.
    pub fn cookies(&self) -> impl Iterator<Item = u64> {
        self.0.keys().filter_map(|key| match key {
            Key::Cookie(cookie) => Some(*cookie),
            Key::Inode(_) => None,
        })
    }

    /// Give a socket whose owner is not known for certain the process that has it open; is that news?
    pub fn adopt(&self, c: &mut Connection) -> bool {
        if c.owner.is_some() && c.inferred.0 & Inferred::OWNER == 0 {
            return false;
        }
        let by_inode = || self.0.get(&Key::Inode(c.inode)).filter(|_| c.inode != 0);
        let Some(holder) = self.0.get(&Key::Cookie(c.cookie)).or_else(by_inode) else { return false };
        let same = c.owner.as_ref().is_some_and(|owner| owners::same_process(owner, &holder.process));
        c.owner = Some(Arc::clone(&holder.process));
        c.fd = holder.fd;
        if c.inode == 0 {
            c.inode = holder.inode;
        }
        c.inferred.0 &= !Inferred::OWNER;
        if holder.shared {
            c.inferred.0 |= Inferred::OWNER;
        }
        !(same && holder.shared)
    }
}
