//! sched_process_fork: children of processes that are traced with all that descend from them.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    pair::Token,
    record::{Forked, kind},
    settings::{program::FORK as PROGRAM, second},
};

use crate::{emit, maps::PIDS, pair, place::off, sock::ld, task};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let child: *const u8 = ctx.arg(1);
    pair::first(second::FORK, Token::of(child), || forked(child));
    0
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork_nested(ctx: BtfTracePointContext) -> i32 {
    let child: *const u8 = ctx.arg(1);
    if !pair::is_seen(second::FORK, Token::of(child), || true) {
        forked(child);
    }
    0
}

/// In the parent's context. A thread is its own parent. A number that comes again belongs to another process: entries are not removed
/// when a process ends, because its sockets go on without it.
#[inline(always)]
fn forked(task: *const u8) {
    // SAFETY: the new task.
    let child: u32 = unsafe { ld(task, off!(task_tgid)) };
    let parent = task::current_tgid();
    // SAFETY: the entries are not read.
    let (follow, known) = unsafe { (PIDS.get(parent).is_some(), PIDS.get(child).is_some()) };
    if follow == known {
        return;
    }
    if !follow {
        let _ = PIDS.remove(child);
    } else if PIDS.insert(child, 1, 0).is_err() {
        return emit::map_full(PROGRAM);
    }
    emit::record::<Forked>(PROGRAM, |r| {
        // SAFETY: the slot is a `Forked`.
        unsafe {
            let head = &raw mut (*r).head;
            (*head).sock = 0;
            (*head).kind = kind::FORKED;
            (*head).from = 0;
            (*head).to = 0;
            (*head).err = 0;
            (*head).seq = 0;
            (*head).flags = 0;
            (*r).parent = parent;
            (*r).child = child;
        }
    });
}
