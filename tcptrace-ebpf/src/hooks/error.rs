//! inet_sk_error_report: an error that the process will see. It may fire with none.

use tcptrace_common::{record::kind, settings::program::INET_SK_ERROR_REPORT as PROGRAM};

use super::Live;
use crate::sock;

pair!("inet_sk_error_report", inet_sk_error_report, inet_sk_error_report_nested, ERROR, reported);

#[inline(always)]
fn reported(sk: *const u8) {
    if sock::err(sk) != 0 {
        Live::tell(sk, PROGRAM, kind::ERROR);
    }
}
