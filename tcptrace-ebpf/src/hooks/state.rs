//! inet_sock_set_state: every state transition of every TCP socket.

use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::warn;
use tcptrace_common::{
    pair::Token,
    record::{Child, Closed, Established, Open, Owned, Owner, Received, Sequence, flag, kind},
    settings::{PerSocket, program::INET_SOCK_SET_STATE as PROGRAM, second},
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
    stack, task,
};

const ECONNABORTED: u8 = 103;

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let t = Transition(&ctx);
    pair::first(second::STATE, t.token(), || handle(&t));
    0
}

/// All that the first does is here once more. A jump into that would spare the verifier half of its work, and the kernel allows it even
/// where it would not run the first anew: but from Linux 6.13 on a program has a stack of its own on each CPU, which the one that was
/// interrupted there has in use.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state_nested(ctx: BtfTracePointContext) -> i32 {
    let t = Transition(&ctx);
    if !pair::is_seen(second::STATE, t.token(), || was_seen(&t)) {
        handle(&t);
    }
    0
}

/// The transition that passes the hook. Both states are read anew each time: of what it learns about a value in one place the verifier
/// makes a path of its own through all that follows.
struct Transition<'a>(&'a BtfTracePointContext);

impl Transition<'_> {
    #[inline(always)]
    fn sk(&self) -> *const u8 {
        self.0.arg(0)
    }

    #[inline(always)]
    fn from(&self) -> u8 {
        self.state(1)
    }

    #[inline(always)]
    fn to(&self) -> u8 {
        self.state(2)
    }

    #[inline(always)]
    fn state(&self, index: usize) -> u8 {
        // SAFETY: an argument of the tracepoint.
        unsafe { core::ptr::read_volatile(self.0.as_ptr().cast::<u64>().add(index)) as u8 }
    }

    /// Does a process open the socket?
    #[inline(always)]
    fn opens(&self) -> bool {
        self.from() == tcp::CLOSE && matches!(self.to(), tcp::SYN_SENT | tcp::LISTEN)
    }

    #[inline(always)]
    fn token(&self) -> Token {
        Token { sk: self.sk() as u64, what: u64::from(self.from()) | (u64::from(self.to()) << 8) }
    }
}

/// Has the socket's data this transition as its last? A socket without any: nothing speaks against the token.
#[inline(always)]
fn was_seen(t: &Transition) -> bool {
    let sk = t.sk();
    // SAFETY: a full socket.
    let cookie: u64 = unsafe { ld(sk, off!(cookie)) };
    let kept = per_socket::find(sk, cookie);
    // SAFETY: a map entry or socket storage.
    cookie == 0 || kept.is_null() || unsafe { (*kept).to } == t.to()
}

#[inline(always)]
fn handle(t: &Transition) {
    let sk = t.sk();
    if !sock::is_tcp(sk) {
        return;
    }
    let tp = sock::tcp(sk);
    if tp.is_null() {
        return;
    }
    if t.from() == tcp::LISTEN && t.to() == tcp::SYN_RECV {
        if LISTENERS_ONLY.load() == 0 {
            child(sk, tp);
        }
        return;
    }
    if LISTENERS_ONLY.load() != 0 && t.from() != tcp::LISTEN && t.to() != tcp::LISTEN {
        return;
    }
    let lport = sock::lport(sk, tp);
    let owner = if t.opens() { task::current_tgid() } else { 0 };
    // SAFETY: a full socket.
    let known = per_socket::has_slot(unsafe { ld(sk, off!(cookie)) });
    // One that passed before is where it was, and `struct net` is a cache line that all CPUs write to.
    if !known && !filter::in_netns::<Typed>(tp) {
        return;
    }
    // The tuple of an active open is complete only now. If it passed while it was not, the collector needs this record to know
    // that it may forget the socket.
    if !filter::wanted_there(tp, lport, owner) && (t.from() != tcp::SYN_SENT || !passed_before(sk)) {
        return;
    }
    let live = Live { sk, tp, cookie: sock::cookie(sk) };
    let kept = per_socket::get(PROGRAM, sk, live.cookie, t.opens());
    if kept.is_null() && VERBOSE.load() != 0 {
        warn!(t.0, "no memory to keep a socket's numbers: its transition {} to {} goes unnumbered", t.from(), t.to());
    }
    if t.opens() {
        opened(&live, t, open(kept, t, owner, lport), lport);
        return;
    }
    let Some(told) = remember(&live, t, kept) else { return };
    first_sight(&live, t, &told, lport);
    actor(&live, t, told.owner);
    // Not before: a row of a snapshot that is read meanwhile has the number of the last record.
    let number = Number::next(per_socket::find(sk, live.cookie));
    match t.to() {
        // SAFETY: the slot is an `Established`.
        tcp::ESTABLISHED => emit::record::<Established>(PROGRAM, |r| unsafe {
            live.head(&raw mut (*r).head, number, kind::ESTABLISHED, t.from(), t.to(), 0);
            sock::tuple(tp, lport, &raw mut (*r).tuple);
            sock::handshake(sk, tp, &raw mut (*r).handshake);
        }),
        tcp::CLOSE => {
            let mut extra = told.extra;
            let closing = matches!(t.from(), tcp::FIN_WAIT2 | tcp::CLOSING | tcp::FIN_WAIT1);
            // SAFETY: a full socket.
            if closing && unsafe { sock::time_wait_full::<Typed>(tp) } {
                extra |= flag::TW_FULL;
            }
            // SAFETY: the slot is a `Closed`.
            emit::record::<Closed>(PROGRAM, |r| unsafe {
                live.head(&raw mut (*r).head, number, kind::CLOSED, t.from(), t.to(), extra);
                sock::counters(sk, tp, &raw mut (*r).counters);
                (*r).lport = lport;
                (*r).reserved = 0;
                (*r).snd_una = ld(tp, off!(snd_una));
            });
        }
        // SAFETY: the slot is a `Sequence`.
        _ => emit::record::<Sequence>(PROGRAM, |r| unsafe {
            live.head(&raw mut (*r).head, number, kind::SEQUENCE, t.from(), t.to(), told.extra);
            (*r).snd_una = ld(tp, off!(snd_una));
            (*r).snd_nxt = ld(tp, off!(snd_nxt));
            (*r).write_seq = ld(tp, off!(write_seq));
            (*r).rcv_nxt = ld(tp, off!(rcv_nxt));
        }),
    }
}

/// Keep what a process that opens a socket leaves, and number the record of it.
#[inline(always)]
fn open(kept: *mut PerSocket, t: &Transition, owner: u32, lport: u16) -> Number {
    if !kept.is_null() {
        // SAFETY: a map entry or socket storage.
        unsafe {
            (*kept).to = t.to();
            (*kept).owner = owner;
            // listen() without bind(): `inet_csk_listen_start` sets the state first and then has a port chosen.
            (*kept).portless = u8::from(t.to() == tcp::LISTEN && lport == 0);
        }
    }
    Number::next(kept)
}

#[inline(always)]
fn opened(live: &Live, t: &Transition, number: Number, lport: u16) {
    if QUEUES.load() != 0 && t.to() == tcp::LISTEN {
        listener::listens(live, number, lport);
        return;
    }
    let fd = {
        let nr = SYSCALLS.load();
        task::syscall_fd(if t.to() == tcp::LISTEN { nr.listen } else { nr.connect })
    };
    // Fast Open connects in the call that sends.
    let copied = if t.to() == tcp::SYN_SENT { stack::copy(live.cookie, number.seq, |_| true) } else { 0 };
    // SAFETY: the slot is an `Open`.
    emit::record::<Open>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).head, number, kind::OPEN, t.from(), t.to(), copied);
        sock::tuple(live.tp, lport, &raw mut (*r).tuple);
        task::current(&raw mut (*r).owner, fd, sock::inode(live.tp));
    });
}

/// Was there a record of this socket?
#[inline(always)]
fn passed_before(sk: *const u8) -> bool {
    let kept = per_socket::find(sk, sock::cookie(sk));
    // SAFETY: a map entry or socket storage.
    !kept.is_null() && unsafe { (*kept).seq } != 0
}

/// What was kept of a socket before a transition that no process opened it by, and what that changes.
struct Told {
    /// Number of the record before; 0: there was none.
    before: u16,
    /// Thread group; 0: not known.
    owner: u32,
    /// That is a process that is followed, which was given the socket by one that is not; nothing was told of it so far.
    received: bool,
    /// [`flag`] bits.
    extra: u16,
}

/// Keep the transition. All that is done with the socket's data is done here, as far as it can be: it is a slot, socket storage or none,
/// and the verifier follows all that comes while they can be told apart three times. None: it belongs to a process that is not wanted.
#[inline(always)]
fn remember(live: &Live, t: &Transition, kept: *mut PerSocket) -> Option<Told> {
    if kept.is_null() {
        return Some(Told { before: u16::MAX, owner: 0, received: false, extra: 0 });
    }
    // SAFETY: a map entry or socket storage.
    unsafe {
        (*kept).to = t.to();
        let mut owner = (*kept).owner;
        let mut received = false;
        if FILTER.load().pids != 0 && (owner == 0 || PIDS.get(owner).is_none()) {
            let tgid = task::current_tgid();
            received = by_holder(live, t) && PIDS.get(tgid).is_some();
            if received {
                (*kept).owner = tgid;
                owner = tgid;
            } else if owner != 0 {
                return None;
            }
        }
        let extra = closing(live.tp, t, kept);
        let before = (*kept).seq;
        Some(Told { before, owner, received, extra })
    }
}

/// A socket whose life had begun before the trace, or before it belonged to it: say all that is known of it. What a handshake settles is
/// told at its end anyway.
#[inline(always)]
fn first_sight(live: &Live, t: &Transition, told: &Told, lport: u16) {
    let from = t.from();
    if !told.received && (told.before != 0 || t.to() == tcp::ESTABLISHED || from == tcp::SYN_RECV) {
        return;
    }
    let kind = if told.received { kind::RECEIVED } else { kind::FOUND };
    // SAFETY: the slot is a `Received`; the tracepoint fires after the state was changed, the record is about the one before.
    emit::record::<Received>(PROGRAM, |r| unsafe {
        let socket = &raw mut (*r).socket;
        live.head(&raw mut (*socket).head, Number { seq: told.before, flags: 0 }, kind, from, from, 0);
        sock::describe(live.sk, live.tp, lport, from, socket);
        (*socket).uid = ld_or(live.sk, off!(sk_uid), 0);
        let owner = &raw mut (*r).owner;
        if told.received {
            task::current(owner, -1, (*socket).inode);
        } else {
            *owner = Owner { pid: 0, tid: 0, uid: 0, fd: -1, comm: [0; 16], cgroup: 0, inode: 0, started: 0 };
        }
    });
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
    let live = Live { sk, tp, cookie };
    let number = Number::next(kept);
    // SAFETY: the slot is a `Child`.
    emit::record::<Child>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).head, number, kind::CHILD, tcp::LISTEN, tcp::SYN_RECV, 0);
        sock::tuple(tp, lport, &raw mut (*r).tuple);
        (*r).addr = sk as u64;
    });
}

/// Keep what tells a three-segment close from one of four, and compare with what was kept.
#[inline(always)]
unsafe fn closing(tp: *const u8, t: &Transition, kept: *mut PerSocket) -> u16 {
    // SAFETY: a map entry or socket storage, and a full socket.
    unsafe {
        if t.to() == tcp::FIN_WAIT2 {
            (*kept).segs = ld(tp, off!(segs_in));
        } else if t.from() == tcp::FIN_WAIT2 {
            if (*kept).segs == ld(tp, off!(segs_in)) {
                return flag::SAME_SEGMENT;
            }
        } else if t.to() == tcp::CLOSE_WAIT {
            (*kept).segs = ld(tp, off!(segs_out));
            (*kept).write_seq = ld(tp, off!(write_seq));
        } else if t.from() == tcp::CLOSE_WAIT && t.to() == tcp::LAST_ACK {
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
fn actor(live: &Live, t: &Transition, owner: u32) {
    let tgid = task::current_tgid();
    if !by_process(sock::err(live.sk), t) || owner == tgid {
        return;
    }
    // Hardly ever: it is looked up once more.
    let kept = per_socket::find(live.sk, live.cookie);
    if kept.is_null() {
        return;
    }
    let mut extra = 0;
    // `ss -K` may well descend from the owner, but it never held the socket.
    if owner != 0 && sock::err(live.sk) != ECONNABORTED && task::descends_from(owner) {
        extra = flag::INHERITED;
        // SAFETY: a map entry or socket storage.
        unsafe { (*kept).owner = tgid }
    }
    let number = Number::next(kept);
    let from = t.from();
    // SAFETY: the slot is an `Owned`.
    emit::record::<Owned>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).head, number, kind::ACTOR, from, from, extra);
        task::current(&raw mut (*r).owner, -1, 0);
    });
}

/// Is it made by a system call? →CLOSE is: killed by an administrator (ECONNABORTED), or without an error from a state that the peer
/// cannot end without one.
#[inline(always)]
fn by_process(err: u8, t: &Transition) -> bool {
    let (from, to) = (t.from(), t.to());
    match to {
        tcp::FIN_WAIT1 | tcp::LAST_ACK => true,
        tcp::CLOSE if err == ECONNABORTED => true,
        tcp::CLOSE => err == 0 && matches!(from, tcp::SYN_SENT | tcp::ESTABLISHED | tcp::CLOSE_WAIT | tcp::LISTEN),
        _ => false,
    }
}

/// Is it made by a system call of a process that has the socket? `ss -K` has not, nor has who closes a listener those in its accept queue.
#[inline(always)]
fn by_holder(live: &Live, t: &Transition) -> bool {
    let err = sock::err(live.sk);
    // SAFETY: a full socket.
    err != ECONNABORTED && by_process(err, t) && unsafe { ld::<u64>(live.tp, off!(socket)) } != 0
}
