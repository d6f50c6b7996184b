//! Who accepted a connection. Four hooks, one handler; the loader takes the best that the kernel lets it attach. The exits of
//! system calls see the end of listen() too, and tell the port of a listener that was not bound.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated as h,
    macros::{btf_tracepoint, fentry, kprobe, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, TracePointContext},
};
use tcptrace_common::{
    record::{Accepted, Bound, flag, kind},
    settings::program::ACCEPT as PROGRAM,
    state as tcp,
};

use super::Number;
use crate::{
    emit, filter, listeners,
    maps::{FILTER, LISTENERS_ONLY, QUEUES, SYSCALLS},
    memory::{Memory, Probed},
    per_socket,
    place::{Place, off},
    sock::{self, ld},
    stack, task,
};

/// The exit of accept() and accept4(): the descriptor leads to the exact child.
#[tracepoint]
pub fn exit_accept(ctx: TracePointContext) -> u32 {
    let fd = result(&ctx);
    if fd >= 0 {
        accepted_fd(fd as i32);
    }
    0
}

/// The exit of listen().
#[tracepoint]
pub fn exit_listen(ctx: TracePointContext) -> u32 {
    if result(&ctx) >= 0 {
        listening(task::syscall_fd(SYSCALLS.load().listen));
    }
    0
}

/// What a system call returns: `ret` in the `format` of its exit, the same for all.
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: the verifier checks the access.
    unsafe { *ctx.as_ptr().cast::<i64>().add(2) }
}

/// The same where only the exits of all system calls can be had. Runs at the end of every one on the host: the comparison comes
/// first.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: the task's saved registers.
    let nr: u64 = unsafe { ld(regs, off!(regs_nr)) };
    let wanted = SYSCALLS.load();
    let listens = nr == wanted.listen;
    if nr != wanted.accept && nr != wanted.accept4 && !listens {
        return 0;
    }
    let result: i64 = ctx.arg(1);
    if result < 0 {
        return 0;
    }
    if listens {
        listening(task::syscall_fd(nr));
    } else {
        accepted_fd(result as i32);
    }
    0
}

/// The `struct socket` and the `struct sock` behind a descriptor of the current process; no TCP socket if another thread
/// closed it.
#[inline(always)]
unsafe fn socket_of(fd: i32) -> (*const u8, *const u8) {
    // SAFETY: each step is a checked read.
    unsafe {
        let step = |from: *const u8, place| Probed::ld::<u64>(from, place) as *const u8;
        let files = step(h::bpf_get_current_task() as *const u8, off!(task_files).offset());
        let fdt = step(files, off!(files_fdt).offset());
        let array = step(fdt, off!(fdt_fd).offset());
        let file = step(array, fd as u32 * 8);
        let socket = step(file, off!(file_private).offset());
        (socket, step(socket, off!(socket_sk).offset()))
    }
}

/// listen() has returned 0: if its port was not known when the state changed, it is now.
#[inline(always)]
fn listening(fd: i32) {
    if fd < 0 {
        return;
    }
    // SAFETY: checked reads; the slot is a `Bound`.
    unsafe {
        let (_, sk) = socket_of(fd);
        if sk.is_null() || Probed::ld::<u16>(sk, off!(protocol)) != 6 {
            return;
        }
        let cookie: u64 = Probed::ld(sk, off!(cookie));
        let lport: u16 = Probed::ld(sk, off!(num));
        if cookie == 0 || lport == 0 {
            return;
        }
        let Some(seq) = per_socket::bound(cookie) else { return };
        emit::record::<Bound>(PROGRAM, |r| {
            let head = &raw mut (*r).head;
            (*head).sock = cookie;
            (*head).kind = kind::BOUND;
            (*head).from = tcp::LISTEN;
            (*head).to = tcp::LISTEN;
            (*head).err = 0;
            (*head).seq = seq;
            (*head).flags = 0;
            (*r).lport = lport;
            (*r).reserved = [0; 3];
        });
    }
}

#[inline(always)]
fn accepted_fd(fd: i32) {
    // SAFETY: checked reads.
    unsafe {
        let (socket, sk) = socket_of(fd);
        let inode = if off!(sk_ino).is_absent() { sock::inode_of(socket) } else { Probed::ld(sk, off!(sk_ino)) };
        accepted(sk, fd, inode);
    }
}

#[inline(always)]
unsafe fn accepted(sk: *const u8, fd: i32, inode: u64) {
    // SAFETY: checked reads.
    unsafe {
        if sk.is_null() || Probed::ld::<u16>(sk, off!(protocol)) != 6 {
            return;
        }
        if QUEUES.load() != 0 {
            listeners::accepted(sk as u64);
        }
        if LISTENERS_ONLY.load() != 0 {
            return;
        }
        // Only a Fast Open child may have none yet: the state program makes the cookie of every socket that it says anything about.
        let cookie: u64 = Probed::ld(sk, off!(cookie));
        let taken = if cookie == 0 { None } else { per_socket::take_over(cookie, task::current_tgid()) };
        let number = match taken {
            Some(seq) => Number { seq, flags: 0 },
            None if filtered_out(sk) => return,
            // It has storage, or is older than the trace.
            None => Number { seq: 0, flags: flag::SEQ_ABSENT },
        };
        let state: u8 = Probed::ld(sk, off!(state));
        let err: u32 = Probed::ld(sk, off!(err));
        // io_uring accepts at the end of whatever the process does.
        let nr = SYSCALLS.load();
        let is_accept = |call| call == nr.accept || call == nr.accept4;
        let copied = if cookie == 0 { 0 } else { stack::copy(cookie, number.seq, is_accept) };
        emit::record::<Accepted>(PROGRAM, |r| {
            (*r).addr = sk as u64;
            let head = &raw mut (*r).head;
            (*head).sock = cookie;
            (*head).kind = kind::ACCEPTED;
            (*head).from = state;
            (*head).to = state;
            (*head).err = if err > 254 { 255 } else { err as u8 };
            (*head).seq = number.seq;
            (*head).flags = number.flags | copied;
            task::current(&raw mut (*r).owner, fd, inode);
        });
    }
}

/// Would the state program have nothing to say of this socket? It has no slot, so only what an untyped pointer gives can be
/// asked; where that does not decide, it stays unsaid who accepted, and who closes it tells.
#[inline(always)]
unsafe fn filtered_out(sk: *const u8) -> bool {
    let on = FILTER.load();
    on.ports | on.addrs | on.pids != 0 || !filter::in_netns::<Probed>(sk)
}

/// security_sock_graft(sk, parent): the exact child in the accepter's context, before its descriptor exists.
#[fentry(function = "security_sock_graft")]
pub fn sock_graft_fentry(ctx: FEntryContext) -> i32 {
    grafted(ctx.arg(0), ctx.arg(1));
    0
}

/// The same where fentry is refused.
#[kprobe(function = "security_sock_graft")]
pub fn sock_graft_kprobe(ctx: ProbeContext) -> u32 {
    let none = core::ptr::null();
    grafted(ctx.arg(0).unwrap_or(none), ctx.arg(1).unwrap_or(none));
    0
}

#[inline(always)]
fn grafted(sk: *const u8, parent: *const u8) {
    // SAFETY: checked reads.
    unsafe { accepted(sk, -1, sock::inode_of(parent)) }
}
