//! `tcp_conn_request`: what became of a SYN. The outcome is what fired between entry and exit; nothing: dropped, for the reason
//! that the kernel's own checks give, in their order, on what was read at entry.

use tcptrace_common::{
    queue::{drop, outcome},
    settings::program::SYN_OUTCOME as PROGRAM,
};

use super::request::{self, Depths};
use crate::{
    emit,
    listeners::Listener,
    memory::Memory,
    place::{Place, off},
    scratch::{Scratch, UNDECIDED, scratch},
};

/// Entry.
#[inline(always)]
pub fn arrived<M: Memory>(sk: *const u8) {
    let Some(s) = scratch() else { return };
    let d = Depths::now::<M>(sk);
    // SAFETY: this CPU's entry.
    unsafe {
        (*s).conn = sk as u64;
        (*s).conn_syn = d.syn;
        (*s).conn_accept = d.accept;
        (*s).outcome = UNDECIDED;
        if let Some(l) = Listener::of::<M>(PROGRAM, sk) {
            (*l.totals()).syns += 1;
        }
    }
}

/// What was decided about the SYN at hand, if one is.
#[inline(always)]
pub fn decide(outcome: u8) {
    if let Some(s) = scratch() {
        // SAFETY: this CPU's entry.
        unsafe { (*s).outcome = outcome }
    }
}

/// Exit.
#[inline(always)]
pub fn handled<M: Memory>(sk: *const u8, skb: *const u8) {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry; the listener and the segment outlive the call.
    unsafe {
        if (*s).conn != sk as u64 {
            return;
        }
        (*s).conn = 0;
        let decided = (*s).outcome;
        if decided != UNDECIDED && decided != outcome::COOKIE_SENT {
            return;
        }
        let Some(l) = Listener::of::<M>(PROGRAM, sk) else { return };
        let d = Depths::now::<M>(sk);
        let totals = l.totals();
        let decided = if decided == outcome::COOKIE_SENT {
            (*totals).cookies_sent += 1;
            decided
        } else {
            let (why, by_rule) = reason::<M>(sk, s, d.limit);
            (*totals).by_rule += u64::from(by_rule);
            match why {
                outcome::SYN_QUEUE_FULL => (*totals).dropped[drop::SYN_QUEUE_FULL] += 1,
                outcome::ACCEPT_QUEUE_FULL_SYN => (*totals).dropped[drop::ACCEPT_QUEUE_FULL_SYN] += 1,
                _ => (*totals).dropped[drop::OTHER] += 1,
            }
            why
        };
        l.peaks(d.syn, d.accept);
        let tuple = request::segment::<M>(sk, skb);
        l.source(request::peer_of(&tuple));
        if request::segment_passes(&l, &tuple) {
            emit::record(PROGRAM, |r| {
                request::from_segment::<M>(r, &l, &tuple, skb, decided);
                d.write(r);
            });
        }
    }
}

/// Why a SYN was dropped, and whether by the `tcp_max_syn_backlog` rule.
#[inline(always)]
unsafe fn reason<M: Memory>(sk: *const u8, s: *const Scratch, limit: u32) -> (u8, bool) {
    // SAFETY: a listener and a map entry.
    unsafe {
        let no_cookies = !off!(syncookies).is_absent() && M::of_net::<u8>(sk, off!(syncookies)) == 0;
        let (syn, accept) = ((*s).conn_syn, (*s).conn_accept);
        if no_cookies && syn > limit {
            return (outcome::SYN_QUEUE_FULL, false);
        }
        if accept > limit {
            return (outcome::ACCEPT_QUEUE_FULL_SYN, false);
        }
        if no_cookies {
            // Some point releases call a queue full when it holds as many as the limit.
            if syn >= limit {
                return (outcome::SYN_QUEUE_FULL, false);
            }
            let max = if off!(max_syn_backlog).is_absent() { -1 } else { M::of_net::<i32>(sk, off!(max_syn_backlog)) };
            if max.wrapping_sub(syn as i32) < max >> 2 {
                return (outcome::SYN_QUEUE_FULL, true);
            }
        }
        (outcome::OTHER, false)
    }
}
