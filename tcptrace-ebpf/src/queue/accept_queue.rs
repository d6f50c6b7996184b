//! The accept queue: children that enter it, and final ACKs that find it full.

use tcptrace_common::{
    queue::{drop, outcome},
    settings::program::{ACCEPT_QUEUE, COOKIES, FAST_OPEN, OVERFLOW},
};

use super::{
    half_open,
    request::{self, Depths},
    syn,
};
use crate::{
    emit,
    listeners::{self, Listener},
    memory::{Memory, Typed},
    place::off,
    scratch::{Scratch, scratch},
};

/// Entry of `inet_csk_complete_hashdance`: another CPU may accept the child, and free the request, before its exit.
#[inline(always)]
pub fn hashdance<M: Memory>(sk: *const u8, req: *const u8) {
    let Some(s) = scratch() else { return };
    tell(s, 0);
    // SAFETY: this CPU's entry and a live request.
    unsafe {
        (*s).listener = 0;
        let Some(l) = Listener::of::<M>(ACCEPT_QUEUE, sk) else { return };
        (*s).listener = sk as u64;
        (*s).event.head.sock = l.cookie;
        (*s).passed = u8::from(request::completion_passes::<M>(req));
        if (*s).passed != 0 {
            request::from_request::<M>(&raw mut (*s).event, l.cookie, req, outcome::COMPLETED);
        }
    }
}

/// Its exit with the child in the queue. Without (`child` lost a race, or the listener is closing), [`hashdance_lost`].
/// False: the record waits for the child's cookie.
#[inline(always)]
pub fn hashdanced<M: Memory>(sk: *const u8, child: *const u8) -> Option<*mut Scratch> {
    let s = scratch()?;
    // SAFETY: this CPU's entry and a listener.
    unsafe {
        if (*s).listener != sk as u64 {
            return None;
        }
        (*s).listener = 0;
        let l = Listener::by_cookie(ACCEPT_QUEUE, (*s).event.head.sock)?;
        (*l.totals()).completed += 1;
        let d = Depths::now::<M>(sk);
        l.peaks(d.syn, d.accept);
        listeners::wait_begins(ACCEPT_QUEUE, &l, child as u64);
        if (*s).passed == 0 {
            return None;
        }
        d.write(&raw mut (*s).event);
        (*s).child = child as u64;
    }
    Some(s)
}

/// The other exit: the child that was made is let go again.
#[inline(always)]
pub fn hashdance_lost() {
    if let Some(s) = scratch() {
        // SAFETY: this CPU's entry and a map entry.
        unsafe {
            if (*s).listener != 0
                && let Some(l) = Listener::by_cookie(ACCEPT_QUEUE, (*s).event.head.sock)
            {
                (*l.totals()).phantoms += 1;
            }
            (*s).listener = 0;
        }
    }
}

/// Send off the record that waits for its child's cookie, if one does.
#[inline(always)]
pub fn tell(s: *mut Scratch, cookie: u64) {
    // SAFETY: this CPU's entry.
    unsafe {
        if (*s).child == 0 {
            return;
        }
        (*s).child = 0;
        (*s).event.child = cookie;
        request::emit_copy(ACCEPT_QUEUE, &raw const (*s).event);
    }
}

/// SYN_RECV→ESTABLISHED, right after a child entered the queue.
#[inline(always)]
pub fn established(sk: *const u8) {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry.
    if unsafe { (*s).child } == sk as u64 {
        tell(s, Typed::cookie(sk));
    }
}

/// Exit of `tcp_get_cookie_sock`: an ACK brought a cookie back. The record is complete but for the child's cookie.
#[inline(always)]
pub fn cookie_child<M: Memory, C: Memory>(sk: *const u8, child: *const u8) -> Option<*mut Scratch> {
    let s = scratch()?;
    tell(s, 0);
    // SAFETY: this CPU's entry, a listener and a new child.
    unsafe {
        let l = Listener::of::<M>(COOKIES, sk)?;
        let totals = l.totals();
        (*totals).completed += 1;
        (*totals).cookies_ok += 1;
        let d = Depths::now::<M>(sk);
        l.peaks(d.syn, d.accept);
        listeners::wait_begins(COOKIES, &l, child as u64);
        if !request::completion_passes::<C>(child) {
            return None;
        }
        request::from_child::<C>(&raw mut (*s).event, l.cookie, child, outcome::COOKIE_COMPLETED);
        d.write(&raw mut (*s).event);
        (*s).child = child as u64;
    }
    Some(s)
}

/// Exit of `tcp_try_fastopen` with a child, which goes into the accept queue next.
#[inline(always)]
pub fn fast_opened<M: Memory>(sk: *const u8, req: *const u8, child: *const u8) {
    syn::decide(outcome::FAST_OPEN);
    // SAFETY: a listener, a request that the child keeps, a new child.
    unsafe {
        let Some(l) = Listener::of::<M>(FAST_OPEN, sk) else { return };
        let totals = l.totals();
        (*totals).completed += 1;
        (*totals).fast_opens += 1;
        let mut d = Depths::now::<M>(sk).corrected(0, 0);
        d.accept += 1;
        l.peaks(d.syn, d.accept);
        l.source(request::peer::<M>(req));
        listeners::wait_begins(FAST_OPEN, &l, child as u64);
        if request::completion_passes::<M>(req) {
            let cookie = M::cookie(child);
            emit::record(FAST_OPEN, |r| {
                request::from_request::<M>(r, l.cookie, req, outcome::FAST_OPEN);
                (*r).child = cookie;
                (*r).addr = child as u64;
                d.write(r);
            });
        }
    }
}

/// Exit of `tcp_v4_syn_recv_sock` or `tcp_v6_syn_recv_sock` without a child: a final ACK was refused. The request stays.
#[inline(always)]
pub fn refused<M: Memory>(sk: *const u8, req: *const u8) {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry, a listener and a live request.
    unsafe {
        let Some(l) = Listener::of::<M>(OVERFLOW, sk) else { return };
        let d = Depths::now::<M>(sk);
        // Full is more than the limit; an accept() on another CPU may have made room since.
        if d.accept < d.limit {
            (*l.totals()).dropped[drop::OTHER] += 1;
            return;
        }
        if half_open::aborts::<M>(sk) {
            (*s).overflown = req as u64;
        }
        (*l.totals()).dropped[drop::ACCEPT_QUEUE_FULL_ACK] += 1;
        l.peaks(d.syn, d.accept);
        if request::passes::<M>(&l, req) {
            emit::record(OVERFLOW, |r| {
                request::from_request::<M>(r, l.cookie, req, outcome::ACCEPT_QUEUE_FULL_ACK);
                d.write(r);
            });
        }
    }
}

/// Does a v6 hook see what the v4 one has seen? A v4-mapped request passes both functions. Its family is the listener's, but
/// its addresses are mapped ones, as no real IPv6 request's are.
#[inline(always)]
pub fn is_v4<M: Memory>(req: *const u8) -> bool {
    // SAFETY: a live request.
    unsafe { M::ld::<u64>(req, off!(daddr6)) == 0 && M::ld::<u32>(req, off!(daddr6) + 8) == 0xffff_0000 }
}
