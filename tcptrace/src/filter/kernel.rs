//! The part of a filter that the kernel programs apply, as plain lists for the loader to put into maps.

use tcptrace_common::settings::side;

use super::{Filter, Ports, Prefix, Sides};

/// What the loader puts into the maps `PORTS`, `ADDRS_V4`, `ADDRS_V6`, `NETNS` and `PIDS`. Empty lists switch a check off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// Ranges of ports and the [`side`] bits for which each is wanted. They may overlap: bits of a port in several are
    /// combined.
    pub ports: Vec<(Ports, u8)>,
    /// [`side`] bits that are filtered by port at all.
    pub port_sides: u8,
    /// Prefixes, each once, with all bits that hold for every address in it: the longest match has the whole answer.
    pub addrs: Vec<(Prefix, u8)>,
    /// [`side`] bits that are filtered by address at all.
    pub addr_sides: u8,
    /// Inode numbers of network namespaces.
    pub netns: Vec<u32>,
    /// Thread groups.
    pub pids: Vec<u32>,
}

fn marked<T: Copy>(sides: &Sides<T>) -> (Vec<(T, u8)>, u8) {
    let lists = [(&sides.local, side::LOCAL), (&sides.remote, side::REMOTE), (&sides.either, side::EITHER)];
    let marked = lists.iter().flat_map(|&(list, bit)| list.iter().map(move |&t| (t, bit))).collect();
    let used = lists.iter().filter(|(list, _)| !list.is_empty()).fold(0, |bits, &(_, bit)| bits | bit);
    (marked, used)
}

impl Filter {
    /// What the kernel can decide; role, name and state stay with the collector.
    #[must_use]
    pub fn kernel(&self) -> KernelFilter {
        let (ports, port_sides) = marked(&self.ports);
        let (given, addr_sides) = marked(&self.addrs);
        let mut addrs: Vec<(Prefix, u8)> = Vec::new();
        for &(prefix, _) in &given {
            if addrs.iter().all(|&(seen, _)| seen != prefix) {
                let bits = given.iter().filter(|(p, _)| p.covers(prefix)).fold(0, |bits, &(_, bit)| bits | bit);
                addrs.push((prefix, bits));
            }
        }
        KernelFilter { ports, port_sides, addrs, addr_sides, netns: self.netns.clone(), pids: self.pids.clone() }
    }
}
