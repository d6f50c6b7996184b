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
mod fork;
mod listener;
mod probe;
mod received;
mod reset;
mod retransmit;
mod snapshot;
mod state;

use crate::{emit, filter, per_socket, sock};
use tcptrace_common::{
    record::{Head, flag},
    settings::PerSocket,
};

/// A live socket as the records about it see it. What is kept of it is not here: the verifier would go through each record's code once
/// for each kind of memory that it can be in.
#[derive(Clone, Copy)]
pub struct Live {
    pub sk: *const u8,
    pub tp: *const u8,
    pub cookie: u64,
}

impl Live {
    /// Tell of a socket by a record that is a head alone, with the current state, if it is TCP's and wanted.
    #[inline(always)]
    pub fn tell(sk: *const u8, program: usize, kind: u8) {
        if !sock::is_tcp(sk) {
            return;
        }
        let tp = sock::tcp(sk);
        if tp.is_null() || !filter::wanted(tp, sock::lport(sk, tp), 0) {
            return;
        }
        let live = Self { sk, tp, cookie: sock::cookie(sk) };
        let number = Number::next(per_socket::find(sk, live.cookie));
        let state = sock::state(sk);
        // SAFETY: the slot is a `Head`.
        emit::record::<Head>(program, |h| unsafe { live.head(h, number, kind, state, state, 0) });
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
}

/// Number of a record among its socket's, and the flags that say what it is worth.
#[derive(Clone, Copy)]
pub struct Number {
    pub seq: u16,
    pub flags: u16,
}

impl Number {
    /// Of the next record about the socket that this is kept of; null: nothing is. To be asked for before the ring is asked for room: a
    /// record that finds none leaves a gap.
    #[inline(always)]
    pub fn next(kept: *mut PerSocket) -> Self {
        if kept.is_null() {
            return Self { seq: 0, flags: flag::SEQ_ABSENT };
        }
        // SAFETY: a map entry or socket storage.
        unsafe {
            let seq = (*kept).seq.wrapping_add(1);
            (*kept).seq = seq;
            Self { seq, flags: 0 }
        }
    }
}
