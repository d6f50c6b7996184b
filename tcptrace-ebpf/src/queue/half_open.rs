//! The SYN queue: requests that enter it, leave it without becoming a connection, or go to another listener.

use tcptrace_common::{
    offsets::ABSENT,
    queue::{drop, outcome},
    settings::program::{HALF_OPEN, MIGRATION},
    state as tcp,
};

use super::{
    request::{self, Depths},
    syn,
};
use crate::{
    emit,
    listeners::Listener,
    maps::{WAITING, off},
    memory::{self, Memory, Probed},
    scratch::scratch,
};

/// A request is in the SYN queue; `d` counts it.
#[inline(always)]
pub fn queued<M: Memory>(l: &Listener, req: *const u8, d: Depths) {
    // SAFETY: a map entry and a live request.
    unsafe {
        (*l.totals()).queued += 1;
        l.peaks(d.syn, d.accept);
        l.source(request::peer::<M>(req));
        if request::passes::<M>(l, req) {
            emit::record(HALF_OPEN, |r| {
                request::from_request::<M>(r, l.cookie, req, outcome::QUEUED);
                d.write(r);
            });
        }
    }
}

/// Exit of `inet_csk_reqsk_queue_hash_add`; `added` is false for a duplicate.
#[inline(always)]
pub fn hash_added<M: Memory>(sk: *const u8, req: *const u8, added: bool) {
    if !added {
        syn::decide(crate::scratch::DUPLICATE);
        return;
    }
    syn::decide(outcome::QUEUED);
    if let Some(l) = Listener::of::<M>(HALF_OPEN, sk) {
        queued::<M>(&l, req, Depths::now::<M>(sk));
    }
}

/// Exit of `__inet_csk_reqsk_queue_drop` that took the request out; a promoted one is out before, so this is the end of one
/// that is none.
#[inline(always)]
pub fn dropped<M: Memory>(sk: *const u8, req: *const u8, from_timer: bool) {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry, a listener, and a request that the caller holds.
    unsafe {
        let why = if M::ld::<u8>(sk, off!(state)) != tcp::LISTEN {
            outcome::LISTENER_CLOSED
        } else if from_timer {
            outcome::SYNACK_TIMEOUT
        } else if (*s).overflown == req as u64 {
            (*s).overflown = 0;
            outcome::ABORTED
        } else {
            outcome::RST
        };
        if let Some(l) = Listener::of::<M>(HALF_OPEN, sk) {
            count(&l, why);
            let d = Depths::now::<M>(sk);
            l.peaks(d.syn, d.accept);
            if request::passes::<M>(&l, req) {
                emit::record(HALF_OPEN, |r| {
                    request::from_request::<M>(r, l.cookie, req, why);
                    d.write(r);
                });
            }
        }
    }
}

/// Count the end of a request.
#[inline(always)]
pub unsafe fn count(l: &Listener, why: u8) {
    // SAFETY: a map entry.
    unsafe {
        let totals = l.totals();
        match why {
            outcome::SYNACK_TIMEOUT => (*totals).dropped[drop::SYNACK_TIMEOUT] += 1,
            outcome::RST | outcome::ABORTED => (*totals).dropped[drop::RST] += 1,
            outcome::MIGRATED => (*totals).migrated += 1,
            outcome::LISTENER_CLOSED => (*totals).dropped[drop::LISTENER_CLOSED] += 1,
            _ => (*totals).dropped[drop::OTHER] += 1,
        }
    }
}

/// Are final ACKs that meet a full accept queue answered with a RST?
#[inline(always)]
pub unsafe fn aborts<M: Memory>(sk: *const u8) -> bool {
    // SAFETY: a listener.
    off!(abort_on_overflow) != ABSENT && unsafe { M::ld::<u8>(memory::net::<M>(sk), off!(abort_on_overflow)) } != 0
}

/// Exit of `inet_reqsk_clone`: a request of a closing listener, or a child in its accept queue, goes to listener `to`. What the
/// request points to has no type that the verifier trusts.
#[inline(always)]
pub fn migrated<M: Memory>(req: *const u8, to: *const u8) {
    let Some(s) = scratch() else { return };
    if off!(req_listener) == ABSENT || off!(req_child) == ABSENT {
        return;
    }
    // SAFETY: this CPU's entry, a live request and a listener.
    unsafe {
        let new = M::cookie(to);
        let child: u64 = M::ld(req, off!(req_child));
        if child != 0
            && let Some(w) = WAITING.get_ptr_mut(child)
        {
            (*w).listener = new;
        }
        let old = M::ld::<u64>(req, off!(req_listener)) as *const u8;
        let Some(l) = Listener::of::<Probed>(MIGRATION, old) else { return };
        count(&l, outcome::MIGRATED);
        let mut d = Depths::now::<Probed>(old);
        // A timer takes the request out of the SYN queue later; at the final ACK, and for a child, it is out.
        if child == 0 && (*s).listener == 0 {
            d = d.corrected(-1, if M::bits(req, crate::maps::bits!(num_timeout)) == 0 { -1 } else { 0 });
        }
        if request::passes::<M>(&l, req) {
            emit::record(MIGRATION, |r| {
                request::from_request::<M>(r, l.cookie, req, outcome::MIGRATED);
                (*r).child = new;
                d.write(r);
            });
        }
    }
}
