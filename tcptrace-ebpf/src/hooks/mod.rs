//! One file per signal, named as the record it makes.

mod accept;
mod destroy;
mod error;
mod reset;
mod retransmit;
mod snapshot;
mod state;

use crate::{emit, filter, per_socket, sock};
use tcptrace_common::{
    record::{Head, flag},
    settings::PerSocket,
};

/// A live socket as the handlers see it.
pub struct Live {
    pub sk: *const u8,
    pub tp: *const u8,
    pub cookie: u64,
    /// Null when no storage could be had.
    pub kept: *mut PerSocket,
}

impl Live {
    /// Look the socket up: None when it is not TCP or not wanted.
    #[inline(always)]
    pub fn find(program: usize, sk: *const u8) -> Option<Self> {
        if !sock::is_tcp(sk) {
            return None;
        }
        let tp = sock::tcp(sk);
        if tp.is_null() {
            return None;
        }
        if !filter::wanted(sk, sock::lport(sk, tp), 0) {
            return None;
        }
        let cookie = sock::cookie(sk);
        let kept = per_socket::get(program, sk, cookie, false);
        Some(Self { sk, tp, cookie, kept })
    }

    /// Number the next record.
    #[inline(always)]
    pub fn next_seq(&self) -> (u16, u16) {
        next_seq(self.kept)
    }

    /// Fill a head in.
    #[inline(always)]
    pub unsafe fn head(&self, h: *mut Head, kind: u8, from: u8, to: u8, extra: u16) {
        let (seq, more) = self.next_seq();
        // SAFETY: `h` points into a ring slot.
        unsafe {
            (*h).sock = self.cookie;
            (*h).kind = kind;
            (*h).from = from;
            (*h).to = to;
            (*h).err = sock::err(self.sk);
            (*h).seq = seq;
            (*h).flags = sock::flags(self.sk, self.tp) | extra | more;
        }
    }

    /// A record that is a head alone; both states are the current one.
    #[inline(always)]
    pub fn emit_bare(&self, program: usize, kind: u8) {
        let state = sock::state(self.sk);
        // SAFETY: the slot is a `Head`.
        emit::record::<Head>(program, |h| unsafe { self.head(h, kind, state, state, 0) });
    }
}

/// (number of the next record, flags that say what the number is worth)
#[inline(always)]
pub fn next_seq(kept: *mut PerSocket) -> (u16, u16) {
    if kept.is_null() {
        return (0, flag::SEQ_ABSENT);
    }
    // SAFETY: a map entry or socket storage.
    unsafe {
        let seq = (*kept).seq.wrapping_add(1);
        (*kept).seq = seq;
        (seq, 0)
    }
}
