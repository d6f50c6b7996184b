//! Lines as a terminal shows them, at several widths.

use tcptrace_common::record::{Counters, flag};

use super::*;
use crate::{
    model::{
        ClosedBy, Detail, Left, Patterns, Role, State,
        fixture::{self, MS, OFFSET, transition, v4, v6},
    },
    sink::output::Reader,
};

fn look(width: Option<usize>, color: bool) -> Look {
    Look { width, follow: false, color, time: TimeMode::Utc, zone: TimeZone::UTC, header: true, ascii: false }
}

fn text(look: Look, headings: Headings, f: impl FnOnce(&mut Text<Vec<u8>>)) -> String {
    let width = look.width;
    let mut text = Text::new(Output::new(Vec::new(), Reader::Waiting), look, headings);
    text.clock(OFFSET);
    text.start(0, &fact::Start::default(), &[]);
    f(&mut text);
    text.flush(true).expect("a Vec takes everything");
    let text = String::from_utf8(text.into_inner()).expect("text is UTF-8");
    if let Some(width) = width {
        let plain = text.replace("\x1b[0m", "");
        for line in plain.lines() {
            let line =
                line.split("\x1b[").map(|s| s.split_once('m').filter(|_| plain.contains('\x1b')).map_or(s, |p| p.1));
            let columns: usize = line.map(|s| s.chars().count()).sum();
            assert!(columns <= width, "{columns} columns");
        }
    }
    // Visible in snapshots.
    text.replace('\x1b', "␛")
}

/// A tour of everything that `trace` shows.
fn tour(t: &mut Text<Vec<u8>>) {
    use State::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent, TimeWait};
    let mut c = fixture::client();
    c.tuple = v4([192, 168, 1, 20], 0, [127, 0, 0, 1], 8080);
    t.transition(&c, &transition(100 * MS, Close, SynSent, None));
    c.tuple = fixture::client().tuple;
    t.transition(&c, &transition(112 * MS, SynSent, Established, Some(12_345_678)));
    let mut shutdown = transition(1312 * MS, Established, FinWait1, Some(1_200_000_000));
    shutdown.flags = flag::SEND_SHUTDOWN;
    t.transition(&c, &shutdown);
    t.transition(&c, &transition(1324 * MS, FinWait1, FinWait2, Some(52_000)));
    let mut last = transition(1325 * MS, FinWait2, TimeWait, Some(1_100_000));
    last.kernel = Some((FinWait2, Close));
    last.inferred = Inferred(Inferred::TO);
    last.end = Some(End::Fin);
    t.transition(&c, &last);

    let mut s = fixture::connection(
        Some(Role::Server),
        v6("2001:db8:1:2:3:4:5:6", 443, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 50_000),
        fixture::process(1_234_567, b"postgres: main"),
        &[(SynRecv, 0)],
    );
    s.inferred = Inferred(Inferred::OWNER | Inferred::ROLE);
    t.transition(&s, &transition(2000 * MS, Listen, SynRecv, None));
    t.transition(&s, &transition(2000 * MS, SynRecv, Established, Some(4000)));
    s.inferred = Inferred::default();
    s.preexisting = true;
    t.transition(&s, &transition(2100 * MS, Established, CloseWait, Some(63_000 * MS)));
    t.transition(&s, &transition(2200 * MS, CloseWait, LastAck, Some(100 * MS)));
    s.actor = fixture::process(99, b"ss");
    let mut killed = transition(2300 * MS, LastAck, Close, Some(100 * MS));
    killed.end = Some(End::Killed);
    t.transition(&s, &killed);

    let listener =
        fixture::connection(Some(Role::Listener), v4([0; 4], 80, [0; 4], 0), fixture::process(80, b"ng\x1bx"), &[]);
    t.transition(&listener, &transition(3000 * MS, Close, Listen, None));
    let mut refused = transition(3001 * MS, SynSent, Close, Some(80_000));
    refused.end = Some(End::Refused);
    c.tuple = v4([192, 168, 1, 20], 43_211, [198, 51, 100, 200], 65_535);
    t.transition(&c, &refused);
    c.owner = None;
    refused.end = Some(End::KeepaliveTimeout);
    refused.from = Established;
    refused.state_ns = Some(7_200_000 * MS);
    t.transition(&c, &refused);
}

#[test]
fn trace_in_80_columns() {
    insta::assert_snapshot!(text(look(Some(80), false), Headings::Transitions, tour));
}

#[test]
fn trace_in_120_columns() {
    insta::assert_snapshot!(text(look(Some(120), false), Headings::Transitions, tour));
}

#[test]
fn trace_in_a_pipe() {
    let look = Look { header: false, ..look(None, false) };
    insta::assert_snapshot!(text(look, Headings::Transitions, tour));
}

#[test]
fn trace_in_colour() {
    insta::assert_snapshot!(text(look(Some(80), true), Headings::Transitions, tour));
}

#[test]
fn trace_in_60_columns_still_fits() {
    insta::assert_snapshot!(text(look(Some(60), false), Headings::Transitions, tour));
}

#[test]
fn ipv4_seen_by_an_ipv6_socket_reads_as_ipv4() {
    let mapped = |t: &mut Text<Vec<u8>>| {
        let mut c = fixture::client();
        c.role = Some(Role::Server);
        c.tuple = v6("::ffff:192.168.1.20", 443, "::ffff:198.51.100.200", 50_000);
        t.transition(&c, &transition(100 * MS, State::SynRecv, State::Established, Some(4000)));
    };
    for (width, ends) in [(80, " 443←198.51.100.200:50000 "), (120, " 192.168.1.20:443   ← 198.51.100.200:50000 ")]
    {
        let shown = text(Look { header: false, ..look(Some(width), false) }, Headings::Transitions, mapped);
        assert!(shown.contains(ends), "{shown}");
    }
}

#[test]
fn trace_with_other_times() {
    let delta = Look { time: TimeMode::Delta, ..look(Some(80), false) };
    let mono = Look { time: TimeMode::Mono, ..look(Some(80), false) };
    insta::assert_snapshot!(text(delta, Headings::Transitions, tour) + &text(mono, Headings::Transitions, tour));
}

/// A tour of what `conns` shows.
fn connections(t: &mut Text<Vec<u8>>) {
    let mut c = fixture::client();
    let mut f = fixture::fin();
    t.connection(&c, &f);
    f.counters = f.counters.map(|n| Counters { retrans: 3, ..n });
    f.end = Some(End::RstReceived);
    f.closed_by = Some(ClosedBy::Remote);
    c.patterns = Patterns(Patterns::HALF_CLOSE);
    t.connection(&c, &f);
    f.end = Some(End::RstSent);
    f.counters = Some(Counters { unread: 5000, bytes_received: 5_000_000_000, ..Counters::default() });
    c.tuple = v6("2001:db8:1:2:3:4:5:6", 443, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 50_000);
    c.role = Some(Role::Server);
    c.owner = fixture::process(1_234_567, b"postgres: main");
    c.handshake = None;
    f.handshake_ns = None;
    t.connection(&c, &f);
    f.end = Some(End::Killed);
    c.actor = fixture::process(99, b"ss");
    t.connection(&c, &f);
    c.preexisting = true;
    f.end = Some(End::Open);
    f.counters = None;
    c.owner = None;
    t.connection(&c, &f);
    f.end = Some(End::ConnectTimeout);
    c.preexisting = false;
    c.role = Some(Role::Client);
    c.tuple = v4([192, 168, 1, 20], 43_211, [198, 51, 100, 200], 65_535);
    c.inferred = Inferred(Inferred::END);
    f.ts += 130_000 * MS;
    t.connection(&c, &f);
}

#[test]
fn what_was_found_after_a_loss_is_marked() {
    let line = |headings, width, f: fn(&mut Text<Vec<u8>>)| {
        text(Look { header: false, ..look(Some(width), false) }, headings, f)
    };
    let jump = |t: &mut Text<Vec<u8>>| {
        let mut found = transition(2000 * MS, State::Established, State::CloseWait, None);
        found.inferred = Inferred(Inferred::TO);
        t.transition(&fixture::client(), &found);
    };
    let over = |t: &mut Text<Vec<u8>>| {
        let f = Final { end: None, late: true, counters: None, ..fixture::fin() };
        t.connection(&fixture::client(), &f);
    };
    let lines = [
        line(Headings::Transitions, 120, jump),
        line(Headings::Transitions, 80, jump),
        line(Headings::Connections, 120, over),
        line(Headings::Connections, 80, over),
    ];
    insta::assert_snapshot!(lines.concat(), @r"
    12:03:06.000 curl[1234]      192.168.1.20:43210 → 93.184.216.34:443  ESTABLISHED→CLOSE_WAIT~     records lost, found so
    12:03:06 curl[1234]   43210→93.184.216.34:443 ESTABLISHED→CLOSE_WAIT~  found so
    12:03:05.325 curl[1234]      192.168.1.20:43210 → 93.184.216.34:443         12ms  12ms                 end not seen
    12:03:05 curl[1234]   43210→93.184.216.34:443        12ms             not seen
    ");
}

#[test]
fn conns_in_80_columns() {
    insta::assert_snapshot!(text(look(Some(80), false), Headings::Connections, connections));
}

/// Processes with marks, in lines that have no blank to spare, and what is not over.
fn marked(t: &mut Text<Vec<u8>>) {
    let mut c = fixture::client();
    let mut f = fixture::fin();
    c.owner = fixture::process(1234, b"nginxx");
    t.connection(&c, &f);
    c.inferred = Inferred(Inferred::OWNER);
    t.connection(&c, &f);
    c.preexisting = true;
    t.connection(&c, &f);
    c.tuple.lport = 443;
    t.connection(&c, &f);
    f.end = Some(End::Open);
    for state in [State::CloseWait, State::Established, State::FinWait2] {
        c.state = state;
        t.connection(&c, &f);
    }
}

#[test]
fn marks_keep_the_alignment_in_80_columns() {
    insta::assert_snapshot!(text(look(Some(80), false), Headings::Connections, marked));
}

#[test]
fn conns_in_120_columns() {
    insta::assert_snapshot!(text(look(Some(120), false), Headings::Connections, connections));
}

#[test]
fn conns_in_colour() {
    insta::assert_snapshot!(text(look(Some(120), true), Headings::Connections, connections));
}

#[test]
fn conns_in_a_pipe() {
    let look = Look { header: false, ..look(None, false) };
    insta::assert_snapshot!(text(look, Headings::Connections, connections));
}

/// What `trace --requests` shows of half-open requests, and of TIME_WAIT where hooks see its end.
fn requests(t: &mut Text<Vec<u8>>) {
    let of = |outcome, detail| Request { detail, synack_retrans: 0, ..fixture::request(outcome) };
    for (outcome, detail) in [
        (Outcome::Queued, None),
        (Outcome::Queued, Some(Detail::Migrated)),
        (Outcome::Completed, None),
        (Outcome::Completed, Some(Detail::Migrated)),
        (Outcome::Completed, Some(Detail::FastOpen)),
        (Outcome::CookieSent, None),
        (Outcome::CookieCompleted, None),
        (Outcome::SynQueueFull, None),
        (Outcome::AcceptQueueFullSyn, None),
        (Outcome::AcceptQueueFullAck, None),
        (Outcome::AcceptQueueFullAck, Some(Detail::Aborted)),
        (Outcome::Rst, None),
        (Outcome::Other, Some(Detail::ListenerClosed)),
        (Outcome::Other, Some(Detail::IcmpError)),
        (Outcome::Other, None),
    ] {
        t.request(&of(outcome, detail));
    }
    t.request(&Request { synack_retrans: 5, ..of(Outcome::SynAckTimeout, None) });
    t.request(&Request { snt_isn: None, owner: None, age_ns: None, ..of(Outcome::Other, None) });
    t.request(&Request { outcome: None, ..of(Outcome::Other, None) });
    t.time_wait(&fixture::remnant());
    t.time_wait(&Remnant { how: Left::Reused, ns: None, preexisting: true, ..fixture::remnant() });
}

#[test]
fn requests_in_80_columns() {
    insta::assert_snapshot!(text(look(Some(80), false), Headings::Transitions, requests));
}

#[test]
fn requests_in_120_columns() {
    insta::assert_snapshot!(text(look(Some(120), false), Headings::Transitions, requests));
}

#[test]
fn requests_among_connections() {
    insta::assert_snapshot!(text(look(Some(80), false), Headings::Connections, requests));
}
