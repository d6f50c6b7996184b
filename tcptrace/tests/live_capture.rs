//! What `conns --ladder` tells of 1,000 random connections, some through a bad network, against what Debian's `tshark` captured in the same
//! namespaces. Every difference has a rule with its reason below, or fails. Not one of the live tests, which run on emulated machines, too.
//!
//! `TCPTRACE_TEST_SEED` makes the same connections again, `TCPTRACE_TEST_CONNECTIONS` another number of them.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

#[path = "capture/compare.rs"]
mod compare;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod random;
#[path = "capture/relay.rs"]
mod relay;
#[path = "capture/traffic.rs"]
mod traffic;
#[path = "capture/tshark.rs"]
mod tshark;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::Ipv4Addr,
    sync::atomic::Ordering,
};

use crate::{
    compare::{Told, compare},
    random::Random,
    relay::{INTERFACE, Relay, V4},
    support::{
        netns::Netns,
        run::parse,
        setting,
        tracer::{Live, netns_list, tcptrace},
    },
    tshark::Tshark,
};

#[test]
fn ladders_are_what_tshark_captured() {
    let seed = setting("TCPTRACE_TEST_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let mut random = Random::new(seed);
    let connections = setting("TCPTRACE_TEST_CONNECTIONS").unwrap_or(1000);
    let (near, far) = (Netns::new(), Netns::new());
    for ns in [&near, &far] {
        // A port that TIME_WAIT still has would begin with an RST.
        ns.sysctl("net/ipv4/tcp_tw_reuse", "0");
        // Fast Open at both ends, without cookies.
        ns.sysctl("net/ipv4/tcp_fastopen", "519");
    }
    let relay = Relay::new([&near, &far], &mut random);
    let at_near = Tshark::start(&near, &["lo", INTERFACE], &[Ipv4Addr::LOCALHOST.into(), V4[1].into()]);
    let at_far = Tshark::start(&far, &[INTERFACE], &[V4[0].into()]);
    let namespaces = netns_list(&[&near, &far]);
    let live = Live::start(tcptrace().args(["conns", "--json", "--ladder", "--netns", &namespaces]), &[]);
    traffic::run([&near, &far], connections, &mut random);
    [&near, &far].iter().for_each(|ns| ns.quiet());
    let (text, _) = live.stop();
    let (near_wire, far_wire) = (at_near.stop(), at_far.stop());
    let lines = parse(&text);
    let summary = lines.last().expect("lines");
    assert_eq!((&summary["type"], &summary["lost"]), (&"summary".into(), &0.into()), "{summary}");
    let told: Vec<_> = lines.iter().filter(|line| line["type"] == "connection").map(Told).collect();
    let mut differences = Vec::new();
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let clients = told.iter().filter(|told| told.is("role", "client")).count();
    assert_eq!((clients, near_wire.len()), (connections, connections), "connections told, captured; seed {seed}");
    for told in &told {
        let key = told.key(near_wire.keys());
        // Through the loopback interface of the one namespace, or the other's.
        let remote = key.1.ip() == V4[1] || key.1.ip() == relay::V6[1];
        let wires = [near_wire.get(&key), if remote { far_wire.get(&key) } else { near_wire.get(&key) }];
        let wires = wires.map(|wire| wire.map_or(&[][..], Vec::as_slice));
        for difference in compare(told, &key, wires) {
            match difference.rule {
                Some(rule) => *explained.entry(rule).or_default() += 1,
                None => differences.push(format!("{}\n{}\n{}", difference.what, told.0, compare::show(wires, &key))),
            }
        }
    }
    let counts = relay.counts();
    let disturbed = [&counts.lost, &counts.twice, &counts.late].map(|count| count.load(Ordering::Relaxed));
    eprintln!("seed {seed}; packets lost, twice, late: {disturbed:?}; differences with a rule: {explained:?}");
    assert!(
        differences.is_empty(),
        "{} of {} ends differ, seed {seed}:\n\n{}",
        differences.len(),
        told.len(),
        differences.iter().take(12).map(String::as_str).collect::<Vec<_>>().join("\n\n")
    );
    assert!(connections < 1000 || disturbed.iter().all(|count| *count > 100), "a quiet network: {disturbed:?}");
}
