//! tracepoint.o: listeners' queues by typed tracepoints alone, for kernels with neither fentry nor kprobes. Timers tell when a
//! request comes and goes. See [`queue`].
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "host builds check the code and run none of it"))]

#[expect(dead_code, reason = "the other objects use the rest")]
mod bucket;
#[expect(dead_code, reason = "the other objects use the rest")]
mod emit;
#[expect(dead_code, reason = "the other objects use the rest")]
mod filter;
#[expect(dead_code, reason = "the other objects use the rest")]
mod listeners;
#[expect(dead_code, reason = "the other objects use the rest")]
mod maps;
mod memory;
mod object;
mod pair;
mod place;
mod queue;
#[expect(dead_code, reason = "the other objects use the rest")]
mod scratch;
#[expect(dead_code, reason = "the other objects use the rest")]
mod sock;
mod timers;
mod trusted;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{pair::Token, settings::second, state as tcp};

use crate::{
    maps::OVERFLOW_REASON,
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

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_marks(ctx: BtfTracePointContext) -> i32 {
    if concerns_children(&ctx) {
        pair::first(second::MARKS, Token::of(ctx.arg(0)), || marks(&ctx));
    }
    0
}

/// Twice is as good as once.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_marks_nested(ctx: BtfTracePointContext) -> i32 {
    if concerns_children(&ctx) && !pair::is_seen(second::MARKS, Token::of(ctx.arg(0)), || false) {
        marks(&ctx);
    }
    0
}

/// Does it come from a state that children have, or the listener that makes them?
#[inline(always)]
fn concerns_children(ctx: &BtfTracePointContext) -> bool {
    let from: i32 = ctx.arg(1);
    from as u8 == tcp::LISTEN || from as u8 == tcp::SYN_RECV
}

#[inline(always)]
fn marks(ctx: &BtfTracePointContext) {
    let (from, to): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    timers::child_moves(ctx.arg(0), from as u8, to as u8);
}

#[btf_tracepoint(function = "sk_data_ready")]
fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if is_listener(sk) {
        pair::first(second::READY, Token::of(sk), || timers::listener_ready(sk));
    }
    0
}

#[btf_tracepoint(function = "sk_data_ready")]
fn sk_data_ready_nested(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if is_listener(sk) && !pair::is_seen(second::READY, Token::of(sk), || true) {
        timers::listener_ready(sk);
    }
    0
}

#[inline(always)]
fn is_listener(sk: *const u8) -> bool {
    sock::state(sk) == tcp::LISTEN && sock::is_tcp(sk)
}

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    if let Some((sk, skb)) = overflow(&ctx) {
        pair::first(second::DROPPED, Token::of(skb), || timers::refused(sk, skb));
    }
    0
}

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb_nested(ctx: BtfTracePointContext) -> i32 {
    if let Some((sk, skb)) = overflow(&ctx)
        && !pair::is_seen(second::DROPPED, Token::of(skb), || true)
    {
        timers::refused(sk, skb);
    }
    0
}

/// Listener and segment, if that is dropped because of a full accept queue.
#[inline(always)]
fn overflow(ctx: &BtfTracePointContext) -> Option<(*const u8, *const u8)> {
    let reason: u64 = ctx.arg(2);
    if reason as u32 != OVERFLOW_REASON.load() || reason as u32 == 0 {
        return None;
    }
    let sk: *const u8 = ctx.arg(3);
    (!sk.is_null() && sock::is_tcp(sk)).then(|| (sk, ctx.arg(0)))
}

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
