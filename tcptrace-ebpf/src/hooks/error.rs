//! inet_sk_error_report: an error that the process will see. It may fire with none.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{record::kind, settings::program::INET_SK_ERROR_REPORT as PROGRAM};

use super::Live;
use crate::sock;

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    if !sock::is_tcp(sk) || sock::err(sk) == 0 {
        return 0;
    }
    if let Some(live) = Live::find(sk) {
        live.emit_bare(PROGRAM, kind::ERROR);
    }
    0
}
