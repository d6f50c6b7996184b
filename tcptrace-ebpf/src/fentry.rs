//! fentry.o: listeners' queues by fentry and fexit: typed arguments, direct loads, exact depths. See [`queue`].
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
mod place;
mod queue;
#[expect(dead_code, reason = "the other objects use the rest")]
mod scratch;
#[expect(dead_code, reason = "the other objects use the rest")]
mod sock;
mod trusted;

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use tcptrace_common::queue::outcome;

use crate::{
    maps::{COOKIE_SOCK_ARGS, HASH_ADD_TELLS},
    queue::{accept_queue, half_open, syn, time_wait},
    trusted::Trusted,
};

#[fentry(function = "tcp_conn_request")]
fn conn_request(ctx: FEntryContext) -> i32 {
    syn::arrived::<Trusted>(ctx.arg(2));
    0
}

#[fexit(function = "tcp_conn_request")]
fn conn_request_exit(ctx: FExitContext) -> i32 {
    syn::handled::<Trusted>(ctx.arg(2), ctx.arg(3));
    0
}

#[fentry(function = "cookie_v4_init_sequence")]
fn cookie_v4(_: FEntryContext) -> i32 {
    syn::decide(outcome::COOKIE_SENT);
    0
}

#[fentry(function = "cookie_v6_init_sequence")]
fn cookie_v6(_: FEntryContext) -> i32 {
    syn::decide(outcome::COOKIE_SENT);
    0
}

#[fexit(function = "inet_csk_reqsk_queue_hash_add")]
fn hash_add_exit(ctx: FExitContext) -> i32 {
    let added = HASH_ADD_TELLS.load() == 0 || ctx.ret::<u64>().is_ok_and(|added| added & 0xff != 0);
    half_open::hash_added::<Trusted>(ctx.arg(0), ctx.arg(1), added);
    0
}

#[fexit(function = "__inet_csk_reqsk_queue_drop")]
fn queue_drop_exit(ctx: FExitContext) -> i32 {
    if ctx.ret::<u64>().is_ok_and(|unlinked| unlinked & 0xff != 0) {
        half_open::dropped::<Trusted>(ctx.arg(0), ctx.arg(1), ctx.arg::<u64>(2) & 0xff != 0);
    } else {
        half_open::not_dropped();
    }
    0
}

#[fentry(function = "tcp_req_err")]
fn req_err(ctx: FEntryContext) -> i32 {
    half_open::icmp_error::<Trusted>(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) & 0xff != 0);
    0
}

#[fexit(function = "tcp_check_req")]
fn check_req_exit(ctx: FExitContext) -> i32 {
    if ctx.ret::<u64>() == Ok(0) {
        half_open::not_taken::<Trusted>(ctx.arg(0), ctx.arg(4));
    }
    0
}

#[fexit(function = "inet_reqsk_clone")]
fn clone_exit(ctx: FExitContext) -> i32 {
    if ctx.ret::<u64>().is_ok_and(|clone| clone != 0) {
        half_open::migrated::<Trusted>(ctx.arg(0), ctx.arg(1));
    }
    0
}

#[fentry(function = "inet_csk_complete_hashdance")]
fn hashdance(ctx: FEntryContext) -> i32 {
    accept_queue::hashdance::<Trusted>(ctx.arg(0), ctx.arg(2));
    0
}

#[fexit(function = "inet_csk_complete_hashdance")]
fn hashdance_exit(ctx: FExitContext) -> i32 {
    if !ctx.ret::<u64>().is_ok_and(|child| child != 0) {
        accept_queue::hashdance_lost();
        return 0;
    }
    let child: *const u8 = ctx.arg(1);
    if let Some(s) = accept_queue::hashdanced::<Trusted>(ctx.arg(0), child) {
        accept_queue::tell(s, sock::cookie(child));
    }
    0
}

#[fexit(function = "tcp_get_cookie_sock")]
fn cookie_child_exit(ctx: FExitContext) -> i32 {
    // The return value is behind the arguments; only read there is it a typed pointer.
    let child: *const u8 = if COOKIE_SOCK_ARGS.load() == 4 { word::<32>(&ctx) } else { word::<40>(&ctx) };
    if child.is_null() {
        return 0;
    }
    if let Some(s) = accept_queue::cookie_child::<Trusted, Trusted>(ctx.arg(0), child) {
        accept_queue::tell(s, sock::cookie(child));
    }
    0
}

/// The word at byte `AT` of the context. The verifier wants a constant offset: the compiler must not merge two such loads.
#[inline(always)]
fn word<const AT: i32>(ctx: &FExitContext) -> *const u8 {
    #[cfg(target_arch = "bpf")]
    {
        let value: *const u8;
        // SAFETY: the verifier knows the context's size.
        unsafe {
            core::arch::asm!("{v} = *(u64 *)({c} + {at})", v = out(reg) value, c = in(reg) ctx.as_ptr(), at = const AT);
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = ctx.as_ptr();
        core::ptr::null()
    }
}

#[fexit(function = "tcp_try_fastopen")]
fn fast_open_exit(ctx: FExitContext) -> i32 {
    let child: *const u8 = ctx.arg(5);
    if !child.is_null() {
        accept_queue::fast_opened::<Trusted>(ctx.arg(0), ctx.arg(2), child);
    }
    0
}

#[fexit(function = "tcp_v4_syn_recv_sock")]
fn syn_recv_v4_exit(ctx: FExitContext) -> i32 {
    if ctx.ret::<u64>() == Ok(0) {
        accept_queue::refused::<Trusted>(ctx.arg(0), ctx.arg(2));
    }
    0
}

#[fexit(function = "tcp_v6_syn_recv_sock")]
fn syn_recv_v6_exit(ctx: FExitContext) -> i32 {
    let req: *const u8 = ctx.arg(2);
    if ctx.ret::<u64>() == Ok(0) && !accept_queue::is_v4::<Trusted>(req) {
        accept_queue::refused::<Trusted>(ctx.arg(0), req);
    }
    0
}

#[fentry(function = "tcp_time_wait")]
fn time_wait(ctx: FEntryContext) -> i32 {
    time_wait::begins::<Trusted>(ctx.arg(0), ctx.arg::<i32>(1) as u8);
    0
}

#[fentry(function = "inet_twsk_kill")]
fn time_wait_kill(ctx: FEntryContext) -> i32 {
    time_wait::killed::<Trusted>(ctx.arg(0));
    0
}

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
