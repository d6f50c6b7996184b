//! What is known before a child has a cookie: SYN-ACKs that were sent again for its request, and the child itself on kernels
//! where LISTEN→SYN_RECV comes before it has one.

use std::collections::VecDeque;

use hashbrown::HashMap;
use tcptrace_common::record::Tuple;

/// Requests remembered; the oldest makes room. A SYN flood must not take more.
const REQUESTS: usize = 4096;
/// Children without a cookie. Ordinarily one a CPU, for microseconds.
const CHILDREN: usize = 1024;
/// A child that never got a cookie is forgotten after this, nanoseconds.
const CHILD_NS: u64 = 120_000_000_000;
/// Phantoms that were closed and not yet destroyed. The kernel does one after the other in one go: ordinarily one a CPU.
const PHANTOMS: usize = 64;
/// One that was not destroyed in this time, nanoseconds, was so unseen.
const PHANTOM_NS: u64 = 1_000_000_000;

#[derive(Default)]
pub(super) struct HalfOpen {
    requests: HashMap<Tuple, u32>,
    /// Keys of `requests`, oldest first.
    order: VecDeque<Tuple>,
    /// Kernel address → slot and time of birth.
    children: HashMap<u64, (u32, u64)>,
    /// Cookie and time of the close of phantoms that share the cookie with the child that won, oldest first.
    phantoms: VecDeque<(u64, u64)>,
    seen: bool,
}

impl HalfOpen {
    /// A SYN-ACK was sent again, `before` times before.
    pub fn synack(&mut self, tuple: &Tuple, before: u32) {
        let count = before.saturating_add(1);
        if let Some(known) = self.requests.get_mut(tuple) {
            *known = count.max(*known);
            return;
        }
        if self.order.len() >= REQUESTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.requests.remove(&oldest);
        }
        self.requests.insert(*tuple, count);
        self.order.push_back(*tuple);
    }

    /// SYN-ACKs that were sent again for the request that became this child.
    #[inline]
    pub fn take_synacks(&mut self, tuple: &Tuple) -> u32 {
        if self.requests.is_empty() { 0 } else { self.requests.remove(tuple).unwrap_or(0) }
    }

    /// Are children told of in this trace?
    pub fn seen(&self) -> bool {
        self.seen
    }

    /// A child is told of.
    pub fn note_child(&mut self) {
        self.seen = true;
    }

    /// Remember a child by its address. The slot of one that must make room for it is returned.
    pub fn add_child(&mut self, addr: u64, slot: u32, ts: u64) -> Option<u32> {
        let replaced = self.children.insert(addr, (slot, ts)).map(|(slot, _)| slot);
        if replaced.is_some() || self.children.len() <= CHILDREN {
            return replaced;
        }
        let oldest = self.children.iter().min_by_key(|(addr, (_, ts))| (*ts, **addr)).map(|(&addr, _)| addr)?;
        self.children.remove(&oldest).map(|(slot, _)| slot)
    }

    /// A phantom was closed that has the cookie of the child that won.
    pub fn phantom_closed(&mut self, cookie: u64, ts: u64) {
        if self.phantoms.len() >= PHANTOMS {
            self.phantoms.pop_front();
        }
        self.phantoms.push_back((cookie, ts));
    }

    /// Is it such a phantom that is destroyed?
    #[inline]
    pub fn is_phantoms_end(&mut self, cookie: u64, ts: u64) -> bool {
        let found = self.phantoms.iter().position(|&(c, at)| c == cookie && ts <= at.saturating_add(PHANTOM_NS));
        found.and_then(|at| self.phantoms.remove(at)).is_some()
    }

    /// The child at this address.
    #[inline]
    pub fn child(&self, addr: u64) -> Option<u32> {
        self.children.get(&addr).map(|&(slot, _)| slot)
    }

    pub fn take_child(&mut self, addr: u64) -> Option<u32> {
        if self.children.is_empty() { None } else { self.children.remove(&addr).map(|(slot, _)| slot) }
    }

    /// Slots of all children.
    pub fn children(&self) -> impl Iterator<Item = u32> {
        self.children.values().map(|&(slot, _)| slot)
    }

    pub fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    /// Forget children that are too old; their slots.
    pub fn expire_children(&mut self, now: u64) -> Vec<u32> {
        self.children
            .extract_if(|_, &mut (_, ts)| now > ts.saturating_add(CHILD_NS))
            .map(|(_, (slot, _))| slot)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_and_the_oldest_goes() {
        let mut half_open = HalfOpen::default();
        let tuple = |n: usize| Tuple { rport: n as u16, netns: (n >> 16) as u32, ..Tuple::default() };
        (0..=REQUESTS).for_each(|n| half_open.synack(&tuple(n), 0));
        assert_eq!(half_open.requests.len(), REQUESTS);
        assert_eq!(half_open.take_synacks(&tuple(0)), 0);
        assert_eq!(half_open.take_synacks(&tuple(1)), 1);
    }

    #[test]
    fn children_are_bounded_replaced_and_expire() {
        let mut half_open = HalfOpen::default();
        assert_eq!(half_open.add_child(7, 70, 1), None);
        assert_eq!(half_open.add_child(7, 71, 2), Some(70));
        (0..CHILDREN as u64 - 1).for_each(|n| assert_eq!(half_open.add_child(1000 + n, 0, 10), None));
        assert_eq!(half_open.add_child(8, 80, 20), Some(71));
        assert_eq!(half_open.expire_children(15 + CHILD_NS).len(), CHILDREN - 1);
        assert_eq!(half_open.take_child(8), Some(80));
        assert!(!half_open.has_children());
    }
}
