//! tcp_send_reset and tcp_receive_reset: who ended a connection by RST.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    record::kind,
    settings::program::{TCP_RECEIVE_RESET, TCP_SEND_RESET},
    state as tcp,
};

use super::Live;
use crate::sock;

/// `sk` is null for segments that meet no socket, a listener or a mini socket for those that meet one: no connection ends.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if sk.is_null() {
        return 0;
    }
    let state = sock::state(sk);
    if state == tcp::LISTEN || state == tcp::TIME_WAIT || state == tcp::NEW_SYN_RECV {
        return 0;
    }
    if let Some(live) = Live::find(sk) {
        live.emit_bare(TCP_SEND_RESET, kind::RESET_SENT);
    }
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    if let Some(live) = Live::find(ctx.arg(0)) {
        live.emit_bare(TCP_RECEIVE_RESET, kind::RESET_RECEIVED);
    }
    0
}
