//! tracepoint.o: listeners' queues by typed tracepoints alone, for kernels with neither fentry nor kprobes. Timers tell when a
//! request comes and goes. See [`queue`].
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "host builds check the code and run none of it"))]

mod emit;
#[expect(dead_code, reason = "the other objects use the rest")]
mod filter;
#[expect(dead_code, reason = "the other objects use the rest")]
mod listeners;
#[expect(dead_code, reason = "the other objects use the rest")]
mod maps;
mod memory;
mod object;
mod place;
mod queue;
#[expect(dead_code, reason = "the other objects use the rest")]
mod scratch;
#[expect(dead_code, reason = "the other objects use the rest")]
mod sock;
mod timers;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{settings::second, state as tcp};

use crate::{
    maps::{OVERFLOW_REASON, STATS},
    timers::{Owner, owner},
};

#[btf_tracepoint(function = "timer_start")]
fn timer_start(ctx: BtfTracePointContext) -> i32 {
    let timer: *const u8 = ctx.arg(0);
    match owner(timer) {
        Owner::Other => timers::other_started(),
        Owner::Request => {
            timers::other_started();
            timers::request_started(timer);
        }
        Owner::TimeWait => timers::timewait_started(timer),
    }
    0
}

#[btf_tracepoint(function = "timer_cancel")]
fn timer_cancel(ctx: BtfTracePointContext) -> i32 {
    let timer: *const u8 = ctx.arg(0);
    match owner(timer) {
        Owner::Other => {}
        Owner::Request => timers::request_cancelled(timer),
        Owner::TimeWait => timers::timewait_cancelled(timer),
    }
    0
}

#[btf_tracepoint(function = "timer_expire_entry")]
fn timer_expire_entry(ctx: BtfTracePointContext) -> i32 {
    let timer: *const u8 = ctx.arg(0);
    match owner(timer) {
        Owner::Other => {}
        Owner::Request => timers::request_expires(timer),
        Owner::TimeWait => timers::timewait_expires(timer),
    }
    0
}

/// The timer may be free by now, but not its slab: both kinds of owners keep their type for an RCU grace period.
#[btf_tracepoint(function = "timer_expire_exit")]
fn timer_expire_exit(ctx: BtfTracePointContext) -> i32 {
    if owner(ctx.arg(0)) == Owner::Request {
        timers::request_expired();
    }
    0
}

/// What a softirq does may interrupt this program on top of a process' transition, and is then skipped here.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_marks(ctx: BtfTracePointContext) -> i32 {
    marks(&ctx);
    timers::marked(ctx.arg(0));
    0
}

/// Right behind it: takes what that had to skip. Twice is as good as once.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_marks_nested(ctx: BtfTracePointContext) -> i32 {
    if !timers::was_marked(ctx.arg(0)) {
        if let Some(stats) = STATS.get_ptr_mut(0) {
            // SAFETY: this CPU's own entry.
            unsafe { (*stats).nested[second::MARKS] += 1 }
        }
        marks(&ctx);
    }
    0
}

#[inline(always)]
fn marks(ctx: &BtfTracePointContext) {
    let from: i32 = ctx.arg(1);
    if from as u8 == tcp::LISTEN || from as u8 == tcp::SYN_RECV {
        let to: i32 = ctx.arg(2);
        timers::child_moves(ctx.arg(0), from as u8, to as u8);
    }
}

#[btf_tracepoint(function = "sk_data_ready")]
fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if sock::state(sk) == tcp::LISTEN && sock::is_tcp(sk) {
        timers::listener_ready(sk);
    }
    0
}

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let reason: u64 = ctx.arg(2);
    if reason as u32 != OVERFLOW_REASON.load() || reason as u32 == 0 {
        return 0;
    }
    let sk: *const u8 = ctx.arg(3);
    if !sk.is_null() && sock::is_tcp(sk) {
        timers::refused(sk, ctx.arg(0));
    }
    0
}

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
