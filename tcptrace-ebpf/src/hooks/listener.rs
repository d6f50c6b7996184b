//! Listeners themselves: the record of listen(), and the iterator that samples every listener of a network namespace.

use aya_ebpf::{bindings::BPF_SK_STORAGE_GET_F_CREATE, helpers::generated as h};
use tcptrace_common::{
    queue::{Listen, ListenerSample},
    record::kind,
    settings::program::INET_SOCK_SET_STATE as PROGRAM,
    state as tcp,
};

use super::{
    Live, Number,
    snapshot::{IterTcp, Meta, write},
};
use crate::{
    emit, filter,
    maps::{LISTENING, SYSCALLS},
    memory::{Memory as _, Typed},
    per_socket,
    place::{Place, off},
    sock::{self, ld, ld_or},
    task,
};

/// CLOSE→LISTEN, in the context of listen().
#[inline(always)]
pub fn listens(live: &Live, number: Number, lport: u16) {
    mark(live.sk);
    let nr = SYSCALLS.load().listen;
    let fd = task::syscall_fd(nr);
    let backlog = task::syscall_second(nr);
    // SAFETY: the slot is a `Listen`.
    emit::record::<Listen>(PROGRAM, |r| unsafe {
        live.head(&raw mut (*r).open.head, number, kind::LISTEN, tcp::CLOSE, tcp::LISTEN, 0);
        sock::tuple(live.tp, lport, &raw mut (*r).open.tuple);
        task::current(&raw mut (*r).open.owner, fd, sock::inode(live.tp));
        (*r).backlog = backlog;
        (*r).somaxconn = somaxconn(live.tp);
    });
}

/// `net.core.somaxconn` of the socket's network namespace.
#[inline(always)]
unsafe fn somaxconn(sk: *const u8) -> u32 {
    // SAFETY: a full socket.
    if off!(somaxconn).is_absent() { u32::MAX } else { unsafe { Typed::of_net(sk, off!(somaxconn)) } }
}

/// Let [`iter_listeners`] meet this socket for as long as it exists.
#[inline(always)]
fn mark(sk: *const u8) {
    // SAFETY: `sk` is a full socket; a null initial value means zeroes.
    let marked = unsafe {
        h::bpf_sk_storage_get(
            (&raw const LISTENING).cast_mut().cast(),
            sk.cast_mut().cast(),
            core::ptr::null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if marked.is_null() {
        per_socket::no_storage(PROGRAM);
    }
}

/// Marks every listener of the namespace of the process that opened the iterator: those from before the trace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub unsafe fn iter_mark_listeners(ctx: *const IterTcp) -> i32 {
    // SAFETY: the iterator's context.
    unsafe {
        let skc = (*ctx).sk_common;
        if skc.is_null() {
            return 0;
        }
        let state = sock::state(skc);
        if state != tcp::LISTEN {
            // The kernel goes through all listeners first (one that is being closed may be among them), then through every
            // connection of the host: 1 ends the walk there, and the reader gets EAGAIN.
            return i32::from(state != tcp::CLOSE);
        }
        let tp = sock::tcp(skc);
        if !tp.is_null() && sock::is_tcp(tp) && filter::wanted(tp, sock::lport(tp, tp), 0) {
            mark(tp);
        }
    }
    0
}

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub struct IterStorage {
    meta: *const Meta,
    map: *const u8,
    sk: *const u8,
    value: *const u8,
}

/// Every marked listener of the host. `iter/tcp` would go through all the buckets of all connections of the host after them, and once
/// for each namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub unsafe fn iter_listeners(ctx: *const IterStorage) -> i32 {
    // SAFETY: the iterator's context.
    unsafe {
        let (meta, sk) = ((*ctx).meta, (*ctx).sk);
        if sk.is_null() || sock::state(sk) != tcp::LISTEN {
            return 0;
        }
        let tp = sock::tcp(sk);
        if tp.is_null() {
            return 0;
        }
        let lport = sock::lport(tp, tp);
        let mut r = ListenerSample::default();
        r.head.sock = sock::cookie(tp);
        r.head.kind = kind::LISTENER;
        r.head.from = tcp::LISTEN;
        r.head.to = tcp::LISTEN;
        sock::tuple(tp, lport, &raw mut r.tuple);
        r.group = ld_or(tp, off!(reuseport), 0);
        r.syn_queue = ld_or(tp, off!(qlen), 0);
        r.young = ld_or(tp, off!(young), 0);
        r.accept_queue = ld(tp, off!(ack_backlog));
        r.limit = ld(tp, off!(max_ack_backlog));
        r.drops = ld_or(tp, off!(drops), 0);
        r.somaxconn = somaxconn(tp);
        r.fast_open_queue = ld_or(tp, off!(fastopen_qlen), 0);
        r.fast_open_limit = ld_or(tp, off!(fastopen_max), 0);
        r.defer_accept = u32::from(ld_or::<u8>(tp, off!(defer_accept), 0));
        r.head.ts = h::bpf_ktime_get_ns();
        write(meta, &r);
    }
    0
}
