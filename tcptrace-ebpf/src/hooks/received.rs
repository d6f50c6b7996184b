//! iter/task_file, again and again while processes are followed: sockets that one of them was given by a process that is not
//! (SCM_RIGHTS, pidfd_getfd). What passes when that happens is a function that only fentry and kprobes reach, or the exit of a system
//! call that all of the host makes; to look at the descriptors of a few processes costs nobody else anything.

use aya_ebpf::helpers::generated as h;
use core::ptr;
use tcptrace_common::{
    record::{Received, kind},
    settings::program::RECEIVED as PROGRAM,
    state as tcp,
};

use super::snapshot::IterTaskFile;
use crate::{
    emit, filter,
    maps::{PIDS, RINGS},
    per_socket,
    place::off,
    sock::{self, ld, ld_or},
    task,
};

const BPF_RB_AVAIL_DATA: u64 = 0;
const BPF_RB_RING_SIZE: u64 = 1;

/// Every descriptor of every process, or of one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub unsafe fn iter_received(ctx: *const IterTaskFile) -> i32 {
    // SAFETY: the iterator's context.
    unsafe {
        let task = (*ctx).task;
        if task.is_null() {
            return 0;
        }
        let tgid: u32 = ld(task, off!(task_tgid));
        if PIDS.get(tgid).is_none() {
            return 0;
        }
        let sk = (*ctx).tcp_socket();
        if !sk.is_null() {
            has(task, tgid, (*ctx).fd, sk);
        }
    }
    0
}

/// A process that is followed has this socket open. If it is known whose it is, and that is one of them, nothing is new.
#[inline(always)]
unsafe fn has(task: *const u8, tgid: u32, fd: u32, sk: *const u8) {
    // SAFETY: a full socket, kept by the file that the iterator holds.
    unsafe {
        let tp = sock::tcp(sk);
        // One that is not connected is told of when it is.
        if tp.is_null() || sock::state(tp) == tcp::CLOSE {
            return;
        }
        let lport = sock::lport(tp, tp);
        if !filter::wanted(tp, lport, 0) || !has_room() {
            return;
        }
        let cookie = sock::cookie(tp);
        let kept = per_socket::get(PROGRAM, tp, cookie, false);
        if kept.is_null() {
            return;
        }
        let (owner, seq) = ((*kept).owner, (*kept).seq);
        if owner == tgid || owner != 0 && PIDS.get(owner).is_some() {
            return;
        }
        // First, so that no transition that follows is held back.
        (*kept).owner = tgid;
        let state = sock::state(tp);
        if owner == 0 && seq == 0 {
            // Nothing was kept of it before.
            (*kept).to = state;
        }
        let mut r = Received::default();
        let head = &raw mut r.socket.head;
        (*head).sock = cookie;
        (*head).kind = kind::RECEIVED;
        (*head).from = state;
        (*head).to = state;
        (*head).err = sock::err(tp);
        (*head).flags = sock::flags(tp, tp);
        (*head).seq = seq;
        sock::describe(tp, tp, lport, state, &raw mut r.socket);
        r.socket.uid = ld_or(tp, off!(sk_uid), 0);
        r.owner.fd = fd as i32;
        r.owner.inode = r.socket.inode;
        task::describe(task, &raw mut r.owner);
        // Nobody keeps the socket from changing meanwhile. A transition is numbered before it is made, so what has neither changed its
        // number nor is in another state than after its last record is whole; the rest is left to the next look.
        let (after, to) = (ptr::read_volatile(&raw const (*kept).seq), ptr::read_volatile(&raw const (*kept).to));
        if after != seq || to != state {
            (*kept).owner = owner;
            return;
        }
        emit::record::<Received>(PROGRAM, |slot| *slot = r);
    }
}

/// Is more than half of this CPU's ring free? The rest is for what does not come again.
#[inline(always)]
fn has_room() -> bool {
    // SAFETY: no arguments.
    let cpu = unsafe { h::bpf_get_smp_processor_id() };
    let Some(ring) = RINGS.get(cpu) else { return false };
    let ring = ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: a ring map.
    unsafe { h::bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < h::bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) / 2 }
}
