//! tcp_send_reset and tcp_receive_reset: who ended a connection by RST.

use tcptrace_common::{
    record::kind,
    settings::program::{TCP_RECEIVE_RESET, TCP_SEND_RESET},
    state as tcp,
};

use super::Live;
use crate::sock;

pair!("tcp_send_reset", tcp_send_reset, tcp_send_reset_nested, SEND_RESET, sent);
pair!("tcp_receive_reset", tcp_receive_reset, tcp_receive_reset_nested, RECEIVE_RESET, received);

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
    Live::tell(sk, TCP_SEND_RESET, kind::RESET_SENT);
}

#[inline(always)]
fn received(sk: *const u8) {
    Live::tell(sk, TCP_RECEIVE_RESET, kind::RESET_RECEIVED);
}
