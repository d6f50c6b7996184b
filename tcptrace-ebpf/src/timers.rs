//! Requests and timewait sockets seen by their timers, where neither fentry nor kprobes exist (tracepoint tier).
//!
//! | a request's timer | means |
//! |---|---|
//! | started, no SYN-ACK timeout yet | queued: the kernel counts it right after |
//! | cancelled while still hashed | its time is up ([`expires`] follows), or a duplicate SYN sets it again (a start follows) |
//! | cancelled, not hashed | out of the SYN queue: promoted if a child was born just before, ended otherwise |
//! | expired and not started again | timed out, or its listener is gone |
//!
//! A timer's owner has no type that the verifier knows: checked reads.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::{
    queue::{drop, outcome},
    settings::program::{ACCEPT_QUEUE, HALF_OPEN, MIGRATION, OVERFLOW},
    state as tcp,
};

use crate::{
    emit, filter,
    listeners::{self, Listener},
    maps::{REQSK_TIMER, TW_TIMER},
    memory::{Memory, Probed, Typed},
    place::{Place, bits, off},
    queue::{
        accept_queue, half_open,
        request::{self, Depths},
        time_wait,
    },
    scratch::{Scratch, scratch},
    sock,
    sock::ld,
    trusted::Trusted,
};

/// Whose timer it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Request,
    TimeWait,
    Other,
}

/// Runs for every timer of the host: two comparisons.
#[inline(always)]
pub fn owner(timer: *const u8) -> Owner {
    // SAFETY: a typed timer.
    let function: u64 = unsafe { ld(timer, off!(timer_function)) };
    if function == REQSK_TIMER.load() {
        Owner::Request
    } else if function == TW_TIMER.load() {
        Owner::TimeWait
    } else {
        Owner::Other
    }
}

#[inline(always)]
fn container(timer: *const u8, function: impl Place, member: impl Place) -> *const u8 {
    (timer as u64 + u64::from(function.offset()) - u64::from(member.offset())) as *const u8
}

#[inline(always)]
fn request_of(timer: *const u8) -> *const u8 {
    container(timer, off!(timer_function), off!(req_timer))
}

#[inline(always)]
fn timewait_of(timer: *const u8) -> *const u8 {
    container(timer, off!(timer_function), off!(tw_timer))
}

#[inline(always)]
unsafe fn listener_of(req: *const u8) -> *const u8 {
    // SAFETY: a checked read.
    unsafe { Probed::ld::<u64>(req, off!(req_listener)) as *const u8 }
}

/// `timer_start` of a request.
#[inline(always)]
pub fn request_started(timer: *const u8) {
    let Some(s) = scratch() else { return };
    let req = request_of(timer);
    // SAFETY: this CPU's entry; checked reads.
    unsafe {
        if (*s).rearmed == req as u64 {
            (*s).rearmed = 0;
            return;
        }
        if (*s).expiring == req as u64 {
            (*s).expiring = 0;
            return;
        }
        let sk = listener_of(req);
        if Probed::bits(req, bits!(num_timeout)) != 0 {
            if (*s).expiring != 0 {
                (*s).moved_to = Probed::cookie(sk);
            }
            return;
        }
        if let Some(l) = Listener::of::<Probed>(HALF_OPEN, sk) {
            half_open::queued::<Probed>(&l, req, Depths::now::<Probed>(sk).corrected(1, 1));
        }
    }
}

/// Is the timer's time up? It was told in a typed pointer.
#[inline(always)]
fn is_up(timer: *const u8) -> bool {
    // SAFETY: a typed timer.
    unsafe { h::bpf_jiffies64() >= ld::<u64>(timer, off!(timer_expires)) }
}

/// `timer_cancel` of a request.
#[inline(always)]
pub fn request_cancelled(timer: *const u8) {
    let Some(s) = scratch() else { return };
    let req = request_of(timer);
    // SAFETY: this CPU's entry; checked reads.
    unsafe {
        if Probed::ld::<u64>(req, off!(req_pprev)) != 0 {
            if !is_up(timer) {
                (*s).rearmed = req as u64;
            }
            return;
        }
        // Of a kernel that does not say why it drops a segment.
        (*s).overflown = 0;
        let sk = listener_of(req);
        let young = if Probed::bits(req, bits!(num_timeout)) == 0 { -1 } else { 0 };
        let newborn = (*s).newborn;
        (*s).newborn = 0;
        if newborn != 0 {
            promoted(s, sk, req, newborn);
            return;
        }
        let Some(l) = Listener::of::<Probed>(HALF_OPEN, sk) else { return };
        let d = Depths::now::<Probed>(sk).corrected(-1, young);
        let why = if Probed::ld::<u8>(sk, off!(state)) != tcp::LISTEN {
            outcome::LISTENER_CLOSED
        } else if d.accept > d.limit && half_open::aborts::<Probed>(sk) {
            overflown(s, &l, sk, req);
            outcome::ABORTED
        } else {
            outcome::RST
        };
        half_open::count(&l, why);
        if request::passes::<Probed>(&l, req) {
            emit::record(HALF_OPEN, |r| {
                request::from_request::<Probed>(r, l.cookie, req, why);
                d.write(r);
            });
        }
    }
}

/// A final ACK that is answered with a RST: `kfree_skb` comes when the request is gone. Told here, so that it is told before the end.
#[inline(always)]
unsafe fn overflown(s: *mut Scratch, l: &Listener, sk: *const u8, req: *const u8) {
    // SAFETY: this CPU's entry, a map entry; checked reads.
    unsafe {
        (*s).overflown = req as u64;
        (*l.totals()).dropped[drop::ACCEPT_QUEUE_FULL_ACK] += 1;
        if request::passes::<Probed>(l, req) {
            let d = Depths::now::<Probed>(sk);
            emit::record(OVERFLOW, |r| {
                request::from_request::<Probed>(r, l.cookie, req, outcome::ACCEPT_QUEUE_FULL_ACK);
                d.write(r);
            });
        }
    }
}

/// The request became a child, which enters the accept queue next: [`child_established`] tells.
#[inline(always)]
unsafe fn promoted(s: *mut Scratch, sk: *const u8, req: *const u8, child: u64) {
    accept_queue::tell(s, 0);
    // SAFETY: this CPU's entry; checked reads.
    unsafe {
        (*s).listener = 0;
        if Probed::ld::<u8>(sk, off!(state)) != tcp::LISTEN {
            // Another listener of its group takes the child, and wakes up once it is established.
            (*s).moved_child = child;
            if let Some(l) = Listener::of::<Probed>(MIGRATION, sk) {
                half_open::count(&l, outcome::MIGRATED);
            }
            return;
        }
        let Some(l) = Listener::of::<Probed>(ACCEPT_QUEUE, sk) else { return };
        (*l.totals()).completed += 1;
        listeners::wait_begins(ACCEPT_QUEUE, &l, child);
        if request::completion_passes::<Probed>(req) {
            request::from_request::<Probed>(&raw mut (*s).event, l.cookie, req, outcome::COMPLETED);
            (*s).listener = sk as u64;
            (*s).child = child;
        }
    }
}

/// `timer_expire_entry` of a request: kept here, for it may be gone at the exit.
#[inline(always)]
pub fn request_expires(timer: *const u8) {
    let Some(s) = scratch() else { return };
    let req = request_of(timer);
    // SAFETY: this CPU's entry; checked reads.
    unsafe {
        (*s).rearmed = 0;
        (*s).moved_to = 0;
        (*s).expiring = req as u64;
        let sk = listener_of(req);
        (*s).expired_listener = sk as u64;
        // Most are sent again and started again. In a flood no copies are made that would be held back anyway.
        (*s).expired.addr = 0;
        if !request::are_unwanted() && (filter::looks_at_ends() || !request::is_exhausted()) {
            request::from_request::<Probed>(&raw mut (*s).expired, Probed::cookie(sk), req, outcome::SYNACK_TIMEOUT);
        }
    }
}

/// `timer_expire_exit` of a request: if nothing started it again, it is gone.
#[inline(always)]
pub fn request_expired() {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry; a listener outlives its requests by an RCU grace period.
    unsafe {
        if (*s).expiring == 0 {
            return;
        }
        (*s).expiring = 0;
        let sk = (*s).expired_listener as *const u8;
        let (program, why) = if (*s).moved_to != 0 {
            (MIGRATION, outcome::MIGRATED)
        } else if Probed::ld::<u8>(sk, off!(state)) != tcp::LISTEN {
            (HALF_OPEN, outcome::LISTENER_CLOSED)
        } else {
            (HALF_OPEN, outcome::SYNACK_TIMEOUT)
        };
        let Some(l) = Listener::of::<Probed>(program, sk) else { return };
        half_open::count(&l, why);
        let event = &raw mut (*s).expired;
        if request::are_unwanted() {
            return;
        }
        if (*event).addr == 0 {
            (*l.totals()).held_back += 1;
        } else if request::segment_passes(&l, &(*event).tuple) {
            (*event).outcome = why;
            (*event).child = (*s).moved_to;
            Depths::now::<Probed>(sk).write(event);
            request::emit_copy(program, event);
        }
    }
}

/// `inet_sock_set_state` from LISTEN or SYN_RECV.
#[inline(always)]
pub fn child_moves(sk: *const u8, from: u8, to: u8) {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry and a full socket.
    unsafe {
        if from == tcp::LISTEN {
            if to == tcp::SYN_RECV && sock::is_tcp(sk) {
                (*s).newborn = sk as u64;
                // Of children before, whose listener was not seen to wake up: this one may have the address of such a one.
                (*s).cookie_child = 0;
                (*s).moved_child = 0;
            }
            return;
        }
        let is_newborn = (*s).newborn == sk as u64;
        if is_newborn {
            (*s).newborn = 0;
        }
        if to == tcp::CLOSE {
            if (*s).child == sk as u64 {
                accept_queue::tell(s, Trusted::cookie(sk));
            }
        } else if to == tcp::ESTABLISHED {
            child_established(s, sk, is_newborn);
        }
    }
}

/// SYN_RECV→ESTABLISHED. The child is in the accept queue. One that was born on this CPU just before and for which no request's timer
/// was stopped is a cookie's; its listener wakes up next.
#[inline(always)]
unsafe fn child_established(s: *mut Scratch, sk: *const u8, is_newborn: bool) {
    // SAFETY: this CPU's entry and a full socket.
    unsafe {
        if (*s).child == sk as u64 {
            Depths::now::<Probed>((*s).listener as *const u8).write(&raw mut (*s).event);
            (*s).listener = 0;
            accept_queue::tell(s, Trusted::cookie(sk));
        } else if is_newborn {
            let tp = sock::tcp(sk);
            if !tp.is_null() && Typed::bits(tp, bits!(syn_fastopen_child)) == 0 {
                (*s).cookie_child = sk as u64;
            }
        }
    }
}

/// `sk_data_ready` of a listener: its accept queue just grew.
#[inline(always)]
pub fn listener_ready(sk: *const u8) {
    let Some(s) = scratch() else { return };
    // SAFETY: this CPU's entry and a listener.
    unsafe {
        // Also where nothing is counted, or the next listener that wakes up on this CPU would take them for its own: those of before
        // the first interval, and of listeners that the filter does not want.
        let (by_cookie, newborn, moved) = ((*s).cookie_child, (*s).newborn, (*s).moved_child);
        (*s).cookie_child = 0;
        (*s).moved_child = 0;
        (*s).newborn = 0;
        let Some(l) = Listener::of::<Trusted>(ACCEPT_QUEUE, sk) else { return };
        let d = Depths::now::<Trusted>(sk);
        l.peaks(d.syn, d.accept);
        let totals = l.totals();
        // One that was let go before any listener woke up for it is still remembered.
        if is_own(sk, moved) {
            in_queue(&l, moved, outcome::COMPLETED, d);
        } else if is_own(sk, by_cookie) {
            (*totals).cookies_ok += 1;
            in_queue(&l, by_cookie, outcome::COOKIE_COMPLETED, d);
        } else if is_own(sk, newborn) && Probed::ld::<u8>(newborn as *const u8, off!(state)) == tcp::SYN_RECV {
            (*totals).fast_opens += 1;
            l.source(request::peer::<Probed>(newborn as *const u8));
            in_queue(&l, newborn, outcome::FAST_OPEN, d);
        }
    }
}

/// Is there a child, and is it at the listener's port?
#[inline(always)]
unsafe fn is_own(sk: *const u8, child: u64) -> bool {
    if child == 0 {
        return false;
    }
    // SAFETY: a listener; checked reads.
    unsafe {
        Trusted::ld::<u16>(sk, off!(num)) == Probed::ld::<u16>(child as *const u8, off!(num))
            && Trusted::netns(sk) == Probed::netns(child as *const u8)
    }
}

/// One copy for three callers: its reads are most of the program.
#[inline(never)]
fn in_queue(l: &Listener, child: u64, how: u8, d: Depths) {
    let sk = child as *const u8;
    // SAFETY: a map entry; checked reads.
    unsafe {
        (*l.totals()).completed += 1;
        listeners::wait_begins(ACCEPT_QUEUE, l, child);
        if request::completion_passes::<Probed>(sk) {
            emit::record(ACCEPT_QUEUE, |r| {
                request::from_child::<Probed>(r, l.cookie, sk, how);
                (*r).child = Probed::cookie(sk);
                (*r).addr = if how == outcome::FAST_OPEN { child } else { 0 };
                d.write(r);
            });
        }
    }
}

/// `kfree_skb` for SKB_DROP_REASON_TCP_LISTEN_OVERFLOW: a final ACK met a full accept queue.
#[inline(always)]
pub fn refused(sk: *const u8, skb: *const u8) {
    // SAFETY: a typed socket and segment.
    unsafe {
        if sock::state(sk) != tcp::LISTEN {
            return;
        }
        if let Some(s) = scratch()
            && (*s).overflown != 0
        {
            // This one was told by its request's end.
            (*s).overflown = 0;
            return;
        }
        let Some(l) = Listener::of::<Trusted>(OVERFLOW, sk) else { return };
        (*l.totals()).dropped[drop::ACCEPT_QUEUE_FULL_ACK] += 1;
        let d = Depths::now::<Trusted>(sk);
        l.peaks(d.syn, d.accept);
        let tuple = request::segment::<Trusted>(sk, skb);
        if request::segment_passes(&l, &tuple) {
            emit::record(OVERFLOW, |r| {
                request::from_segment::<Trusted>(r, &l, &tuple, skb, outcome::ACCEPT_QUEUE_FULL_ACK);
                // The ACK follows the SYN, and acknowledges the SYN-ACK.
                (*r).rcv_isn = (*r).rcv_isn.wrapping_sub(1);
                (*r).snt_isn = request::acknowledged::<Trusted>(skb).wrapping_sub(1);
                d.write(r);
            });
        }
    }
}

/// `timer_start` of a timewait socket. One that was cancelled right before goes on.
#[inline(always)]
pub fn timewait_started(timer: *const u8) {
    let Some(s) = scratch() else { return };
    let tw = timewait_of(timer);
    // SAFETY: this CPU's entry; checked reads.
    unsafe {
        if (*s).tw == tw as u64 {
            (*s).tw = 0;
            pending(-1);
            return;
        }
        flush(s);
        if let Some((cookie, state)) = time_wait::known::<Probed>(tw) {
            time_wait::began(cookie, state);
        }
    }
}

/// `timer_cancel` of a timewait socket before its time: it ends, or is set again by what comes next on this CPU.
#[inline(always)]
pub fn timewait_cancelled(timer: *const u8) {
    let Some(s) = scratch() else { return };
    let tw = timewait_of(timer);
    if is_up(timer) {
        return;
    }
    // SAFETY: this CPU's entry; checked reads.
    unsafe {
        flush(s);
        if let Some((cookie, state)) = time_wait::known::<Probed>(tw) {
            (*s).tw = tw as u64;
            (*s).tw_cookie = cookie;
            (*s).tw_state = u64::from(state);
            (*s).tw_ts = h::bpf_ktime_get_ns();
            pending(1);
        }
    }
}

/// CPUs whose last timewait socket was cancelled and not yet told. In memory that needs no look-up: any timer's start looks at it.
#[unsafe(no_mangle)]
static mut UNTOLD: u64 = 0;

#[inline(always)]
unsafe fn pending(more: i64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one aligned word, added to atomically.
    unsafe {
        core::arch::asm!("lock *(u64 *)({p} + 0) += {n}", p = in(reg) &raw mut UNTOLD, n = in(reg) more);
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = more;
    }
}

/// Another timer starts: a timewait socket cancelled before on this CPU was not set again.
#[inline(always)]
pub fn other_started() {
    // SAFETY: one word, read whole.
    if unsafe { core::ptr::read_volatile(&raw const UNTOLD) } == 0 {
        return;
    }
    if let Some(s) = scratch() {
        // SAFETY: this CPU's entry.
        unsafe { flush(s) }
    }
}

/// The cancelled timewait socket was not set again.
#[inline(always)]
unsafe fn flush(s: *mut Scratch) {
    // SAFETY: this CPU's entry.
    unsafe {
        if (*s).tw != 0 {
            (*s).tw = 0;
            pending(-1);
            time_wait::ended_at((*s).tw_cookie, (*s).tw_state as u8, (*s).tw_ts);
        }
    }
}

/// `timer_expire_entry` of a timewait socket.
#[inline(always)]
pub fn timewait_expires(timer: *const u8) {
    let tw = timewait_of(timer);
    if let Some(s) = scratch() {
        // SAFETY: this CPU's entry.
        unsafe { flush(s) }
    }
    // SAFETY: checked reads.
    if let Some((cookie, state)) = unsafe { time_wait::known::<Probed>(tw) } {
        time_wait::ended(cookie, state, true);
    }
}
