//! Readers of sockets: typed kernel pointer in, part of a record out. All loads are direct; the offsets come from BTF.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::{
    record::{Counters, Handshake, Socket, Tuple, flag, option},
    state as tcp,
};

use crate::{
    memory::{self, Memory, Probed, Typed},
    place::{Bitfield, Place, bits, off},
};

/// IPPROTO_TCP; an MPTCP subflow has it too, the MPTCP socket above it has 262.
const TCP: u16 = 6;
const SOCK_KEEPOPEN: u64 = 1 << 3;
const TCP_NAGLE_OFF: u32 = 1;
const TCP_ECN_OK: u8 = 1;

/// Load a field.
#[inline(always)]
pub unsafe fn ld<T: Copy>(base: *const u8, place: impl Place) -> T {
    // SAFETY: the verifier checks the access against the type of `base`.
    unsafe { place.load(base) }
}

/// Load a `T`, or `default` where the kernel has no such field.
#[inline(always)]
pub unsafe fn ld_or<T: Copy>(base: *const u8, place: impl Place, default: T) -> T {
    // SAFETY: as for `ld`.
    if place.is_absent() { default } else { unsafe { ld(base, place) } }
}

#[inline(always)]
unsafe fn bitfield<const AT: usize>(base: *const u8, field: Bitfield<AT>) -> u32 {
    // SAFETY: as for `ld`.
    if field.is_absent() { 0 } else { field.of(unsafe { ld(base, field) }) }
}

/// A TCP socket? The tracepoints fire for SCTP, DCCP and MPTCP's own sockets too.
#[inline(always)]
pub fn is_tcp(sk: *const u8) -> bool {
    // SAFETY: a full socket.
    unsafe { ld::<u16>(sk, off!(protocol)) == TCP }
}

/// State of a `sock_common`.
#[inline(always)]
pub fn state(sk: *const u8) -> u8 {
    // SAFETY: every kind of socket starts with a `sock_common`.
    unsafe { ld(sk, off!(state)) }
}

/// The cookie, made if need be. Not to be called on a child at LISTEN→SYN_RECV before 6.18: it still carries its listener's.
#[inline(always)]
pub fn cookie(sk: *const u8) -> u64 {
    // SAFETY: a full socket.
    unsafe {
        let known: u64 = ld(sk, off!(cookie));
        if known != 0 { known } else { h::bpf_get_socket_cookie(sk.cast_mut().cast()) }
    }
}

/// The socket as a `tcp_sock`; null if it is none.
#[inline(always)]
pub fn tcp(sk: *const u8) -> *const u8 {
    // SAFETY: a typed socket pointer.
    unsafe { h::bpf_skc_to_tcp_sock(sk.cast_mut().cast()).cast_const().cast() }
}

/// A half-open request as a `tcp_request_sock`; null if it is none.
#[inline(always)]
pub fn tcp_request(req: *const u8) -> *const u8 {
    // SAFETY: a typed pointer to something that starts with a `sock_common`.
    unsafe { h::bpf_skc_to_tcp_request_sock(req.cast_mut().cast()).cast_const().cast() }
}

/// `sk_err`, as far as it fits.
#[inline(always)]
pub fn err(sk: *const u8) -> u8 {
    // SAFETY: a full socket.
    let err: u32 = unsafe { ld(sk, off!(err)) };
    if err > 254 { 255 } else { err as u8 }
}

/// The [`flag`] bits that every record of a full socket carries.
#[inline(always)]
pub fn flags(sk: *const u8, tp: *const u8) -> u16 {
    // SAFETY: a full socket.
    unsafe {
        let shutdown = u16::from(ld::<u8>(sk, off!(shutdown)) & 3);
        let sock_flags: u64 = ld(sk, off!(sock_flags));
        // SOCK_DEAD is bit 0 and SOCK_DONE bit 1; ours are the other way round.
        let dead = (sock_flags & 1) as u16;
        let done = ((sock_flags >> 1) & 1) as u16;
        let mut flags = shutdown | (done * flag::DONE) | (dead * flag::DEAD);
        if ld::<u64>(tp, off!(socket)) == 0 {
            flags |= flag::NO_SOCKET;
        }
        if (ld_or::<u32>(tp, off!(linger2), 0) as i32) < 0 {
            flags |= flag::LINGER2;
        }
        flags
    }
}

/// Has the socket's network namespace as many TIME_WAIT sockets as it may have? `tw_refcount` counts them, plus one.
#[inline(always)]
pub unsafe fn time_wait_full<M: Memory>(sk: *const u8) -> bool {
    if off!(tw_count).is_absent() || off!(tw_max).is_absent() {
        return false;
    }
    // SAFETY: a socket.
    unsafe { M::of_net::<u32>(sk, off!(tw_count)) > M::of_net::<u32>(sk, off!(tw_max)) }
}

/// Both ends of any kind of socket that starts with a `sock_common`. `lport` is passed in: full sockets keep it longer in
/// `inet_sport` (`skc_num` is 0 after the end), the others have it in places of their own.
#[inline(always)]
pub unsafe fn tuple(sk: *const u8, lport: u16, t: *mut Tuple) {
    // SAFETY: `t` points into a ring slot.
    unsafe { memory::tuple::<Typed>(sk, lport, t) }
}

/// Local port of a full socket, host byte order. After `tcp_done` `skc_num` is 0 and only `inet_sport` is left.
#[inline(always)]
pub fn lport(sk: *const u8, tp: *const u8) -> u16 {
    // SAFETY: a full socket and the same one as a `tcp_sock`.
    unsafe {
        let num: u16 = ld(sk, off!(num));
        if num != 0 { num } else { u16::from_be(ld(tp, off!(sport))) }
    }
}

#[inline(always)]
unsafe fn options(sk: *const u8, tp: *const u8) -> u16 {
    // SAFETY: a full socket.
    unsafe {
        let mut o = 0;
        if bitfield(tp, bits!(sack_ok)) != 0 {
            o |= option::SACK;
        }
        if bitfield(tp, bits!(tstamp_ok)) != 0 {
            o |= option::TIMESTAMPS;
        }
        if bitfield(tp, bits!(wscale_ok)) != 0 {
            o |= option::WSCALE;
        }
        if ld_or::<u8>(tp, off!(ecn_flags), 0) & TCP_ECN_OK != 0 {
            o |= option::ECN;
        }
        if bitfield(tp, bits!(syn_data_acked)) | bitfield(tp, bits!(syn_fastopen_child)) != 0 {
            o |= option::TFO;
        }
        if bitfield(tp, bits!(nonagle)) & TCP_NAGLE_OFF != 0 {
            o |= option::NODELAY;
        }
        if ld::<u64>(sk, off!(sock_flags)) & SOCK_KEEPOPEN != 0 {
            o |= option::KEEPALIVE;
        }
        if ld_or::<u8>(tp, off!(defer_accept), 0) != 0 {
            o |= option::DEFER_ACCEPT;
        }
        if ld_or::<u32>(tp, off!(user_timeout), 0) != 0 {
            o |= option::USER_TIMEOUT;
        }
        o
    }
}

/// What the handshake settled.
#[inline(always)]
pub unsafe fn handshake(sk: *const u8, tp: *const u8, p: *mut Handshake) {
    // SAFETY: `p` points into a ring slot.
    unsafe {
        (*p).isn_local = ld::<u32>(tp, off!(snd_una)).wrapping_sub(ld::<u32>(tp, off!(bytes_acked)));
        (*p).isn_remote =
            ld::<u32>(tp, off!(rcv_nxt)).wrapping_sub(ld::<u32>(tp, off!(bytes_received))).wrapping_sub(1);
        (*p).srtt_us = ld::<u32>(tp, off!(srtt_us)) >> 3;
        (*p).min_rtt_us = ld_or(tp, off!(rtt_min), u32::MAX);
        (*p).retrans = ld(tp, off!(total_retrans));
        (*p).snd_mss = ld(tp, off!(mss_cache));
        (*p).adv_mss = ld(tp, off!(advmss));
        (*p).options = options(sk, tp);
        (*p).wscale_snd = bitfield(tp, bits!(snd_wscale)) as u8;
        (*p).wscale_rcv = bitfield(tp, bits!(rcv_wscale)) as u8;
        (*p).reserved = [0; 2];
        (*p).addr = sk as u64;
    }
}

/// All counters.
#[inline(always)]
pub unsafe fn counters(sk: *const u8, tp: *const u8, p: *mut Counters) {
    // SAFETY: `p` points into a ring slot.
    unsafe {
        (*p).bytes_sent = ld(tp, off!(bytes_sent));
        (*p).bytes_acked = ld(tp, off!(bytes_acked));
        (*p).bytes_received = ld(tp, off!(bytes_received));
        (*p).bytes_retrans = ld_or(tp, off!(bytes_retrans), 0);
        (*p).segs_out = ld(tp, off!(segs_out));
        (*p).segs_in = ld(tp, off!(segs_in));
        (*p).retrans = ld(tp, off!(total_retrans));
        (*p).unread = ld::<u32>(tp, off!(rcv_nxt)).wrapping_sub(ld(tp, off!(copied_seq)));
        (*p).unsent = ld::<u32>(tp, off!(write_seq)).wrapping_sub(ld(tp, off!(snd_una)));
        (*p).packets_out = ld(tp, off!(packets_out));
        (*p).srtt_us = ld::<u32>(tp, off!(srtt_us)) >> 3;
        (*p).min_rtt_us = ld_or(tp, off!(rtt_min), u32::MAX);
        (*p).snd_mss = ld(tp, off!(mss_cache));
        (*p).options = options(sk, tp);
        (*p).probes_out = ld_or(tp, off!(probes_out), 0);
        (*p).retransmits = ld_or(tp, off!(retransmits), 0);
    }
}

/// All of a [`Socket`] but its head and its user. A listener's `unread` and `unsent` are its accept queue's length and limit.
#[inline(always)]
pub unsafe fn describe(sk: *const u8, tp: *const u8, lport: u16, state: u8, r: *mut Socket) {
    // SAFETY: `r` points into a ring slot or onto the stack.
    unsafe {
        tuple(tp, lport, &raw mut (*r).tuple);
        handshake(sk, tp, &raw mut (*r).handshake);
        counters(sk, tp, &raw mut (*r).counters);
        (*r).syn_queue = 0;
        if state == tcp::LISTEN {
            (*r).counters.unread = ld(sk, off!(ack_backlog));
            (*r).counters.unsent = ld(sk, off!(max_ack_backlog));
            (*r).syn_queue = ld_or(tp, off!(qlen), 0);
        }
        (*r).inode = inode(tp);
        (*r).jiffies = h::bpf_jiffies64() as u32;
        let (sent, received): (u32, u32) = (ld_or(tp, off!(lsndtime), 0), ld_or(tp, off!(lrcvtime), 0));
        (*r).active = if (sent.wrapping_sub(received) as i32) > 0 { sent } else { received };
    }
}

/// Inode number of the socket; 0 while it has no `struct socket`.
#[inline(always)]
pub unsafe fn inode(sk: *const u8) -> u64 {
    // SAFETY: a full socket.
    unsafe {
        if !off!(sk_ino).is_absent() {
            return ld(sk, off!(sk_ino));
        }
        inode_of(ld(sk, off!(socket)))
    }
}

/// Inode number of a `struct socket`, which it follows in one allocation (`socket_alloc`), outside of what the verifier lets a
/// pointer to it reach, hence the helper. 0: there is none.
#[inline(always)]
pub unsafe fn inode_of(socket: *const u8) -> u64 {
    if socket.is_null() || off!(socket_inode).is_absent() {
        return 0;
    }
    // SAFETY: a checked read.
    unsafe { Probed::ld(socket, off!(socket_inode)) }
}
