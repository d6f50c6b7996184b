//! How a handler reads kernel structs: one body for hooks that get typed pointers and for those that get bare addresses.

use tcptrace_common::record::Tuple;

use crate::{
    place::{Bitfield, Place, off},
    sock,
};

const AF_INET: u16 = 2;

/// A way to read the kernel. Unless it says otherwise: pointers whose type the verifier knows, and direct loads, which it checks.
pub trait Memory {
    /// Load a field; zero where the address cannot be read.
    #[inline(always)]
    unsafe fn ld<T: Copy + Default>(base: *const u8, place: impl Place) -> T {
        // SAFETY: the verifier checks the access.
        unsafe { sock::ld(base, place) }
    }

    /// A full socket's cookie; 0 where it has none and none can be made.
    #[inline(always)]
    fn cookie(sk: *const u8) -> u64 {
        sock::cookie(sk)
    }

    /// A full socket as a `tcp_sock`; null if it is none.
    #[inline(always)]
    fn tcp(sk: *const u8) -> *const u8 {
        sock::tcp(sk)
    }

    /// A request as a `tcp_request_sock`; null if it is none.
    #[inline(always)]
    fn tcp_request(req: *const u8) -> *const u8 {
        sock::tcp_request(req)
    }

    /// Load a field of the network namespace of anything that starts with a `sock_common`.
    #[inline(always)]
    unsafe fn of_net<T: Copy + Default>(sk: *const u8, place: impl Place) -> T {
        // SAFETY: the caller's; `skc_net` is set for a socket's whole life.
        unsafe { Probed::ld(Probed::ld::<u64>(sk, off!(net)) as *const u8, place) }
    }

    /// Number of its network namespace.
    #[inline(always)]
    unsafe fn netns(sk: *const u8) -> u32 {
        // SAFETY: the caller's.
        unsafe { Self::of_net(sk, off!(net_inum)) }
    }

    /// Load a `T`, or `default` where the kernel has no such field.
    #[inline(always)]
    unsafe fn ld_or<T: Copy + Default>(base: *const u8, place: impl Place, default: T) -> T {
        // SAFETY: the caller's.
        if place.is_absent() { default } else { unsafe { Self::ld(base, place) } }
    }

    /// Load a bitfield; 0 where the kernel has none.
    #[inline(always)]
    unsafe fn bits<const AT: usize>(base: *const u8, field: Bitfield<AT>) -> u32 {
        // SAFETY: the caller's.
        if field.is_absent() { 0 } else { field.of(unsafe { Self::ld(base, field) }) }
    }
}

/// What helpers return: types that the verifier knows and does not trust, so that pointers may be loaded directly, too.
pub struct Typed;

/// Bare addresses: arguments of kprobes, what a timer belongs to, what a map kept. Checked reads; cookies can be read, not made.
pub struct Probed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn of_net<T: Copy + Default>(sk: *const u8, place: impl Place) -> T {
        // SAFETY: the caller's; `skc_net` is set for a socket's whole life.
        unsafe { sock::ld(sock::ld::<*const u8>(sk, off!(net)), place) }
    }
}

impl Memory for Probed {
    #[inline(always)]
    unsafe fn ld<T: Copy + Default>(base: *const u8, place: impl Place) -> T {
        // SAFETY: checked.
        unsafe { place.probe(base) }
    }

    #[inline(always)]
    fn cookie(sk: *const u8) -> u64 {
        // SAFETY: a checked read.
        unsafe { Self::ld(sk, off!(cookie)) }
    }

    #[inline(always)]
    fn tcp(sk: *const u8) -> *const u8 {
        sk
    }

    #[inline(always)]
    fn tcp_request(req: *const u8) -> *const u8 {
        req
    }
}

/// Both ends of any kind of socket that starts with a `sock_common`. `lport` is passed in: see [`sock::tuple`].
#[inline(always)]
pub unsafe fn tuple<M: Memory>(sk: *const u8, lport: u16, t: *mut Tuple) {
    // SAFETY: `t` points into a ring slot or a map entry.
    unsafe {
        let family: u16 = M::ld(sk, off!(family));
        (*t).family = family;
        (*t).netns = M::netns(sk);
        (*t).lport = lport;
        (*t).rport = u16::from_be(M::ld(sk, off!(dport)));
        (*t).reserved = [0; 3];
        let (l, r) = ((&raw mut (*t).laddr).cast::<u64>(), (&raw mut (*t).raddr).cast::<u64>());
        if family == AF_INET {
            *l = u64::from(M::ld::<u32>(sk, off!(saddr)));
            *r = u64::from(M::ld::<u32>(sk, off!(daddr)));
            *l.add(1) = 0;
            *r.add(1) = 0;
        } else {
            *l = M::ld(sk, off!(saddr6));
            *l.add(1) = M::ld(sk, off!(saddr6) + 8);
            *r = M::ld(sk, off!(daddr6));
            *r.add(1) = M::ld(sk, off!(daddr6) + 8);
        }
    }
}
