//! tcp_send_reset and tcp_receive_reset: who ended a connection by RST.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    pair::Token,
    record::kind,
    settings::{
        program::{TCP_RECEIVE_RESET, TCP_SEND_RESET},
        second,
    },
    state as tcp,
};

use super::Live;
use crate::{pair, sock};

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    pair::first(second::SEND_RESET, Token::of(sk), || sent(sk));
    0
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset_nested(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if !pair::is_seen(second::SEND_RESET, Token::of(sk), || true) {
        sent(sk);
    }
    0
}

/// `sk` is null for segments that meet no socket, a listener or a mini socket for those that meet one: no connection ends.
#[inline(always)]
fn sent(sk: *const u8) {
    if sk.is_null() {
        return;
    }
    let state = sock::state(sk);
    if state == tcp::LISTEN || state == tcp::TIME_WAIT || state == tcp::NEW_SYN_RECV {
        return;
    }
    if let Some(live) = Live::find(sk) {
        live.emit_bare(TCP_SEND_RESET, kind::RESET_SENT);
    }
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    pair::first(second::RECEIVE_RESET, Token::of(sk), || received(sk));
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset_nested(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if !pair::is_seen(second::RECEIVE_RESET, Token::of(sk), || true) {
        received(sk);
    }
    0
}

#[inline(always)]
fn received(sk: *const u8) {
    if let Some(live) = Live::find(sk) {
        live.emit_bare(TCP_RECEIVE_RESET, kind::RESET_RECEIVED);
    }
}
