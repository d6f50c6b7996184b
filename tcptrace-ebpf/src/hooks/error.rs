//! inet_sk_error_report: an error that the process will see. It may fire with none.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    pair::Token,
    record::kind,
    settings::{program::INET_SK_ERROR_REPORT as PROGRAM, second},
};

use super::Live;
use crate::{pair, sock};

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    pair::first(second::ERROR, Token::of(sk), || reported(sk));
    0
}

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report_nested(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if !pair::is_seen(second::ERROR, Token::of(sk), || true) {
        reported(sk);
    }
    0
}

#[inline(always)]
fn reported(sk: *const u8) {
    if !sock::is_tcp(sk) || sock::err(sk) == 0 {
        return;
    }
    if let Some(live) = Live::find(sk) {
        live.emit_bare(PROGRAM, kind::ERROR);
    }
}
