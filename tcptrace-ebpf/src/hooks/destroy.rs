//! tcp_destroy_sock: the end of a socket. Frees its slot; a record is made only for one whose CLOSE may not have been the
//! last word (a RST can follow it), because connection churn must not pay for the others.

use tcptrace_common::{record::kind, settings::program::TCP_DESTROY_SOCK as PROGRAM};

use super::Live;
use crate::{
    listeners,
    maps::{LISTENERS_ONLY, QUEUES},
    per_socket,
    place::off,
    sock,
    sock::ld,
};

pair!("tcp_destroy_sock", tcp_destroy_sock, tcp_destroy_sock_nested, DESTROY, destroyed);

#[inline(always)]
fn destroyed(sk: *const u8) {
    if QUEUES.load() != 0 {
        listeners::wait_ends(sk as u64);
    }
    // SAFETY: a full socket. No cookie is made for one that never had any record.
    let cookie: u64 = unsafe { ld(sk, off!(cookie)) };
    if cookie == 0 || !sock::is_tcp(sk) {
        return;
    }
    if LISTENERS_ONLY.load() == 0 && reset_may_follow(sk) {
        Live::tell(sk, PROGRAM, kind::DESTROYED);
    }
    per_socket::release(cookie);
}

/// Did it end other than by both FINs? SOCK_DONE is set by the peer's FIN, SEND_SHUTDOWN by ours.
#[inline(always)]
fn reset_may_follow(sk: *const u8) -> bool {
    // SAFETY: a full socket.
    unsafe { ld::<u64>(sk, off!(sock_flags)) & 2 == 0 && ld::<u16>(sk, off!(dport)) != 0 }
}
