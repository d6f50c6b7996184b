//! SYN floods from made-up sources, and many clients at once.

use std::{net::SocketAddr, ops::Range, time::Duration};

use crate::{
    support::{
        netns::Netns,
        now,
        queues::half_open,
        segment::flag::ACK,
        socket::Sock,
        tun::{Tun, at},
    },
    watching::{Watching, in_time, is_ours, number},
};

#[path = "../../../xtask/src/flood/sender.rs"]
#[expect(dead_code, reason = "other tests ask what arrived")]
mod sender;

use sender::{Flood, PEER, VICTIM, VICTIM_MAC_TEXT};

const PORT: u16 = 80;
/// A burst of clients.
const CLIENTS: Range<u16> = 4000..4150;

/// The victim's namespace and the other end's.
fn namespaces(syncookies: &str) -> (Netns, Netns) {
    let (victim, peer) = (Netns::new(), Netns::new());
    victim.veth(&peer, VICTIM.into(), PEER.into());
    victim.ip(&format!("link set veth0 address {VICTIM_MAC_TEXT}"));
    victim.ip(&format!("route add default via {PEER}"));
    victim.sysctl("net/ipv4/tcp_syncookies", syncookies);
    victim.sysctl("net/ipv4/tcp_synack_retries", "1");
    (victim, peer)
}

/// Flood a listener with so many SYNs at so many a second: the finding, when the flood began, and the run.
fn flood(syncookies: &str, syns: u64, rate: u32) -> (serde_json::Value, u64, Watching) {
    let (victim, peer) = namespaces(syncookies);
    let watching = Watching::start(&[&victim], "");
    let _listener = Sock::listen(&victim, SocketAddr::new(VICTIM.into(), PORT), 128);
    let began = now();
    let flood = Flood { port: PORT, sources: 500, rate: Some(rate) };
    peer.enter(|| sender::send(&flood, 0..syns).expect("root, and a pair"));
    let finding = watching.fires("syn-flood");
    is_ours(&finding, if syncookies == "0" { "critical" } else { "warning" }, PORT);
    (finding, began, watching)
}

/// Cookies answer: the queue's depth says nothing of how many come.
#[test]
fn a_flood_behind_cookies_is_found_within_two_seconds() {
    let (finding, began, watching) = flood("1", 30_000, 10_000);
    in_time(&finding, began, Duration::from_secs(2));
    assert!(number(&finding, "cookies_per_s") > 100.0 && number(&finding, "completed_percent") < 1.0, "{finding}");
    assert_eq!((number(&finding, "limit"), number(&finding, "half_open")), (128.0, 129.0), "{finding}");
    watching.stop(&["syn-flood"]);
}

/// Without cookies SYNs are dropped.
#[test]
fn a_flood_that_fills_the_queue_is_found_within_two_seconds() {
    let (finding, began, watching) = flood("0", 30_000, 10_000);
    in_time(&finding, began, Duration::from_secs(2));
    assert!(number(&finding, "dropped_per_s") > 100.0 && number(&finding, "completed_percent") < 1.0, "{finding}");
    assert!(finding["advice"].as_str().is_some_and(|text| text.contains("net.ipv4.tcp_syncookies=1")), "{finding}");
    watching.stop(&["syn-flood"]);
}

/// A small one, for the repository.
#[test]
fn a_small_flood_is_one_too() {
    let (finding, began, watching) = flood("0", 600, 300);
    in_time(&finding, began, Duration::from_secs(2));
    watching.stop(&["syn-flood"]).keep("syn-flood.trouble");
}

/// Many clients at once, whose answers are under way for a while.
#[test]
fn many_clients_at_once_are_no_flood() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watching = Watching::start(&[&ns], "");
    let listener = Sock::listen(&ns, at(PORT), 256);
    let mut peers = half_open(&tun, PORT, CLIENTS);
    let accepted: Vec<_> = peers
        .iter_mut()
        .map(|peer| {
            peer.send(ACK, b"");
            listener.accept()
        })
        .collect();
    assert_eq!(accepted.len(), CLIENTS.len());
    watching.stop(&[]).keep("syn-flood.alike");
}
