//! inet_sock_set_state: every state transition of every TCP socket.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::warn;
use tcptrace_common::{
    pair::Token,
    record::{Child, Closed, Established, Head, Open, Owned, Socket, flag, kind},
    settings::{program::INET_SOCK_SET_STATE as PROGRAM, second},
    state as tcp,
};

use super::{Live, Number, listener};
use crate::{
    emit, filter,
    maps::{FILTER, LISTENERS_ONLY, PIDS, QUEUES, SYSCALLS, VERBOSE},
    memory::Typed,
    pair, per_socket,
    place::off,
    sock,
    sock::{ld, ld_or},
    task,
};

const ECONNABORTED: u8 = 103;

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    pair::first(second::STATE, passing(&ctx), || on_transition(&ctx));
    0
}

/// All that the first does is here once more. A jump into that would spare the verifier half of its work, and the kernel allows it even
/// where it would not run the first anew: but from Linux 6.13 on a program has a stack of its own on each CPU, which the one that was
/// interrupted there has in use.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state_nested(ctx: BtfTracePointContext) -> i32 {
    let this = passing(&ctx);
    if !pair::is_seen(second::STATE, this, || was_seen(&ctx)) {
        on_transition(&ctx);
    }
    0
}

/// Stands for the transition that passes the hook.
#[inline(always)]
fn passing(ctx: &BtfTracePointContext) -> Token {
    let sk: *const u8 = ctx.arg(0);
    let from: i32 = ctx.arg(1);
    let to: i32 = ctx.arg(2);
    Token { sk: sk as u64, what: u64::from(from as u8) | (u64::from(to as u8) << 8) }
}

/// Has the socket's data this transition as its last? A socket without any: nothing speaks against the token.
#[inline(always)]
fn was_seen(ctx: &BtfTracePointContext) -> bool {
    let sk: *const u8 = ctx.arg(0);
    let to: i32 = ctx.arg(2);
    // SAFETY: a full socket.
    let cookie: u64 = unsafe { ld(sk, off!(cookie)) };
    let kept = per_socket::find(sk, cookie);
    // SAFETY: a map entry or socket storage.
    cookie == 0 || kept.is_null() || unsafe { (*kept).to } == to as u8
}

#[inline(always)]
fn on_transition(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    let from: i32 = ctx.arg(1);
    let to: i32 = ctx.arg(2);
    if !transition(sk, from as u8, to as u8) && VERBOSE.load() != 0 {
        warn!(ctx, "no memory to keep a socket's numbers: its transition {} to {} goes unnumbered", from, to);
    }
}

/// False: the socket's data could not be kept.
#[inline(always)]
fn transition(sk: *const u8, from: u8, to: u8) -> bool {
    if !sock::is_tcp(sk) {
        return true;
    }
    let tp = sock::tcp(sk);
    if tp.is_null() {
        return true;
    }
    if from == tcp::LISTEN && to == tcp::SYN_RECV {
        if LISTENERS_ONLY.load() == 0 {
            child(sk, tp);
        }
        return true;
    }
    if LISTENERS_ONLY.load() != 0 && from != tcp::LISTEN && to != tcp::LISTEN {
        return true;
    }
    let lport = sock::lport(sk, tp);
    let opens = from == tcp::CLOSE && (to == tcp::SYN_SENT || to == tcp::LISTEN);
    let owner = if opens { task::current_tgid() } else { 0 };
    // SAFETY: a full socket.
    let known = per_socket::has_slot(unsafe { ld(sk, off!(cookie)) });
    // One that passed before is where it was, and `struct net` is a cache line that all CPUs write to.
    if !known && !filter::in_netns::<Typed>(tp) {
        return true;
    }
    // The tuple of an active open is complete only now. If it passed while it was not, the collector needs this record to know
    // that it may forget the socket.
    if !filter::wanted_there(tp, lport, owner) && (from != tcp::SYN_SENT || !passed_before(sk)) {
        return true;
    }
    let cookie = sock::cookie(sk);
    let kept = per_socket::get(PROGRAM, sk, cookie, opens);
    let live = Live { sk, tp, cookie, kept };
    if !kept.is_null() {
        // SAFETY: a map entry or socket storage.
        unsafe { (*kept).to = to }
    }
    if opens {
        if !kept.is_null() {
            // SAFETY: a map entry or socket storage.
            unsafe {
                (*kept).owner = owner;
                // listen() without bind(): `inet_csk_listen_start` sets the state first and then has a port chosen.
                (*kept).portless = u8::from(to == tcp::LISTEN && lport == 0);
            }
        }
        if QUEUES.load() != 0 && to == tcp::LISTEN {
            let number = live.number();
            listener::listens(&live, number, lport);
            return !kept.is_null();
        }
        let fd = {
            let nr = SYSCALLS.load();
            task::syscall_fd(if to == tcp::LISTEN { nr.listen } else { nr.connect })
        };
        let number = live.number();
        // SAFETY: the slot is an `Open`.
        emit::record::<Open>(PROGRAM, |r| unsafe {
            live.head(&raw mut (*r).head, number, kind::OPEN, from, to, 0);
            sock::tuple(tp, lport, &raw mut (*r).tuple);
            task::current(&raw mut (*r).owner, fd, sock::inode(tp));
        });
        return !kept.is_null();
    }
    if !filter_by_owner(&live) {
        return true;
    }
    first_sight(&live, lport, from, to);
    actor(&live, from, to);
    if to == tcp::ESTABLISHED {
        let number = live.number();
        // SAFETY: the slot is an `Established`.
        emit::record::<Established>(PROGRAM, |r| unsafe {
            live.head(&raw mut (*r).head, number, kind::ESTABLISHED, from, to, 0);
            sock::tuple(tp, lport, &raw mut (*r).tuple);
            sock::handshake(sk, tp, &raw mut (*r).handshake);
        });
    } else if to == tcp::CLOSE {
        let mut extra = remember(&live, from, to);
        let closing = from == tcp::FIN_WAIT2 || from == tcp::CLOSING || from == tcp::FIN_WAIT1;
        // SAFETY: a full socket.
        if closing && unsafe { sock::time_wait_full::<Typed>(tp) } {
            extra |= flag::TW_FULL;
        }
        let number = live.number();
        // SAFETY: the slot is a `Closed`.
        emit::record::<Closed>(PROGRAM, |r| unsafe {
            live.head(&raw mut (*r).head, number, kind::CLOSED, from, to, extra);
            sock::counters(sk, tp, &raw mut (*r).counters);
            (*r).lport = lport;
            (*r).reserved = [0; 3];
        });
    } else {
        let extra = remember(&live, from, to);
        let number = live.number();
        // SAFETY: the slot is a `Head`.
        emit::record::<Head>(PROGRAM, |r| unsafe { live.head(r, number, kind::STATE, from, to, extra) });
    }
    !kept.is_null()
}

/// Was there a record of this socket?
#[inline(always)]
fn passed_before(sk: *const u8) -> bool {
    let kept = per_socket::find(sk, sock::cookie(sk));
    // SAFETY: a map entry or socket storage.
    !kept.is_null() && unsafe { (*kept).seq } != 0
}

/// A socket whose life had begun before the trace: say all that is known of it. What a handshake settles is told at its end
/// anyway.
#[inline(always)]
fn first_sight(live: &Live, lport: u16, from: u8, to: u8) {
    // SAFETY: a map entry or socket storage.
    if to == tcp::ESTABLISHED || from == tcp::SYN_RECV || live.kept.is_null() || unsafe { (*live.kept).seq } != 0 {
        return;
    }
    // SAFETY: the slot is a `Socket`; the tracepoint fires after the state was changed, the record is about the one before.
    emit::record::<Socket>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).head, Number { seq: 0, flags: 0 }, kind::FOUND, from, from, 0);
        sock::describe(live.sk, live.tp, lport, from, r);
        (*r).uid = ld_or(live.sk, off!(sk_uid), 0);
    });
}

/// Drop what belongs to a process that is known and not wanted.
#[inline(always)]
fn filter_by_owner(live: &Live) -> bool {
    if FILTER.load().pids == 0 || live.kept.is_null() {
        return true;
    }
    // SAFETY: a map entry or socket storage.
    unsafe {
        let owner = (*live.kept).owner;
        owner == 0 || PIDS.get(owner).is_some()
    }
}

/// A passive open's child. Before 6.18 (upstream moved the state change behind the copying of the request) it has neither
/// its remote end nor a cookie of its own here: it still carries the listener's, which must be neither read nor made. An
/// empty remote port tells the two apart; such a child is known by its address until SYN_RECV→ESTABLISHED.
#[inline(always)]
fn child(sk: *const u8, tp: *const u8) {
    let lport = sock::lport(sk, tp);
    if !filter::wanted(tp, lport, 0) {
        return;
    }
    // SAFETY: a full socket.
    let own = unsafe { ld::<u16>(sk, off!(dport)) } != 0;
    let cookie = if own { sock::cookie(sk) } else { 0 };
    let kept = if own { per_socket::get(PROGRAM, sk, cookie, true) } else { core::ptr::null_mut() };
    if !kept.is_null() {
        // SAFETY: a map entry or socket storage.
        unsafe { (*kept).to = tcp::SYN_RECV }
    }
    let live = Live { sk, tp, cookie, kept };
    let number = live.number();
    // SAFETY: the slot is a `Child`.
    emit::record::<Child>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).head, number, kind::CHILD, tcp::LISTEN, tcp::SYN_RECV, 0);
        sock::tuple(tp, lport, &raw mut (*r).tuple);
        (*r).addr = sk as u64;
    });
}

/// Keep what tells a three-segment close from one of four, and compare with what was kept.
#[inline(always)]
fn remember(live: &Live, from: u8, to: u8) -> u16 {
    let (kept, tp) = (live.kept, live.tp);
    if kept.is_null() {
        return 0;
    }
    // SAFETY: a map entry or socket storage, and a full socket.
    unsafe {
        if to == tcp::FIN_WAIT2 {
            (*kept).segs = ld(tp, off!(segs_in));
        } else if from == tcp::FIN_WAIT2 {
            if (*kept).segs == ld(tp, off!(segs_in)) {
                return flag::SAME_SEGMENT;
            }
        } else if to == tcp::CLOSE_WAIT {
            (*kept).segs = ld(tp, off!(segs_out));
            (*kept).write_seq = ld(tp, off!(write_seq));
        } else if from == tcp::CLOSE_WAIT && to == tcp::LAST_ACK {
            let mut flags = 0;
            if (*kept).segs == ld(tp, off!(segs_out)) {
                flags |= flag::SAME_SEGMENT;
            }
            if (*kept).write_seq != ld(tp, off!(write_seq)) {
                flags |= flag::DATA_AFTER_FIN;
            }
            return flags;
        }
    }
    0
}

/// Transitions that a process makes name it when it is not the owner: the one that inherited the socket, or, as `ss -K`, one
/// that has nothing to do with it. All other transitions may run in softirq on top of any process.
#[inline(always)]
fn actor(live: &Live, from: u8, to: u8) {
    if live.kept.is_null() {
        return;
    }
    let by_process = match to {
        tcp::FIN_WAIT1 | tcp::LAST_ACK => true,
        tcp::CLOSE => by_process(sock::err(live.sk), from),
        _ => false,
    };
    if !by_process {
        return;
    }
    // SAFETY: a map entry or socket storage.
    let owner = unsafe { (*live.kept).owner };
    let tgid = task::current_tgid();
    if owner == tgid {
        return;
    }
    let mut extra = 0;
    // `ss -K` may well descend from the owner, but it never held the socket.
    if owner != 0 && sock::err(live.sk) != ECONNABORTED && task::descends_from(owner) {
        extra = flag::INHERITED;
        // SAFETY: as above.
        unsafe { (*live.kept).owner = tgid }
    }
    let number = live.number();
    // SAFETY: the slot is an `Owned`.
    emit::record::<Owned>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).head, number, kind::ACTOR, from, from, extra);
        task::current(&raw mut (*r).owner, -1, 0);
    });
}

/// →CLOSE by a system call: killed by an administrator (ECONNABORTED), or without an error from a state that the peer cannot
/// end without one.
#[inline(always)]
fn by_process(err: u8, from: u8) -> bool {
    if err == ECONNABORTED {
        return true;
    }
    err == 0 && (from == tcp::SYN_SENT || from == tcp::ESTABLISHED || from == tcp::CLOSE_WAIT || from == tcp::LISTEN)
}
