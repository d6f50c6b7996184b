//! Hand-made connections in; what looks wrong and what only resembles it, what is added up, what is picked.

use tcptrace_common::{queue::drop, record::Counters};

use super::*;
use crate::model::{
    Depth, LimitedBy, Outcome, Piece, Residual, State, Timeline, Waits,
    fixture::{self, MS, v4},
    ladder::Moments,
};

fn report() -> Report {
    let mut report = Report::new("day.rec".to_owned(), 3);
    report.clock(fixture::OFFSET);
    report.start(1, &fact::Start::default(), &[]);
    report
}

/// Connections of curl to 10.0.0.2:80 that ended so.
fn asked(report: &mut Report, end: End, times: u64) {
    for i in 0..times {
        let mut c = fixture::client();
        c.id = 100 + i;
        c.tuple = v4([10, 0, 0, 1], 4000, [10, 0, 0, 2], 80);
        report.connection(&c, &Final { end: Some(end), ..fixture::fin() });
    }
}

fn with(counters: Counters) -> Final {
    Final { counters: Some(counters), ..fixture::fin() }
}

/// Of python, listening at 10.0.0.1:8080.
fn listener() -> Connection {
    let tuple = v4([10, 0, 0, 1], 8080, [0; 4], 0);
    fixture::connection(Some(Role::Listener), tuple, fixture::process(9, b"python"), &[(State::Listen, 0)])
}

fn dropped(reason: usize, n: u64) -> Listening {
    let mut l = Listening { ts: 5000 * MS, interval_us: 1_000_000, ..Listening::default() };
    l.dropped[reason] = Some(n);
    l
}

/// Names and sentences of what looks wrong.
fn wrong(report: &Report) -> Vec<(&'static str, String)> {
    let shown = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Name(name) => String::from_utf8_lossy(name).into_owned(),
        Piece::Us(us) => format!("{us}µs"),
    };
    report.wrong().iter().map(|w| (w.check, w.said.iter().map(shown).collect())).collect()
}

fn only(report: &Report) -> (&'static str, String) {
    let mut all = wrong(report);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn nothing(report: &Report) {
    assert_eq!(wrong(report), []);
}

#[test]
fn ordinary_traffic_has_nothing_wrong() {
    let mut r = report();
    nothing(&r);
    asked(&mut r, End::Fin, 1000);
    nothing(&r);
}

#[test]
fn refused_by_one_peer() {
    let mut r = report();
    asked(&mut r, End::Refused, 10);
    assert_eq!(only(&r), ("refused", "10.0.0.2:80 refused 10 of 10 connections".to_owned()));
    // A server that was started again meanwhile.
    asked(&mut r, End::Fin, 11);
    nothing(&r);
    let mut r = report();
    asked(&mut r, End::Refused, 9);
    nothing(&r);
}

#[test]
fn no_answer() {
    let mut r = report();
    asked(&mut r, End::ConnectTimeout, 2);
    nothing(&r);
    asked(&mut r, End::Unreachable, 1);
    assert_eq!(
        only(&r),
        (
            "connect-timeout",
            "3 of 3 connections to 10.0.0.2:80 got no answer, or only that it cannot be reached".to_owned()
        )
    );
}

#[test]
fn resets_are_a_share() {
    let mut r = report();
    asked(&mut r, End::RstReceived, 19);
    nothing(&r);
    asked(&mut r, End::RstSent, 1);
    let words = "20 of 20 connections with 10.0.0.2:80 ended by a RST: 1 by this end, 19 by the peer";
    assert_eq!(only(&r), ("resets", words.to_owned()));
    asked(&mut r, End::Fin, 81);
    nothing(&r);
}

#[test]
fn retransmissions_are_a_share() {
    let mut r = report();
    let c = fixture::client();
    r.connection(&c, &with(Counters { segs_out: 1000, retrans: 20, ..Counters::default() }));
    let words = "20 of 1000 segments (2 %) to 93.184.216.34:443 were sent again";
    assert_eq!(only(&r), ("retransmits", words.to_owned()));
    r.connection(&c, &with(Counters { segs_out: 1, ..Counters::default() }));
    nothing(&r);
    let mut r = report();
    r.connection(&c, &with(Counters { segs_out: 30, retrans: 19, ..Counters::default() }));
    nothing(&r);
}

#[test]
fn a_syn_sent_again_by_many() {
    let mut r = report();
    let again = Final { syn_retrans: Some(1), ..fixture::fin() };
    for _ in 0..10 {
        r.connection(&fixture::client(), &again);
    }
    assert_eq!(only(&r).0, "syn-again");
    asked(&mut r, End::Fin, 191);
    nothing(&r);
}

#[test]
fn ends_by_silence() {
    let mut r = report();
    asked(&mut r, End::KeepaliveTimeout, 1);
    let words = "1 connection with 10.0.0.2:80 ended: no keepalive probe was answered";
    assert_eq!(only(&r), ("keepalive", words.to_owned()));
    let mut r = report();
    asked(&mut r, End::RetransmitTimeout, 1);
    asked(&mut r, End::UserTimeout, 1);
    let words = "2 connections with 10.0.0.2:80 were given up: nothing was acknowledged any more";
    assert_eq!(only(&r), ("no-ack", words.to_owned()));
}

/// Open in a state for so many seconds.
fn stays(report: &mut Report, state: State, seconds: u64) {
    let mut c = fixture::connection(
        Some(Role::Server),
        v4([10, 0, 0, 1], 80, [10, 0, 0, 2], 5),
        fixture::process(9, b"python"),
        &[(State::Established, 0), (state, MS)],
    );
    c.state = state;
    let end = Final { end: Some(End::Open), ts: c.start_ns + MS + seconds * SECOND, ..fixture::fin() };
    report.connection(&c, &end);
}

#[test]
fn sockets_that_nobody_closes() {
    let mut r = report();
    // Its process reads what is left, and closes it.
    stays(&mut r, State::CloseWait, 59);
    stays(&mut r, State::Established, 1000);
    nothing(&r);
    stays(&mut r, State::CloseWait, 60);
    stays(&mut r, State::CloseWait, 200);
    let words = "2 sockets of python[9] in CLOSE_WAIT for a minute or longer, the oldest for 200000000µs at least";
    assert_eq!(only(&r), ("close-wait", words.to_owned()));
    let mut r = report();
    stays(&mut r, State::FinWait2, 61);
    assert_eq!(only(&r).0, "fin-wait2");
}

#[test]
fn an_entry_that_was_not_seen_was_earlier() {
    let mut r = report();
    let mut c = fixture::connection(Some(Role::Server), fixture::client().tuple, fixture::process(9, b"x"), &[]);
    let entry = crate::model::Entry { state: State::CloseWait, at: 0, seen: false };
    c.states = Timeline::collect([entry]);
    (c.state, c.preexisting) = (State::CloseWait, true);
    r.connection(&c, &Final { end: Some(End::Open), ts: c.start_ns + 90 * SECOND, ..fixture::fin() });
    assert!(only(&r).1.contains("90000000µs at least"));
}

#[test]
fn an_accept_queue_that_was_full() {
    let mut r = report();
    let full = Listening {
        accept_queue: Depth { len: Some(5), peak: Some(5), limit: Some(4), ..Depth::default() },
        limited_by: Some(LimitedBy::Backlog),
        ..dropped(drop::ACCEPT_QUEUE_FULL_ACK, 1)
    };
    r.listener(&listener(), &full);
    r.listener(&listener(), &dropped(drop::ACCEPT_QUEUE_FULL_SYN, 7));
    let words = "7 SYNs and 1 final ACK dropped: accept queue full at 10.0.0.1:8080 (python[9]), limit 4 set by listen()'s backlog";
    assert_eq!(only(&r), ("accept-queue-full", words.to_owned()));
    let (_, l) = &r.listeners()[0];
    assert!(l.accept_queue.was_full() && !l.syn_queue.was_full());
    assert_eq!((l.intervals, l.all_dropped(), l.sockets.len()), (2, 8, 1));
    // Full to the last place, and nothing dropped.
    let mut r = report();
    let depth = Depth { len: Some(4), peak: Some(4), limit: Some(4), ..Depth::default() };
    r.listener(&listener(), &Listening { accept_queue: depth, ..dropped(drop::ACCEPT_QUEUE_FULL_ACK, 0) });
    nothing(&r);
}

#[test]
fn what_only_the_kernel_counted() {
    let mut r = report();
    let counters = vec![("ListenOverflows".to_owned(), 3), ("TCPTimeWaitOverflow".to_owned(), 2)];
    r.netns(&NetnsCounters { netns: 1, counters, ..NetnsCounters::default() });
    let checks: Vec<_> = wrong(&r).iter().map(|w| w.0).collect();
    assert_eq!(checks, ["accept-queue-full", "time-wait"]);
    // Filters hold back connections, not what a namespace counts.
    r.parts[0].filters.push(("rport".to_owned(), "80".to_owned()));
    nothing(&r);
    r.parts[0].filters.clear();
    // Given to a listener, it is not told twice.
    r.listener(&listener(), &dropped(drop::ACCEPT_QUEUE_FULL_SYN, 3));
    let all = wrong(&r);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].1.contains("10.0.0.1:8080"), "{all:?}");
}

#[test]
fn syns_that_were_dropped_and_cookies() {
    let mut r = report();
    r.listener(&listener(), &dropped(drop::SYN_QUEUE_FULL, 40));
    let sent = Listening { cookies_sent: Some(5), cookies_ok: Some(4), ..dropped(drop::RST, 0) };
    r.listener(&listener(), &sent);
    let all = wrong(&r);
    assert_eq!(all[0], ("syn-queue-full", "40 SYNs dropped: SYN queue full at 10.0.0.1:8080 (python[9])".to_owned()));
    assert_eq!(all[1], ("cookies", "5 SYN cookies sent at 10.0.0.1:8080 (python[9]), 4 came back".to_owned()));
    assert_eq!(all.len(), 2);
}

#[test]
fn half_open_requests_that_time_out() {
    let mut r = report();
    r.listener(&listener(), &Listening { syns: Some(200), ..dropped(drop::SYNACK_TIMEOUT, 10) });
    let words = "10 half-open requests timed out, of 200 SYNs, at 10.0.0.1:8080 (python[9])";
    assert_eq!(only(&r), ("half-open", words.to_owned()));
    r.listener(&listener(), &Listening { syns: Some(1), ..dropped(drop::SYNACK_TIMEOUT, 0) });
    nothing(&r);
    // Without intervals, by what is told of single ones.
    let mut r = report();
    for _ in 0..10 {
        r.request(&Request { over: true, ..fixture::request(Outcome::SynAckTimeout) });
        r.request(&Request { over: true, ..fixture::request(Outcome::Completed) });
    }
    let words = "10 half-open requests timed out, beside 0 connections, at 10.0.0.1:443 (nginx[80])";
    assert_eq!(only(&r), ("half-open", words.to_owned()));
    assert_eq!(r.totals.requests_failed, 10);
}

#[test]
fn connections_that_wait_for_accept() {
    let waits = |r: &mut Report, ms: u64, times: u64| {
        let c = fixture::connection(Some(Role::Server), v4([10, 0, 0, 1], 8080, [10, 0, 0, 2], 5), None, &[]);
        for _ in 0..times {
            r.connection(&c, &Final { accept_wait_ns: Some(ms * MS), ..fixture::fin() });
        }
    };
    let mut r = report();
    waits(&mut r, 10, 19);
    waits(&mut r, 1100, 1);
    let words =
        "1 of 20 connections waited for accept() for a second or longer at 10.0.0.1:8080, the longest 1100000µs";
    assert_eq!(only(&r), ("slow-accept", words.to_owned()));
    waits(&mut r, 10, 81);
    nothing(&r);
}

#[test]
fn remnants_that_were_killed() {
    let mut r = report();
    r.time_wait(&fixture::remnant());
    // A RST is how an orphan in FIN_WAIT2 ends.
    r.time_wait(&Remnant { how: Left::Killed, state: State::FinWait2, ..fixture::remnant() });
    nothing(&r);
    r.time_wait(&Remnant { how: Left::Killed, ..fixture::remnant() });
    assert_eq!(only(&r).0, "time-wait");
    assert_eq!(r.totals.remnants, [1, 0, 2]);
}

#[test]
fn what_is_missing() {
    let mut r = report();
    let loss = |kind: &str, program: &str, count| fact::Loss {
        kind: kind.into(),
        program: program.into(),
        count,
        ..fact::Loss::default()
    };
    // Damage of the file is told as such.
    r.loss(&loss("recording", "", 5));
    nothing(&r);
    r.loss(&loss("ring_full", "state", 5));
    r.loss(&loss("ring_full", "state", 6));
    let words = "11 events were lost (ring_full in state): record with a larger --buffer";
    assert_eq!(only(&r), ("events-lost", words.to_owned()));
    r.unread = Some("cut off".to_owned());
    let residual = |kernel, ours| Residual { netns: 7, counter: "PassiveOpens".into(), listener: None, kernel, ours };
    r.summary = Some(Summary { residual: Some(vec![residual(5, 5), residual(9, 2)]), ..Summary::default() });
    let all = wrong(&r);
    let checks: Vec<_> = all.iter().map(|w| w.0).collect();
    assert_eq!(checks, ["unread", "events-lost", "residual"]);
    assert_eq!(all[2].1, "The kernel's PassiveOpens in namespace 7 grew by 9; seen: 2");
}

#[test]
fn many_of_a_kind_are_told_in_part() {
    let mut r = report();
    for port in 1..=5 {
        for i in 0..10 + u64::from(port) {
            let mut c = fixture::client();
            c.id = u64::from(port) * 100 + i;
            c.tuple = v4([10, 0, 0, 1], 4000, [10, 0, 0, 2], port);
            r.connection(&c, &Final { end: Some(End::Refused), ..fixture::fin() });
        }
    }
    let all = wrong(&r);
    assert_eq!(all.len(), 4);
    assert!(all[0].1.starts_with("10.0.0.2:5 refused 15"), "{all:?}");
    assert_eq!(all[3].1, "23 more of the same kind in 2 other places");
}

#[test]
fn connections_come_through_the_listener_of_every_address() {
    let mut r = report();
    let mut anywhere = listener();
    anywhere.tuple = v4([0; 4], 8080, [0; 4], 0);
    for here in [[10, 0, 0, 1], [10, 0, 0, 2], [127, 0, 0, 1]] {
        let c = fixture::connection(Some(Role::Server), v4(here, 8080, [10, 9, 9, 9], 5), None, &[]);
        r.connection(&c, &fixture::fin());
    }
    let places = |r: &Report| {
        let shown = |(place, l): (Place, Listener)| (place.addr.map(|a| a.to_string()), l.tally.group.count);
        r.listeners().into_iter().map(shown).collect::<Vec<_>>()
    };
    // Nobody tells of a listener: each end is a place.
    assert_eq!(places(&r).len(), 3);
    let waits = Waits { p50: 1, p99: 2, max: 77 };
    r.listener(&anywhere, &Listening { waits: Some(waits), ..dropped(drop::RST, 0) });
    let mut own = listener();
    own.id = 8;
    own.tuple = v4([127, 0, 0, 1], 8080, [0; 4], 0);
    r.listener(&own, &dropped(drop::RST, 0));
    assert_eq!(places(&r), [(None, 2), (Some("127.0.0.1".to_owned()), 1)]);
    assert_eq!(r.listeners()[0].1.longest(), Some(77));
}

#[test]
fn the_closest_to_its_limit_is_the_peak() {
    let mut r = report();
    let depth = |peak, limit| Depth { peak: Some(peak), limit: Some(limit), ..Depth::default() };
    for (peak, limit) in [(100, 4096), (5, 4), (6, 128)] {
        r.listener(&listener(), &Listening { accept_queue: depth(peak, limit), ..dropped(drop::RST, 0) });
    }
    assert_eq!(r.listeners()[0].1.accept_queue, Peak { most: Some(5), limit: Some(4) });
}

#[test]
fn peers_and_processes_are_bounded() {
    let mut table = tables::Table::<u32, Tally>::new(2);
    for key in [1, 2, 3, 3, 1] {
        table.entry(key).add(&fixture::client(), &fixture::fin());
    }
    let busiest: Vec<_> = table.busiest(|t| t.group.count).into_iter().map(|(k, t)| (*k, t.group.count)).collect();
    assert_eq!((busiest, table.other.group.count), (vec![(1, 2), (2, 1)], 2));
}

#[test]
fn sums_and_lists() {
    let mut r = report();
    let mut c = fixture::client();
    for (id, ms) in [(1, 5), (2, 50), (3, 20), (4, 50), (5, 1)] {
        c.id = id;
        r.connection(&c, &Final { handshake_ns: Some(ms * MS), ..fixture::fin() });
    }
    // A listener is no connection.
    r.connection(&listener(), &fixture::fin());
    r.ended(2000 * MS);
    let slowest: Vec<_> = r.slowest_handshakes.sorted().into_iter().map(|(ns, n)| (ns / MS, n.connection.id)).collect();
    assert_eq!(slowest, [(50, 2), (50, 4), (20, 3)]);
    let t = &r.totals;
    assert_eq!((t.connections, t.clients, t.servers, t.open, t.counted), (5, 5, 0, 0, 5));
    assert_eq!((t.bytes_sent, t.bytes_received, t.segs_out), (5000, 170_000, 100));
    assert_eq!(t.closed_by, [5, 0, 0, 0]);
    assert_eq!(r.lasted(), 2000 * MS - 1);
    assert_eq!(r.opened.peak(|&n| n.into()).map(|p| p.2), Some(5));
}

fn ladder(end: End, id: u64, ms: u64, gaps: u32) -> Ladder {
    let mut c = fixture::client();
    (c.id, c.gaps) = (id, gaps);
    let last = Final { end: Some(end), handshake_ns: Some(ms * MS), ..fixture::fin() };
    Ladder::of_one(crate::model::ladder::Side { connection: c, last }, &Moments::default())
}

#[test]
fn what_is_worth_a_ladder() {
    let mut r = report();
    for l in [
        ladder(End::Fin, 1, 5, 0),
        // Known in part: the next one takes its place.
        ladder(End::RstSent, 2, 7, 1),
        ladder(End::RstSent, 3, 6, 0),
        ladder(End::RstSent, 4, 6, 0),
        ladder(End::Fin, 5, 90, 0),
        ladder(End::Open, 6, 5, 0),
    ] {
        r.ladder(&l);
    }
    let picked: Vec<_> = r.picks().iter().map(|p| (p.ladder.left.connection.id, p.why.clone())).collect();
    let rst = Why::Ended(End::RstSent as usize);
    assert_eq!(picked, [(5, vec![Why::SlowestHandshake]), (3, vec![rst]), (1, vec![Why::Ordinary])]);
}
