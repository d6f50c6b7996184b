//! tcp_send_reset, or where that passes them over kfree_skb: segments to ports where nobody listens.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    pair::Token,
    probe::Probe,
    record::{Head, Tuple, flag, kind},
    settings::{PROBE_ALLOWANCE, bucket, program::PROBES, second},
};

use crate::{
    bucket as buckets, emit, filter,
    maps::{BUCKET, NO_SOCKET_DROP, NO_SOCKET_REASON},
    memory::{Memory, Probed},
    pair,
    place::{Place, off},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_RST: u8 = 4;

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn probe(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = meets_no_socket(&ctx) {
        pair::first(second::PROBE, Token::of(skb), || tried(skb));
    }
    0
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn probe_nested(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = meets_no_socket(&ctx)
        && !pair::is_seen(second::PROBE, Token::of(skb), || true)
    {
        tried(skb);
    }
    0
}

/// The segment, if it is answered because no socket takes it. From Linux 6.10 on: before, the tracepoint passes those over.
#[inline(always)]
fn meets_no_socket(ctx: &BtfTracePointContext) -> Option<*const u8> {
    let reason: u64 = ctx.arg(2);
    (reason as u32 == NO_SOCKET_REASON.load()).then(|| ctx.arg(1))
}

#[btf_tracepoint(function = "kfree_skb")]
pub fn probe_dropped(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = dropped_for_no_socket(&ctx) {
        pair::first(second::PROBE, Token::of(skb), || tried(skb));
    }
    0
}

#[btf_tracepoint(function = "kfree_skb")]
pub fn probe_dropped_nested(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = dropped_for_no_socket(&ctx)
        && !pair::is_seen(second::PROBE, Token::of(skb), || true)
    {
        tried(skb);
    }
    0
}

/// The segment, if it is let go because no socket takes it, and was answered: of datagrams and of RSTs the kernel says the same.
#[inline(always)]
fn dropped_for_no_socket(ctx: &BtfTracePointContext) -> Option<*const u8> {
    let reason: u64 = ctx.arg(2);
    if reason as u32 != NO_SOCKET_DROP.load() {
        return None;
    }
    let skb: *const u8 = ctx.arg(0);
    if off!(skb_transport).is_absent() {
        return None;
    }
    // SAFETY: checked reads.
    unsafe {
        let ip = header(skb, off!(skb_network));
        // With extension headers of IPv6 it is passed over.
        let protocol = if Probed::ld::<u8>(ip, 0) >> 4 == 4 { 9 } else { 6 };
        let is_tcp = Probed::ld::<u8>(ip, protocol) == IPPROTO_TCP;
        (is_tcp && Probed::ld::<u8>(header(skb, off!(skb_transport)), 13) & TCP_RST == 0).then_some(skb)
    }
}

/// A header of a segment.
#[inline(always)]
unsafe fn header(skb: *const u8, place: impl Place) -> *const u8 {
    // SAFETY: checked reads.
    unsafe { (Probed::ld::<u64>(skb, off!(skb_head)) + u64::from(Probed::ld::<u16>(skb, place))) as *const u8 }
}

/// Both ends, seen from this host.
#[inline(always)]
unsafe fn ends(ip: *const u8, tcp: *const u8, netns: u32) -> Tuple {
    let mut tuple = Tuple { netns, ..Tuple::default() };
    let t = &raw mut tuple;
    // SAFETY: checked reads; addresses are two words each.
    unsafe {
        let (l, r) = ((&raw mut (*t).laddr).cast::<u64>(), (&raw mut (*t).raddr).cast::<u64>());
        if Probed::ld::<u8>(ip, 0) >> 4 == 4 {
            (*t).family = AF_INET;
            *r = u64::from(Probed::ld::<u32>(ip, 12));
            *l = u64::from(Probed::ld::<u32>(ip, 16));
        } else {
            (*t).family = AF_INET6;
            *r = Probed::ld(ip, 8);
            *r.add(1) = Probed::ld(ip, 16);
            *l = Probed::ld(ip, 24);
            *l.add(1) = Probed::ld(ip, 32);
        }
        (*t).rport = u16::from_be(Probed::ld(tcp, 0));
        (*t).lport = u16::from_be(Probed::ld(tcp, 2));
    }
    tuple
}

/// Whoever owns sockets, this is none of theirs: where processes are asked for it is not wanted.
#[inline(always)]
fn tried(skb: *const u8) {
    if off!(skb_dev).is_absent() || off!(dev_net).is_absent() || off!(skb_transport).is_absent() || filter::by_process()
    {
        return;
    }
    // SAFETY: checked reads.
    unsafe {
        let dev: u64 = Probed::ld(skb, off!(skb_dev));
        let net: u64 = Probed::ld(dev as *const u8, off!(dev_net));
        let netns: u32 = Probed::ld(net as *const u8, off!(net_inum));
        if !filter::is_wanted_netns(netns) {
            return;
        }
        let tcp = header(skb, off!(skb_transport));
        let tuple = ends(header(skb, off!(skb_network)), tcp, netns);
        if !filter::wanted_tuple(&tuple) {
            return;
        }
        let Some(b) = BUCKET.get_ptr_mut(bucket::PROBES) else { return };
        if !buckets::take(bucket::PROBES, PROBE_ALLOWANCE) {
            buckets::hold_back(b);
            return;
        }
        let held_back = core::ptr::read_volatile(&raw const (*b).held_back);
        let (seq, ack) = (u32::from_be(Probed::ld(tcp, 4)), u32::from_be(Probed::ld(tcp, 8)));
        let flags: u8 = Probed::ld(tcp, 13);
        emit::record::<Probe>(PROBES, |r| {
            (*r).head = Head { kind: kind::PROBE, flags: flag::SEQ_ABSENT, ..Head::default() };
            (*r).tuple = tuple;
            (*r).seq = seq;
            (*r).ack = ack;
            (*r).held_back = held_back;
            (*r).flags = flags;
            (*r).reserved = [0; 7];
        });
    }
}
