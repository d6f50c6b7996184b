//! Decides, before anything is reserved, what the collector has no use for. What is not yet known passes: the collector
//! applies the same filter again.

use aya_ebpf::maps::lpm_trie::Key;
use tcptrace_common::{
    record::Tuple,
    settings::{Filter, side},
};

use crate::{
    maps::{ADDRS_V4, ADDRS_V6, FILTER, NETNS, PIDS, PORTS, SIDES},
    memory::{Memory, Typed},
    place::{Place, off},
};

const AF_INET: u16 = 2;

/// Is the socket in a wanted network namespace? Always known.
#[inline(always)]
pub fn in_netns<M: Memory>(sk: *const u8) -> bool {
    // SAFETY: a `sock_common`; the map's entry is not read.
    unsafe {
        match FILTER.load().netns {
            0 => true,
            Filter::SEVERAL => NETNS.get(M::netns(sk)).is_some(),
            only => M::netns(sk) == only,
        }
    }
}

/// Is this a wanted network namespace?
#[inline(always)]
pub fn is_wanted_netns(number: u32) -> bool {
    match FILTER.load().netns {
        0 => true,
        // SAFETY: the map's entry is not read.
        Filter::SEVERAL => unsafe { NETNS.get(number).is_some() },
        only => number == only,
    }
}

/// Are only some processes wanted?
#[inline(always)]
pub fn by_process() -> bool {
    FILTER.load().pids != 0
}

/// May this socket matter? `lport` 0 and an unspecified address are "not yet known".
#[inline(always)]
pub fn wanted(sk: *const u8, lport: u16, owner: u32) -> bool {
    wanted_by::<Typed>(sk, lport, owner)
}

/// [`wanted`] of anything that starts with a `sock_common`, read as `M` can.
#[inline(always)]
pub fn wanted_by<M: Memory>(sk: *const u8, lport: u16, owner: u32) -> bool {
    in_netns::<M>(sk) && wanted_there_by::<M>(sk, lport, owner)
}

/// [`wanted`] of a socket in a wanted network namespace.
#[inline(always)]
pub fn wanted_there(sk: *const u8, lport: u16, owner: u32) -> bool {
    wanted_there_by::<Typed>(sk, lport, owner)
}

#[inline(always)]
fn wanted_there_by<M: Memory>(sk: *const u8, lport: u16, owner: u32) -> bool {
    let on = FILTER.load();
    // SAFETY: all loads are of a `sock_common`.
    unsafe {
        if on.pids != 0 && owner != 0 && PIDS.get(owner).is_none() {
            return false;
        }
        if on.ports != 0 {
            let rport = u16::from_be(M::ld(sk, off!(dport)));
            let l = port(lport);
            let r = port(rport);
            if !pass(SIDES.load().ports as u8, l, r) {
                return false;
            }
        }
        if on.addrs != 0 {
            let (l, r) = if M::ld::<u16>(sk, off!(family)) == AF_INET {
                (v4(M::ld(sk, off!(saddr))), v4(M::ld(sk, off!(daddr))))
            } else {
                let half = |offset: u32| [M::ld::<u64>(sk, offset), M::ld::<u64>(sk, offset + 8)];
                (v6(half(off!(saddr6).offset())), v6(half(off!(daddr6).offset())))
            };
            if !pass(SIDES.load().addrs as u8, l, r) {
                return false;
            }
        }
    }
    true
}

/// [`wanted_by`] of a request or a child of a wanted listener, whose network namespace and local port it shares.
#[inline(always)]
pub fn wanted_peer<M: Memory>(req: *const u8, lport: impl FnOnce() -> u16) -> bool {
    !looks_at_ends() || wanted_by::<M>(req, lport(), 0)
}

/// Do ports or addresses matter?
#[inline(always)]
pub fn looks_at_ends() -> bool {
    let on = FILTER.load();
    on.ports != 0 || on.addrs != 0
}

/// [`wanted`] of both ends that were read already; the network namespace was checked.
#[inline(always)]
pub fn wanted_tuple(t: &Tuple) -> bool {
    let on = FILTER.load();
    if on.ports != 0 && !pass(SIDES.load().ports as u8, port(t.lport), port(t.rport)) {
        return false;
    }
    if on.addrs == 0 {
        return true;
    }
    let halves = |a: &[u8; 16]| {
        // SAFETY: plain bytes of the same size.
        unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(*a) }
    };
    let (l, r) = (halves(&t.laddr), halves(&t.raddr));
    let (l, r) = if t.family == AF_INET { (v4(l[0] as u32), v4(r[0] as u32)) } else { (v6(l), v6(r)) };
    pass(SIDES.load().addrs as u8, l, r)
}

/// Each side that is filtered must match: `l` and `r` are the side bits found at the local and the remote end.
#[inline(always)]
fn pass(sides: u8, l: u8, r: u8) -> bool {
    (sides & side::LOCAL == 0 || l & side::LOCAL != 0)
        && (sides & side::REMOTE == 0 || r & side::REMOTE != 0)
        && (sides & side::EITHER == 0 || (l | r) & side::EITHER != 0)
}

/// Bits of a value that is not known: it matches everything.
const UNKNOWN: u8 = side::LOCAL | side::REMOTE | side::EITHER;

#[inline(always)]
fn port(p: u16) -> u8 {
    if p == 0 { UNKNOWN } else { PORTS.get(u32::from(p)).copied().unwrap_or(0) }
}

#[inline(always)]
fn v4(a: u32) -> u8 {
    if a == 0 { UNKNOWN } else { ADDRS_V4.get(Key::new(32, a.to_ne_bytes())).copied().unwrap_or(0) }
}

/// A v4-mapped address is looked up as the IPv4 address that it holds.
#[inline(always)]
fn v6(a: [u64; 2]) -> u8 {
    if a == [0, 0] {
        return UNKNOWN;
    }
    if a[0] == 0 && a[1] as u32 == 0xffff_0000 {
        return v4((a[1] >> 32) as u32);
    }
    // SAFETY: plain bytes of the same size.
    let bytes: [u8; 16] = unsafe { core::mem::transmute(a) };
    ADDRS_V6.get(Key::new(128, bytes)).copied().unwrap_or(0)
}
