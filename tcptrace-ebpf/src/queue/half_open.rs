//! The SYN queue: requests that enter it, leave it without becoming a connection, or go to another listener.

use tcptrace_common::{
    queue::{drop, outcome},
    settings::program::{HALF_OPEN, MIGRATION, NOT_TAKEN},
    state as tcp,
};

use super::{
    request::{self, Depths},
    syn,
};
use crate::{
    emit,
    listeners::Listener,
    maps::WAITING,
    memory::{Memory, Probed},
    place::{Place, bits, off},
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
        } else if (*s).failed == req as u64 {
            outcome::ICMP_ERROR
        } else {
            outcome::RST
        };
        (*s).failed = 0;
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

/// Its exit that found the request taken out already.
#[inline(always)]
pub fn not_dropped() {
    if let Some(s) = scratch() {
        // SAFETY: this CPU's entry.
        unsafe { (*s).failed = 0 }
    }
}

/// Entry of `tcp_req_err`: an ICMP error about the segment with number `seq`, which ends the request if `abort` and the segment was its
/// SYN-ACK.
#[inline(always)]
pub fn icmp_error<M: Memory>(req: *const u8, seq: u32, abort: bool) {
    let Some(s) = scratch() else { return };
    if !abort || off!(snt_isn).is_absent() {
        return;
    }
    // SAFETY: this CPU's entry and a live request.
    unsafe {
        let tcp_req = M::tcp_request(req);
        if !tcp_req.is_null() && M::ld::<u32>(tcp_req, off!(snt_isn)) == seq {
            (*s).failed = req as u64;
        }
    }
}

/// Exit of `tcp_check_req` without a child: the segment goes, and counts in `sk_drops` of the request's listener. Not where another CPU
/// took the request meanwhile, for the segment goes on to the child; that is what `lost_race` points to. The request of a Fast Open child
/// comes here with the child, which counts for itself.
#[inline(always)]
pub fn not_taken<M: Memory>(sk: *const u8, lost_race: *const u8) {
    // SAFETY: a socket; a checked read of the caller's variable.
    unsafe {
        if M::ld::<u8>(sk, off!(state)) == tcp::LISTEN
            && Probed::ld::<u8>(lost_race, 0) == 0
            && let Some(l) = Listener::of::<M>(NOT_TAKEN, sk)
        {
            (*l.totals()).not_taken += 1;
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
    !off!(abort_on_overflow).is_absent() && unsafe { M::of_net::<u8>(sk, off!(abort_on_overflow)) } != 0
}

/// Exit of `inet_reqsk_clone`: a request of a closing listener, or a child in its accept queue, goes to listener `to`. What the
/// request points to has no type that the verifier trusts.
#[inline(always)]
pub fn migrated<M: Memory>(req: *const u8, to: *const u8) {
    let Some(s) = scratch() else { return };
    if off!(req_listener).is_absent() || off!(req_child).is_absent() {
        return;
    }
    // SAFETY: this CPU's entry, a live request and a listener.
    unsafe {
        let new = M::cookie(to);
        let child: u64 = Probed::ld(req, off!(req_child));
        if child != 0
            && let Some(w) = WAITING.get_ptr_mut(child)
        {
            (*w).listener = new;
        }
        let old = Probed::ld::<u64>(req, off!(req_listener)) as *const u8;
        let Some(l) = Listener::of::<Probed>(MIGRATION, old) else { return };
        count(&l, outcome::MIGRATED);
        let mut d = Depths::now::<Probed>(old);
        // A timer takes the request out of the SYN queue later; at the final ACK, and for a child, it is out.
        if child == 0 && (*s).listener == 0 {
            d = d.corrected(-1, if M::bits(req, bits!(num_timeout)) == 0 { -1 } else { 0 });
        }
        if request::passes::<M>(&l, req) {
            emit::record(MIGRATION, |r| {
                if child == 0 {
                    request::from_request::<M>(r, l.cookie, req, outcome::MIGRATED);
                    (*r).child = new;
                } else {
                    request::from_request::<M>(r, l.cookie, req, outcome::CHILD_MIGRATED);
                    (*r).child = Probed::cookie(child as *const u8);
                    (*r).addr = new;
                }
                d.write(r);
            });
        }
    }
}
