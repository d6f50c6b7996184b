//! Tables as a terminal shows them, at several widths.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::*;
use crate::{
    group::Key,
    model::{
        Cgroup, End, Final, Process, Role,
        fixture::{self, MS, OFFSET, v4, v6},
    },
    sink::{output::Reader, text::TimeMode},
};

fn grouped(keys: &str) -> Groups {
    let mut groups = Groups::new(keys.split(',').map(|key| key.parse().expect("a key")).collect());
    let curl = fixture::client();
    for ms in 1..=1190 {
        groups.add(&curl, &Final { ts: (100 + ms) * MS, handshake_ns: Some(ms * 10_000), ..fixture::fin() });
    }
    let gone = Final { ts: 101 * MS, counters: None, handshake_ns: None, ..fixture::fin() };
    let mut refused = curl.clone();
    refused.handshake = None;
    for end in [End::Refused, End::RstReceived, End::ConnectTimeout, End::Open] {
        (0..7).for_each(|_| groups.add(&refused, &Final { end: Some(end), ..gone.clone() }));
    }
    let id = "0123456789abcdef".repeat(4);
    for (n, container) in [(3, None), (2, Some("a container with a\x1b long name"))] {
        let cgroup = Arc::new(Cgroup::new(&format!("/system.slice/docker-{id}.scope"), container, None));
        let owner =
            fixture::process(80, b"postgres: main").map(|p| Arc::new(Process { cgroup: Some(cgroup), ..(*p).clone() }));
        let tuple = v6("2001:db8:1:2:3:4:5:6", 443, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 50_000);
        let server = fixture::connection(Some(Role::Server), tuple, owner, &[]);
        (0..n).for_each(|_| groups.add(&server, &fixture::fin()));
    }
    let nobody = fixture::connection(None, v4([10, 0, 0, 1], 1, [10, 0, 0, 2], 2), None, &[]);
    groups.add(&nobody, &Final { end: None, late: true, ..gone.clone() });
    groups
}

fn look(width: Option<usize>, color: bool) -> Look {
    Look { width, follow: false, color, time: TimeMode::Utc, zone: TimeZone::UTC, header: true, ascii: false }
}

fn painted(look: Look, repaint: bool, groups: &Groups) -> String {
    let mut t = GroupsText::new(Output::new(Vec::new(), Reader::Waiting), look, repaint);
    t.clock(OFFSET);
    t.groups(9_000 * MS, 9_000_000, groups, false);
    t.groups(10_000 * MS, 10_000_000, groups, true);
    t.flush(true).expect("a Vec takes everything");
    String::from_utf8(t.into_inner()).expect("text is UTF-8")
}

/// The table at the end.
fn last(width: Option<usize>, groups: &Groups) -> String {
    let text = painted(look(width, false), false, groups);
    if let Some(width) = width {
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
    }
    text
}

#[test]
fn groups_in_80_columns() {
    insta::assert_snapshot!(last(Some(80), &grouped("comm,rport")));
}

#[test]
fn groups_of_long_values_in_80_columns() {
    insta::assert_snapshot!(last(Some(80), &grouped("container,raddr,end")));
}

#[test]
fn groups_in_140_columns() {
    insta::assert_snapshot!(last(Some(140), &grouped("comm,container")));
}

#[test]
fn groups_in_colour() {
    insta::assert_snapshot!(painted(look(Some(80), true), false, &grouped("comm")).replace('\x1b', "␛"));
}

#[test]
fn groups_in_a_pipe() {
    insta::assert_snapshot!(last(None, &grouped("unit,comm,raddr")));
}

#[test]
fn groups_without_room_are_one() {
    let mut groups = Groups::with_room(vec![Key::Comm, Key::Lport], 1);
    for lport in [1, 2, 3, 1] {
        let tuple = v4([10, 0, 0, 1], lport, [10, 0, 0, 2], 80);
        let c = fixture::connection(Some(Role::Client), tuple, fixture::process(9, b"wrk"), &[]);
        groups.add(&c, &fixture::fin());
    }
    insta::assert_snapshot!(last(Some(80), &groups));
}

#[test]
fn a_terminal_is_shown_how_it_stands() {
    let text = painted(look(Some(80), false), true, &grouped("role"));
    let [first, second] = text.split("\x1b[").collect::<Vec<_>>()[..2] else { panic!("{text:?}") };
    assert!(second.starts_with(&format!("{}A", first.lines().count())), "{text:?}");
}

/// Ports from 1 on, each with as many connections as its number.
fn by_port(ports: u16) -> Groups {
    let mut groups = Groups::new(vec![Key::Lport]);
    for lport in 1..=ports {
        let tuple = v4([10, 0, 0, 1], lport, [10, 0, 0, 2], 80);
        let c = fixture::connection(Some(Role::Client), tuple, fixture::process(9, b"wrk"), &[]);
        (0..lport).for_each(|_| groups.add(&c, &fixture::fin()));
    }
    groups
}

#[test]
fn a_screen_holds_the_largest_groups_whole() {
    let groups = by_port(30);
    for (width, room) in [(80, 10), (80, 11), (140, 10)] {
        let mut t = GroupsText::new(Output::new(Vec::new(), Reader::Waiting), look(Some(width), false), false);
        t.paint(10_000 * MS, 10_000_000, &groups, room);
        t.flush(true).expect("a Vec takes everything");
        let text = String::from_utf8(t.into_inner()).expect("text is UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= room + 1 && lines[0].contains("  30 groups, 465 connections, "), "{text}");
        // Two lines each where it is narrow.
        let shown = if width == 80 { (room - 2) / 2 } else { room - 2 };
        let ports: Vec<u16> = lines[2..].iter().filter_map(|l| l.split(' ').next()?.parse().ok()).collect();
        assert_eq!(ports, (0..shown as u16).map(|n| 30 - n).collect::<Vec<_>>(), "{text}");
        assert_eq!(*lines.last().expect("lines"), format!("… {} more groups", 30 - shown), "{text}");
    }
}

#[test]
fn nothing_is_a_table_of_nothing() {
    insta::assert_snapshot!(last(Some(80), &Groups::new(vec![Key::Comm])));
}
