//! tcp_retransmit_skb and tcp_retransmit_synack: segments sent again.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    record::{SynAck, kind},
    settings::program::{TCP_RETRANSMIT_SKB, TCP_RETRANSMIT_SYNACK},
    state as tcp,
};

use super::Live;
use crate::{
    emit, filter, listeners,
    maps::{LISTENERS_ONLY, QUEUES},
    place::off,
    sock::{self, ld, ld_or},
};

pair!("tcp_retransmit_skb", tcp_retransmit_skb, tcp_retransmit_skb_nested, RETRANSMIT, sent_again);

#[inline(always)]
fn sent_again(sk: *const u8) {
    Live::tell(sk, TCP_RETRANSMIT_SKB, kind::RETRANSMIT);
}

/// Fires on a duplicate SYN too; `num_retrans` is the value before the increment.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // A type that the verifier does not search all others for when it is followed.
    let req = sock::tcp_request(ctx.arg(1));
    // A TFO child sends its SYN-ACK again itself: then `sk` is not the listener, and the child's own records tell it.
    if sock::state(sk) != tcp::LISTEN || !sock::is_tcp(sk) || req.is_null() {
        return 0;
    }
    // SAFETY: a request starts with a `sock_common`; its namespace is the listener's.
    unsafe {
        let lport: u16 = ld(req, off!(req_num));
        if !filter::wanted(req, lport, 0) {
            return 0;
        }
        let cookie = sock::cookie(sk);
        if QUEUES.load() != 0 {
            listeners::synack_sent_again(cookie);
        }
        if LISTENERS_ONLY.load() != 0 {
            return 0;
        }
        emit::record::<SynAck>(TCP_RETRANSMIT_SYNACK, |r| {
            let h = &raw mut (*r).head;
            (*h).sock = cookie;
            (*h).kind = kind::SYNACK_RETRANSMIT;
            (*h).from = tcp::NEW_SYN_RECV;
            (*h).to = tcp::NEW_SYN_RECV;
            (*h).err = 0;
            (*h).seq = 0;
            (*h).flags = 0;
            sock::tuple(req, lport, &raw mut (*r).tuple);
            (*r).retrans = u32::from(ld_or::<u8>(req, off!(num_retrans), 0));
            (*r).reserved = 0;
        });
    }
    0
}
