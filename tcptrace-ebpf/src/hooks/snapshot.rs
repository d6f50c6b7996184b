//! iter/tcp and iter/task_file: what exists when the trace starts. aya-ebpf has no macro for iterators: plain functions in
//! the section that names the target.

use aya_ebpf::helpers::generated as h;
use core::ffi::c_void;
use tcptrace_common::{
    record::{MiniSocket, Owned, Socket, kind},
    state as tcp,
};

use crate::{
    per_socket,
    place::off,
    sock::{self, ld, ld_or},
    task,
};

/// `struct bpf_iter_meta`.
#[repr(C)]
pub struct Meta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

/// `struct bpf_iter__tcp`.
#[repr(C)]
pub struct IterTcp {
    pub meta: *const Meta,
    pub sk_common: *const u8,
    uid: u32,
}

/// `struct bpf_iter__task_file`.
#[repr(C)]
pub struct IterTaskFile {
    meta: *const Meta,
    pub task: *const u8,
    pub fd: u32,
    file: *const u8,
}

impl IterTaskFile {
    /// The TCP socket that the descriptor is; null: it is none, or the run is over.
    #[inline(always)]
    pub unsafe fn tcp_socket(&self) -> *const u8 {
        // SAFETY: the iterator's context.
        unsafe {
            if self.task.is_null() || self.file.is_null() {
                return core::ptr::null();
            }
            let socket: *const u8 = h::bpf_sock_from_file(self.file.cast_mut().cast()).cast_const().cast();
            if socket.is_null() {
                return core::ptr::null();
            }
            let sk: *const u8 = ld(socket, off!(socket_sk));
            if sk.is_null() || !sock::is_tcp(sk) {
                return core::ptr::null();
            }
            sk
        }
    }
}

#[inline(always)]
pub unsafe fn write<T>(meta: *const Meta, record: &T) {
    // SAFETY: the seq file of this iteration. A full buffer makes the kernel call again with a larger one.
    unsafe {
        h::bpf_seq_write((*meta).seq.cast(), core::ptr::from_ref(record).cast_mut().cast(), size_of::<T>() as u32);
    }
}

/// Every TCP socket of the namespace of the process that opened the iterator.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub unsafe fn iter_tcp(ctx: *const IterTcp) -> i32 {
    // SAFETY: the iterator's context.
    unsafe {
        let (meta, skc, uid) = ((*ctx).meta, (*ctx).sk_common, (*ctx).uid);
        if skc.is_null() {
            return 0;
        }
        let state = sock::state(skc);
        if state == tcp::TIME_WAIT {
            let tw: *const u8 = h::bpf_skc_to_tcp_timewait_sock(skc.cast_mut().cast()).cast_const().cast();
            if !tw.is_null() {
                mini(
                    meta,
                    tw,
                    kind::TIME_WAIT,
                    ld_or(tw, off!(tw_substate), tcp::TIME_WAIT),
                    u16::from_be(ld(tw, off!(tw_sport))),
                    0,
                );
            }
        } else if state == tcp::NEW_SYN_RECV {
            let req = sock::tcp_request(skc);
            if !req.is_null() {
                let retrans = u32::from(ld_or::<u8>(req, off!(num_retrans), 0));
                mini(meta, req, kind::REQUEST, state, ld(req, off!(req_num)), retrans);
            }
        } else {
            let tp = sock::tcp(skc);
            if !tp.is_null() && sock::is_tcp(tp) {
                full(meta, tp, tp, uid);
            }
        }
    }
    0
}

#[inline(always)]
unsafe fn mini(meta: *const Meta, sk: *const u8, kind: u8, state: u8, lport: u16, retrans: u32) {
    let mut r = MiniSocket::default();
    // SAFETY: every mini socket starts with a `sock_common`.
    unsafe {
        r.head.ts = h::bpf_ktime_get_ns();
        r.head.sock = ld(sk, off!(cookie));
        r.head.kind = kind;
        r.head.from = state;
        r.head.to = state;
        sock::tuple(sk, lport, &raw mut r.tuple);
        r.retrans = retrans;
        write(meta, &r);
    }
}

#[inline(always)]
unsafe fn full(meta: *const Meta, sk: *const u8, tp: *const u8, uid: u32) {
    let mut r = Socket::default();
    // SAFETY: a full socket, locked by the iterator.
    unsafe {
        let state = sock::state(sk);
        r.head.sock = sock::cookie(sk);
        r.head.kind = kind::SOCKET;
        r.head.from = state;
        r.head.to = state;
        r.head.err = sock::err(sk);
        r.head.flags = sock::flags(sk, tp);
        r.head.seq = per_socket::last_seq(r.head.sock);
        sock::describe(sk, tp, sock::lport(sk, tp), state, &raw mut r);
        r.uid = uid;
        // Read last: what the row says was true no later than this.
        r.head.ts = h::bpf_ktime_get_ns();
        write(meta, &r);
    }
}

/// Every descriptor of every process that is a TCP socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub unsafe fn iter_task_file(ctx: *const IterTaskFile) -> i32 {
    // SAFETY: the iterator's context.
    unsafe {
        let (meta, task, fd) = ((*ctx).meta, (*ctx).task, (*ctx).fd);
        let sk = (*ctx).tcp_socket();
        if sk.is_null() {
            return 0;
        }
        let mut r = Owned::default();
        let cookie: u64 = ld(sk, off!(cookie));
        r.head.sock = cookie;
        r.head.kind = kind::HOLDER;
        let state = sock::state(sk);
        r.head.from = state;
        r.head.to = state;
        r.owner.fd = fd as i32;
        r.owner.inode = sock::inode(sk);
        task::describe(task, &raw mut r.owner);
        r.head.ts = h::bpf_ktime_get_ns();
        write(meta, &r);
    }
    0
}
