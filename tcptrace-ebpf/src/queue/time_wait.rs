//! TIME_WAIT: a timewait socket takes a connection over, and goes.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::{
    record::{Head, TimeWaitEnd, flag, kind},
    settings::program::TIME_WAIT as PROGRAM,
    state as tcp,
};

use crate::{
    emit, filter,
    memory::Memory,
    place::{Place, off},
    sock,
};

/// All of `head` but its time.
#[inline(always)]
unsafe fn fill(head: *mut Head, cookie: u64, kind: u8, from: u8, to: u8, flags: u16) {
    // SAFETY: the caller's.
    unsafe {
        (*head).sock = cookie;
        (*head).kind = kind;
        (*head).from = from;
        (*head).to = to;
        (*head).err = 0;
        (*head).seq = 0;
        (*head).flags = flags | flag::SEQ_ABSENT;
    }
}

#[inline(always)]
fn tell_begin(cookie: u64, from: u8, to: u8) {
    // SAFETY: the slot is a `Head`.
    emit::record(PROGRAM, |head| unsafe { fill(head, cookie, kind::TIME_WAIT_BEGIN, from, to, 0) });
}

/// Entry of `tcp_time_wait`: `to` is TIME_WAIT, or FIN_WAIT2 for an orphan. A namespace that has as many timewait sockets as it
/// may have makes none.
#[inline(always)]
pub fn begins<M: Memory>(sk: *const u8, to: u8) {
    // SAFETY: a full socket.
    unsafe {
        if !filter::wanted_by::<M>(sk, M::ld(sk, off!(num)), 0) || sock::time_wait_full::<M>(sk) {
            return;
        }
        let cookie = M::cookie(sk);
        if cookie != 0 {
            tell_begin(cookie, M::ld(sk, off!(state)), to);
        }
    }
}

/// A timewait socket that is wanted and known: its cookie and the state that it stands for.
#[inline(always)]
pub unsafe fn known<M: Memory>(tw: *const u8) -> Option<(u64, u8)> {
    // SAFETY: a timewait socket starts with a `sock_common`; it has the cookie of the socket that it replaced.
    unsafe {
        let cookie: u64 = M::ld(tw, off!(cookie));
        if cookie == 0 {
            return None;
        }
        let lport = if off!(tw_sport).is_absent() { 0 } else { u16::from_be(M::ld(tw, off!(tw_sport))) };
        if !filter::wanted_by::<M>(tw, lport, 0) {
            return None;
        }
        Some((cookie, M::ld_or(tw, off!(tw_substate), tcp::TIME_WAIT)))
    }
}

/// `inet_twsk_kill`.
#[inline(always)]
pub fn killed<M: Memory>(tw: *const u8) {
    // SAFETY: a timewait socket.
    unsafe {
        let Some((cookie, state)) = known::<M>(tw) else { return };
        let expired = !off!(tw_expires).is_absent() && h::bpf_jiffies64() >= M::ld::<u64>(tw, off!(tw_expires));
        ended(cookie, state, expired);
    }
}

/// A timewait socket began, seen by its timer; the state that it follows is not known.
#[inline(always)]
pub fn began(cookie: u64, state: u8) {
    tell_begin(cookie, 0, state);
}

/// A timewait socket is gone.
#[inline(always)]
pub fn ended(cookie: u64, state: u8, expired: bool) {
    tell_end(cookie, state, if expired { flag::EXPIRED } else { 0 }, || 0);
}

/// A timewait socket was gone before its time at `ts`; only now it is known that it did not go on.
#[inline(always)]
pub fn ended_at(cookie: u64, state: u8, ts: u64) {
    // SAFETY: no arguments.
    tell_end(cookie, state, 0, || unsafe { h::bpf_ktime_get_ns() }.saturating_sub(ts));
}

#[inline(always)]
fn tell_end(cookie: u64, state: u8, flags: u16, late_ns: impl FnOnce() -> u64) {
    // SAFETY: the slot is a `TimeWaitEnd`.
    emit::record(PROGRAM, |r: *mut TimeWaitEnd| unsafe {
        fill(&raw mut (*r).head, cookie, kind::TIME_WAIT_END, state, tcp::CLOSE, flags);
        (*r).late_ns = late_ns();
    });
}
