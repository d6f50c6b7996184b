//! Hand-made connections in, groups out.

use std::sync::Arc;

use super::*;
use crate::model::{
    Cgroup, Process,
    fixture::{self, MS, v4, v6},
};

fn groups(keys: &str) -> Groups {
    Groups::new(keys.split(',').map(|key| key.parse().unwrap()).collect())
}

/// `value value: count` of each, in their order.
fn brief(groups: &Groups) -> Vec<String> {
    let one = |value: &Value| match value {
        Value::Number(n) => n.to_string(),
        Value::Address(addr) => addr.to_string(),
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::None => "-".to_owned(),
    };
    let line = |(values, group): &(&[Value], &Group)| {
        let values: Vec<_> = values.iter().map(one).collect();
        format!("{}: {}", values.join(" "), group.count)
    };
    groups.sorted().iter().map(line).collect()
}

#[test]
fn every_key_has_its_value() {
    let id = "5".repeat(64);
    let mut c = fixture::client();
    let cgroup = Cgroup::new(&format!("/system.slice/docker-{id}.scope"), Some("web"), Some("web-7c5d"));
    c.owner = c.owner.map(|p| Arc::new(Process { cgroup: Some(cgroup.into()), ..(*p).clone() }));
    for (key, value) in [
        ("comm", "curl"),
        ("pid", "1234"),
        ("uid", "1000"),
        ("role", "client"),
        ("laddr", "192.168.1.20"),
        ("lport", "43210"),
        ("raddr", "93.184.216.34"),
        ("rport", "443"),
        ("netns", "4026531840"),
        ("container", "web"),
        ("pod", "web-7c5d"),
        ("unit", &format!("docker-{id}.scope")),
        ("cgroup", &format!("/system.slice/docker-{id}.scope")),
        ("end", "fin"),
    ] {
        let mut groups = groups(key);
        groups.add(&c, &fixture::fin());
        assert_eq!(brief(&groups), [format!("{value}: 1")], "{key}");
    }
    let names: Vec<_> = Key::ALL.iter().map(ToString::to_string).collect();
    assert_eq!("port".parse::<Key>(), Err(format!("`port` is nothing to group by: {}", names.join(" "))));
}

#[test]
fn what_is_not_known_is_a_group_of_its_own() {
    let mut c = fixture::connection(None, v4([0; 4], 0, [0; 4], 0), None, &[]);
    c.tuple.netns = 0;
    for key in Key::ALL {
        let mut groups = Groups::new(vec![key]);
        groups.add(&c, &Final { end: None, ..fixture::fin() });
        assert_eq!(brief(&groups), ["-: 1"], "{key}");
    }
}

#[test]
fn the_largest_comes_first_and_then_by_value() {
    let mut groups = groups("comm,raddr");
    let mut add = |comm: &[u8], tuple, times| {
        let c = fixture::connection(None, tuple, fixture::process(1, comm), &[]);
        (0..times).for_each(|_| groups.add(&c, &fixture::fin()));
    };
    add(b"b", v4([10, 0, 0, 1], 1, [10, 0, 0, 20], 2), 1);
    add(b"a", v4([10, 0, 0, 1], 1, [10, 0, 0, 20], 2), 1);
    add(b"a", v4([10, 0, 0, 1], 1, [10, 0, 0, 3], 2), 1);
    add(b"z", v6("::ffff:10.0.0.1", 1, "::ffff:10.0.0.3", 2), 2);
    // One group, whichever family the socket has.
    add(b"z", v4([10, 0, 0, 1], 1, [10, 0, 0, 3], 2), 1);
    assert_eq!(brief(&groups), ["z 10.0.0.3: 3", "a 10.0.0.3: 1", "a 10.0.0.20: 1", "b 10.0.0.20: 1"]);
}

#[test]
fn what_a_group_adds_up() {
    let mut groups = groups("role");
    let mut c = fixture::client();
    groups.add(&c, &fixture::fin());
    let refused = Final { ts: 110 * MS, end: Some(End::Refused), counters: None, handshake_ns: None, ..fixture::fin() };
    c.handshake = None;
    groups.add(&c, &refused);
    groups.add(&c, &Final { end: None, late: true, ..refused.clone() });
    // Neither has a lifetime that was seen.
    groups.add(&c, &Final { end: Some(End::Open), ..refused.clone() });
    c.preexisting = true;
    groups.add(&c, &Final { end: Some(End::Fin), ..refused.clone() });
    let (_, group) = groups.sorted()[0];
    assert_eq!(group.count, 5);
    let ends: Vec<_> = group.ends().collect();
    assert_eq!(ends, [(Some(End::Fin), 2), (Some(End::Refused), 1), (Some(End::Open), 1), (None, 1)]);
    let lifetime = group.lifetime.quantiles().unwrap();
    assert!((9_700..10_300).contains(&lifetime.p50), "{lifetime:?}");
    assert!((1_189_000..=1_225_000).contains(&lifetime.p99), "{lifetime:?}");
    assert_eq!(group.handshake.quantiles(), Some(Quantiles { p50: 12_000, p99: 12_000 }));
    assert_eq!(group.rtt.quantiles(), Some(Quantiles { p50: 12_345, p99: 12_345 }));
    assert_eq!((group.bytes_sent, group.bytes_received), (1000, 34_000));
}

#[test]
fn groups_are_bounded_and_what_has_no_room_is_counted() {
    let mut groups = Groups::with_room(vec![Key::Lport], 2);
    for lport in [1, 2, 3, 4, 2, 3] {
        let c = fixture::connection(None, v4([1; 4], lport, [2; 4], 2), None, &[]);
        groups.add(&c, &fixture::fin());
    }
    assert_eq!(brief(&groups), ["2: 2", "1: 1"]);
    assert_eq!(groups.other().map(|other| other.count), Some(3));
}

#[test]
fn the_largest_are_the_first_of_all() {
    let mut all = groups("lport");
    for lport in (1..=300_u16).rev() {
        let mut c = fixture::client();
        c.tuple.lport = lport;
        // Many of one size.
        (0..=lport % 7).for_each(|_| all.add(&c, &fixture::fin()));
    }
    let sorted: Vec<_> = all.sorted().into_iter().map(|(values, _)| values).collect();
    for n in [0, 1, 42, 43, 299, 300, 1000] {
        let largest: Vec<_> = all.largest(n).into_iter().map(|(values, _)| values).collect();
        assert_eq!(largest, sorted[..n.min(300)], "{n}");
    }
    assert_eq!((all.len(), all.connections(), all.is_empty()), (300, 1203, false));
}
