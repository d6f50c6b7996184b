//! kprobe.o: listeners' queues by kprobes and kretprobes, where fentry is refused: the same moments, checked reads, cookies that
//! exist. A return probe has no arguments: the entry keeps them. See [`queue`].
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
mod scratch;
#[expect(dead_code, reason = "the other objects use the rest")]
mod sock;

use aya_ebpf::{
    macros::{btf_tracepoint, kprobe, kretprobe},
    programs::{BtfTracePointContext, ProbeContext, RetProbeContext},
};
use tcptrace_common::{pair::Token, queue::outcome, settings::second, state as tcp};

use crate::{
    maps::HASH_ADD_TELLS,
    memory::Probed,
    queue::{accept_queue, half_open, syn, time_wait},
    scratch::{Stash, function, scratch},
};

/// Keep three arguments for the return probe of the same function.
#[inline(always)]
fn keep(slot: usize, ctx: &ProbeContext, which: [usize; 3]) {
    if let Some(s) = scratch() {
        let arg = |n: usize| ctx.arg::<u64>(n).unwrap_or(0);
        // SAFETY: this CPU's entry; `slot` is a constant.
        unsafe { (*s).stash[slot] = Stash { args: [arg(which[0]), arg(which[1]), arg(which[2])] } }
    }
}

/// What the entry kept; None: it was not seen.
#[inline(always)]
fn kept(slot: usize) -> Option<[u64; 3]> {
    let s = scratch()?;
    // SAFETY: as for `keep`.
    unsafe {
        let args = (*s).stash[slot].args;
        (*s).stash[slot].args[0] = 0;
        (args[0] != 0).then_some(args)
    }
}

const fn at(address: u64) -> *const u8 {
    address as *const u8
}

#[kprobe(function = "tcp_conn_request")]
fn conn_request(ctx: ProbeContext) -> u32 {
    keep(function::CONN_REQUEST, &ctx, [2, 3, 3]);
    syn::arrived::<Probed>(ctx.arg(2).unwrap_or(core::ptr::null()));
    0
}

#[kretprobe(function = "tcp_conn_request")]
fn conn_request_exit(_: RetProbeContext) -> u32 {
    if let Some([sk, skb, _]) = kept(function::CONN_REQUEST) {
        syn::handled::<Probed>(at(sk), at(skb));
    }
    0
}

#[kprobe(function = "cookie_v4_init_sequence")]
fn cookie_v4(_: ProbeContext) -> u32 {
    syn::decide(outcome::COOKIE_SENT);
    0
}

#[kprobe(function = "cookie_v6_init_sequence")]
fn cookie_v6(_: ProbeContext) -> u32 {
    syn::decide(outcome::COOKIE_SENT);
    0
}

#[kprobe(function = "inet_csk_reqsk_queue_hash_add")]
fn hash_add(ctx: ProbeContext) -> u32 {
    keep(function::HASH_ADD, &ctx, [0, 1, 1]);
    0
}

#[kretprobe(function = "inet_csk_reqsk_queue_hash_add")]
fn hash_add_exit(ctx: RetProbeContext) -> u32 {
    if let Some([sk, req, _]) = kept(function::HASH_ADD) {
        let added = HASH_ADD_TELLS.load() == 0 || ctx.ret::<u64>() & 0xff != 0;
        half_open::hash_added::<Probed>(at(sk), at(req), added);
    }
    0
}

#[kprobe(function = "__inet_csk_reqsk_queue_drop")]
fn queue_drop(ctx: ProbeContext) -> u32 {
    keep(function::QUEUE_DROP, &ctx, [0, 1, 2]);
    0
}

#[kretprobe(function = "__inet_csk_reqsk_queue_drop")]
fn queue_drop_exit(ctx: RetProbeContext) -> u32 {
    match kept(function::QUEUE_DROP) {
        Some([sk, req, from_timer]) if ctx.ret::<u64>() & 0xff != 0 => {
            half_open::dropped::<Probed>(at(sk), at(req), from_timer & 0xff != 0);
        }
        _ => half_open::not_dropped(),
    }
    0
}

#[kprobe(function = "tcp_req_err")]
fn req_err(ctx: ProbeContext) -> u32 {
    let arg = |n: usize| ctx.arg::<u64>(n).unwrap_or(0);
    half_open::icmp_error::<Probed>(at(arg(0)), arg(1) as u32, arg(2) & 0xff != 0);
    0
}

#[kprobe(function = "tcp_check_req")]
fn check_req(ctx: ProbeContext) -> u32 {
    keep(function::CHECK_REQ, &ctx, [0, 4, 4]);
    0
}

#[kretprobe(function = "tcp_check_req")]
fn check_req_exit(ctx: RetProbeContext) -> u32 {
    if let Some([sk, lost_race, _]) = kept(function::CHECK_REQ)
        && ctx.ret::<u64>() == 0
    {
        half_open::not_taken::<Probed>(at(sk), at(lost_race));
    }
    0
}

#[kprobe(function = "inet_reqsk_clone")]
fn clone(ctx: ProbeContext) -> u32 {
    keep(function::CLONE, &ctx, [0, 1, 1]);
    0
}

#[kretprobe(function = "inet_reqsk_clone")]
fn clone_exit(ctx: RetProbeContext) -> u32 {
    if let Some([req, sk, _]) = kept(function::CLONE)
        && ctx.ret::<u64>() != 0
    {
        half_open::migrated::<Probed>(at(req), at(sk));
    }
    0
}

#[kprobe(function = "inet_csk_complete_hashdance")]
fn hashdance(ctx: ProbeContext) -> u32 {
    keep(function::HASHDANCE, &ctx, [0, 1, 1]);
    let none = core::ptr::null();
    accept_queue::hashdance::<Probed>(ctx.arg(0).unwrap_or(none), ctx.arg(2).unwrap_or(none));
    0
}

/// The record waits for [`established`]: before Linux 6.18 the child has no cookie yet.
#[kretprobe(function = "inet_csk_complete_hashdance")]
fn hashdance_exit(ctx: RetProbeContext) -> u32 {
    match kept(function::HASHDANCE) {
        Some([sk, child, _]) if ctx.ret::<u64>() != 0 => {
            accept_queue::hashdanced::<Probed>(at(sk), at(child));
        }
        _ => accept_queue::hashdance_lost(),
    }
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn established(ctx: BtfTracePointContext) -> i32 {
    if leaves_syn_recv(&ctx) {
        let sk: *const u8 = ctx.arg(0);
        pair::first(second::ESTABLISHED, Token::of(sk), || accept_queue::established(sk));
    }
    0
}

/// Twice is as good as once.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn established_nested(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if leaves_syn_recv(&ctx) && !pair::is_seen(second::ESTABLISHED, Token::of(sk), || false) {
        accept_queue::established(sk);
    }
    0
}

#[inline(always)]
fn leaves_syn_recv(ctx: &BtfTracePointContext) -> bool {
    let (from, to): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    from as u8 == tcp::SYN_RECV && (to as u8 == tcp::ESTABLISHED || to as u8 == tcp::CLOSE)
}

#[kprobe(function = "tcp_get_cookie_sock")]
fn cookie_child(ctx: ProbeContext) -> u32 {
    keep(function::COOKIE_SOCK, &ctx, [0, 0, 0]);
    0
}

#[kretprobe(function = "tcp_get_cookie_sock")]
fn cookie_child_exit(ctx: RetProbeContext) -> u32 {
    let child = ctx.ret::<u64>();
    if let Some([sk, _, _]) = kept(function::COOKIE_SOCK)
        && child != 0
    {
        accept_queue::cookie_child::<Probed, Probed>(at(sk), at(child));
    }
    0
}

#[kprobe(function = "tcp_try_fastopen")]
fn fast_open(ctx: ProbeContext) -> u32 {
    keep(function::FASTOPEN, &ctx, [0, 2, 2]);
    0
}

#[kretprobe(function = "tcp_try_fastopen")]
fn fast_open_exit(ctx: RetProbeContext) -> u32 {
    let child = ctx.ret::<u64>();
    if let Some([sk, req, _]) = kept(function::FASTOPEN)
        && child != 0
    {
        accept_queue::fast_opened::<Probed>(at(sk), at(req), at(child));
    }
    0
}

#[kprobe(function = "tcp_v4_syn_recv_sock")]
fn syn_recv_v4(ctx: ProbeContext) -> u32 {
    keep(function::SYN_RECV_V4, &ctx, [0, 2, 2]);
    0
}

#[kretprobe(function = "tcp_v4_syn_recv_sock")]
fn syn_recv_v4_exit(ctx: RetProbeContext) -> u32 {
    if let Some([sk, req, _]) = kept(function::SYN_RECV_V4)
        && ctx.ret::<u64>() == 0
    {
        accept_queue::refused::<Probed>(at(sk), at(req));
    }
    0
}

#[kprobe(function = "tcp_v6_syn_recv_sock")]
fn syn_recv_v6(ctx: ProbeContext) -> u32 {
    keep(function::SYN_RECV_V6, &ctx, [0, 2, 2]);
    0
}

#[kretprobe(function = "tcp_v6_syn_recv_sock")]
fn syn_recv_v6_exit(ctx: RetProbeContext) -> u32 {
    if let Some([sk, req, _]) = kept(function::SYN_RECV_V6)
        && ctx.ret::<u64>() == 0
        && !accept_queue::is_v4::<Probed>(at(req))
    {
        accept_queue::refused::<Probed>(at(sk), at(req));
    }
    0
}

#[kprobe(function = "tcp_time_wait")]
fn time_wait(ctx: ProbeContext) -> u32 {
    let to: u64 = ctx.arg(1).unwrap_or(0);
    time_wait::begins::<Probed>(ctx.arg(0).unwrap_or(core::ptr::null()), to as u8);
    0
}

#[kprobe(function = "inet_twsk_kill")]
fn time_wait_kill(ctx: ProbeContext) -> u32 {
    time_wait::killed::<Probed>(ctx.arg(0).unwrap_or(core::ptr::null()));
    0
}

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
