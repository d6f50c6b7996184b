//! One file per signal, named as the record it makes.

/// Two programs on a tracepoint whose first argument is a socket, which `$act` is done about.
macro_rules! pair {
    ($hook:literal, $first:ident, $second:ident, $number:ident, $act:expr) => {
        #[aya_ebpf::macros::btf_tracepoint(function = $hook)]
        pub fn $first(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            let sk: *const u8 = ctx.arg(0);
            let token = tcptrace_common::pair::Token::of(sk);
            $crate::pair::first(tcptrace_common::settings::second::$number, token, || $act(sk));
            0
        }

        #[aya_ebpf::macros::btf_tracepoint(function = $hook)]
        pub fn $second(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            let sk: *const u8 = ctx.arg(0);
            let token = tcptrace_common::pair::Token::of(sk);
            if !$crate::pair::is_seen(tcptrace_common::settings::second::$number, token, || true) {
                $act(sk);
            }
            0
        }
    };
}

mod accept;
mod destroy;
mod error;
mod listener;
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
    pub fn find(sk: *const u8) -> Option<Self> {
        if !sock::is_tcp(sk) {
            return None;
        }
        let tp = sock::tcp(sk);
        if tp.is_null() {
            return None;
        }
        if !filter::wanted(tp, sock::lport(sk, tp), 0) {
            return None;
        }
        let cookie = sock::cookie(sk);
        let kept = per_socket::find(sk, cookie);
        Some(Self { sk, tp, cookie, kept })
    }

    /// Tell of the socket, if it is wanted, by a record that is a head alone.
    #[inline(always)]
    pub fn tell(sk: *const u8, program: usize, kind: u8) {
        if let Some(live) = Self::find(sk) {
            live.emit_bare(program, kind);
        }
    }

    /// Number the next record. To be done before the ring is asked for room: a record that finds none leaves a gap.
    #[inline(always)]
    pub fn number(&self) -> Number {
        if self.kept.is_null() {
            return Number { seq: 0, flags: flag::SEQ_ABSENT };
        }
        // SAFETY: a map entry or socket storage.
        unsafe {
            let seq = (*self.kept).seq.wrapping_add(1);
            (*self.kept).seq = seq;
            Number { seq, flags: 0 }
        }
    }

    /// Fill a head in.
    #[inline(always)]
    pub unsafe fn head(&self, h: *mut Head, number: Number, kind: u8, from: u8, to: u8, extra: u16) {
        // SAFETY: `h` points into a ring slot.
        unsafe {
            (*h).sock = self.cookie;
            (*h).kind = kind;
            (*h).from = from;
            (*h).to = to;
            (*h).err = sock::err(self.sk);
            (*h).seq = number.seq;
            (*h).flags = sock::flags(self.sk, self.tp) | extra | number.flags;
        }
    }

    /// A record that is a head alone; both states are the current one.
    #[inline(always)]
    pub fn emit_bare(&self, program: usize, kind: u8) {
        let state = sock::state(self.sk);
        let number = self.number();
        // SAFETY: the slot is a `Head`.
        emit::record::<Head>(program, |h| unsafe { self.head(h, number, kind, state, state, 0) });
    }
}

/// Number of a record among its socket's, and the flags that say what it is worth.
#[derive(Clone, Copy)]
pub struct Number {
    pub seq: u16,
    pub flags: u16,
}
