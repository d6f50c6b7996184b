//! Every object, word for word; the event reference; the cost of an object.

use std::sync::Arc;

use super::*;
use crate::{
    group::Key,
    model::{
        Cgroup, ClosedBy, Depth, Detail, End, Entry, Inferred, LimitedBy, Outcome, Patterns, Process, Residual, Role,
        Timeline, Waits,
        fixture::{self, MS, OFFSET},
    },
    sink::output::Reader,
};

fn lines(f: impl FnOnce(&mut Json<Vec<u8>>)) -> String {
    let mut json = Json::new(Output::new(Vec::new(), Reader::Waiting));
    json.clock(OFFSET);
    f(&mut json);
    json.flush(true).expect("a Vec takes everything");
    let text = String::from_utf8(json.into_inner()).expect("JSON is UTF-8");
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    text
}

#[test]
fn start() {
    let start = fact::Start {
        host: "web\"1".into(),
        boot_id: "b".into(),
        kernel: "6.12.1".into(),
        version: "0.1.0".into(),
        filters: vec![],
        signals: vec![("state change".into(), "tp_btf inet_sock_set_state".into())],
        degraded: vec!["accepted".into()],
        cut: None,
    };
    let filters = [("port".to_owned(), "80,443".to_owned())];
    insta::assert_snapshot!(lines(|j| j.start(1, &start, &filters)), @r#"{"v":1,"type":"start","ts":"2026-11-21T12:03:04.000000001Z","mono_ns":1,"host":"web\"1","boot_id":"b","kernel":"6.12.1","version":"0.1.0","filters":{"port":"80,443"},"signals":{"state change":"tp_btf inet_sock_set_state"},"fidelity":"degraded","degraded":["accepted"]}"#);
}

#[test]
fn a_host_without_a_boot_id_has_none() {
    let line = lines(|j| j.start(1, &fact::Start::default(), &[]));
    assert!(!line.contains("boot_id") && line.contains("\"host\""), "{line}");
}

#[test]
fn transitions() {
    let c = fixture::client();
    let mut t = fixture::transition(112 * MS + 345, State::SynSent, State::Established, Some(12 * MS));
    insta::assert_snapshot!(lines(|j| j.transition(&c, &t)), @r#"{"v":1,"type":"transition","ts":"2026-11-21T12:03:04.112000345Z","mono_ns":112000345,"id":7,"sock":"1a2b","inode":123456,"fd":5,"netns":4026531840,"family":"ipv4","laddr":"192.168.1.20","lport":43210,"raddr":"93.184.216.34","rport":443,"role":"client","pid":1234,"tid":1234,"comm":"curl","uid":1000,"from":"SYN_SENT","to":"ESTABLISHED","state_us":12000}"#);

    t = fixture::transition(1325 * MS, State::FinWait2, State::TimeWait, None);
    t.kernel = Some((State::FinWait2, State::Close));
    t.end = Some(End::Fin);
    t.errno = 104;
    t.inferred = Inferred(Inferred::TO | Inferred::END);
    let mut c = fixture::connection(Some(Role::Server), fixture::mini(State::TimeWait).tuple, None, &[]);
    (c.cookie, c.inode, c.fd) = (0, 0, -1);
    c.inferred = Inferred(Inferred::ROLE | Inferred::OWNER);
    c.preexisting = true;
    c.actor = fixture::process(9, b"ss\n");
    insta::assert_snapshot!(lines(|j| j.transition(&c, &t)), @r#"{"v":1,"type":"transition","ts":"2026-11-21T12:03:05.325000000Z","mono_ns":1325000000,"id":7,"netns":4026531840,"family":"ipv6","laddr":"2001:db8::1","lport":443,"raddr":"2001:db8:1:2:3:4:5:6","rport":50000,"role":"server","actor":{"pid":9,"comm":"ss\u000a"},"preexisting":true,"from":"FIN_WAIT2","to":"TIME_WAIT","kernel":"FIN_WAIT2>CLOSE","end":"fin","errno":104,"inferred":["role","to","end"]}"#);
}

#[test]
fn the_cgroup_is_the_owners_and_as_certain_as_it_is() {
    let mut c = fixture::client();
    c.inferred = Inferred(Inferred::OWNER);
    let mut line = |cgroup| {
        let owner = c.owner.take().map(|p| Process { cgroup: Some(Arc::new(cgroup)), ..(*p).clone() });
        c.owner = owner.map(Into::into);
        let t = fixture::transition(112 * MS, State::SynSent, State::Established, None);
        serde_json::from_str::<serde_json::Value>(&lines(|j| j.transition(&c, &t))).unwrap()
    };
    let plain = line(Cgroup::new("/a\n\"b", None, None));
    assert_eq!(plain["cgroup"], "/a\n\"b");
    assert_eq!(plain["inferred"], serde_json::json!(["pid", "tid", "comm", "uid", "cgroup"]));
    let (id, uid) = ("5".repeat(64), "019c1fe8-0d92-4aa0-b61c-4df58bdde71c");
    let path = format!("/kubepods/pod{uid}/crio-{id}.scope");
    let numbers = line(Cgroup::new(&path, None, None));
    assert_eq!([&numbers["container"], &numbers["pod"]], [id.as_str(), uid]);
    assert_eq!(numbers["unit"], format!("crio-{id}.scope"));
    assert!(numbers.get("container_id").is_none(), "once is enough: {numbers}");
    let names = line(Cgroup::new(&path, Some("nginx"), Some("web-7c5d")));
    assert_eq!([&names["container"], &names["pod"], &names["container_id"]], ["nginx", "web-7c5d", &id]);
    let all = ["pid", "tid", "comm", "uid", "cgroup", "container", "container_id", "pod", "unit"];
    assert_eq!(names["inferred"], serde_json::json!(all));
}

#[test]
fn connections() {
    let c = fixture::client();
    insta::assert_snapshot!(lines(|j| j.connection(&c, &fixture::fin())), @r#"{"v":1,"type":"connection","ts":"2026-11-21T12:03:05.325000000Z","mono_ns":1325000000,"id":7,"sock":"1a2b","inode":123456,"fd":5,"netns":4026531840,"family":"ipv4","laddr":"192.168.1.20","lport":43210,"raddr":"93.184.216.34","rport":443,"role":"client","pid":1234,"tid":1234,"comm":"curl","uid":1000,"start":"2026-11-21T12:03:04.100000000Z","duration_us":1225000,"states":[{"state":"SYN_SENT","at_us":0,"us":12000},{"state":"ESTABLISHED","at_us":12000,"us":1200000},{"state":"FIN_WAIT1","at_us":1212000,"us":12000},{"state":"FIN_WAIT2","at_us":1224000,"us":1000},{"state":"TIME_WAIT","at_us":1225000}],"handshake_us":12000,"closed_by":"local","end":"fin","bytes_sent":1000,"bytes_acked":1000,"bytes_received":34000,"bytes_retrans":0,"unread":0,"unsent":0,"segs_out":20,"segs_in":30,"retrans":0,"syn_retrans":0,"srtt_us":12345,"min_rtt_us":11000,"snd_mss":1448,"adv_mss":1448,"wscale_snd":7,"wscale_rcv":8,"isn_local":4000000000,"isn_remote":17,"options":["sack","timestamps","nodelay"],"gaps":0,"close_segments":4}"#);
}

#[test]
fn a_preexisting_connection_that_is_still_open_claims_nothing_about_its_begin() {
    let mut c = fixture::connection(
        None,
        fixture::v4([10, 0, 0, 1], 1, [10, 0, 0, 2], 2),
        fixture::process(1, b"\xff\"x"),
        &[(State::Established, 0), (State::CloseWait, 5 * MS)],
    );
    c.preexisting = true;
    let unseen = Entry { state: State::Established, at: 0, seen: false };
    c.states = Timeline::collect([unseen, Entry { state: State::CloseWait, at: 5 * MS, seen: true }]);
    c.patterns = Patterns(Patterns::HALF_CLOSE | Patterns::ORPHAN);
    c.inferred = Inferred(Inferred::OWNER);
    c.gaps = 2;
    let f = Final {
        end: Some(End::Open),
        closed_by: Some(ClosedBy::Remote),
        close_segments: None,
        counters: None,
        syn_retrans: None,
        handshake_ns: None,
        ..fixture::fin()
    };
    insta::assert_snapshot!(lines(|j| j.connection(&c, &f)), @r#"{"v":1,"type":"connection","ts":"2026-11-21T12:03:05.325000000Z","mono_ns":1325000000,"id":7,"sock":"1a2b","inode":123456,"fd":5,"netns":4026531840,"family":"ipv4","laddr":"10.0.0.1","lport":1,"raddr":"10.0.0.2","rport":2,"pid":1,"tid":1,"comm":"\u00ff\"x","uid":1000,"preexisting":true,"states":[{"state":"ESTABLISHED","at_us":0},{"state":"CLOSE_WAIT","at_us":5000,"us":1220000}],"closed_by":"remote","end":"open","gaps":2,"patterns":["half_close","orphan"],"inferred":["pid","tid","comm","uid"]}"#);
}

#[test]
fn a_servers_counters_start_behind_its_syn() {
    let mut c = fixture::client();
    c.role = Some(Role::Server);
    let text = lines(|j| j.connection(&c, &fixture::fin()));
    assert!(text.contains(r#""bytes_acked":1001,"#), "{text}");
}

#[test]
fn what_the_snapshot_found() {
    let mut listener = fixture::connection(
        Some(Role::Listener),
        fixture::v4([0; 4], 80, [0; 4], 0),
        fixture::process(80, b"nginx"),
        &[(State::Listen, 0)],
    );
    listener.preexisting = true;
    let found = Found { syn_queue: Some(4), idle_us: None, ..fixture::found() };
    insta::assert_snapshot!(lines(|j| {
        j.socket(&listener, &found);
        j.mini_socket(&fixture::mini(State::NewSynRecv));
        j.mini_socket(&fixture::mini(State::TimeWait));
    }), @r#"
    {"v":1,"type":"socket","ts":"2026-11-21T12:03:04.050000000Z","mono_ns":50000000,"id":7,"sock":"1a2b","inode":123456,"fd":5,"netns":4026531840,"family":"ipv4","laddr":"0.0.0.0","lport":80,"role":"listener","pid":80,"tid":80,"comm":"nginx","uid":1000,"preexisting":true,"state":"LISTEN","unread":3,"unsent":0,"syn_queue":4}
    {"v":1,"type":"request","ts":"2026-11-21T12:03:04.051000000Z","mono_ns":51000000,"id":9,"netns":4026531840,"family":"ipv6","laddr":"2001:db8::1","lport":443,"raddr":"2001:db8:1:2:3:4:5:6","rport":50000,"role":"server","preexisting":true,"peer":"[2001:db8:1:2:3:4:5:6]:50000","synack_retrans":2}
    {"v":1,"type":"socket","ts":"2026-11-21T12:03:04.051000000Z","mono_ns":51000000,"id":9,"netns":4026531840,"family":"ipv6","laddr":"2001:db8::1","lport":443,"raddr":"2001:db8:1:2:3:4:5:6","rport":50000,"preexisting":true,"state":"TIME_WAIT"}
    "#);
}

#[test]
fn a_request_step_by_step() {
    let mut r = fixture::request(Outcome::Queued);
    insta::assert_snapshot!(lines(|j| {
        j.request(&r);
        r.outcome = Some(Outcome::AcceptQueueFullAck);
        r.detail = Some(Detail::Aborted);
        r.syn_queue = None;
        r.inferred = Inferred(Inferred::START);
        j.request(&r);
    }));
}

#[test]
fn a_remnant() {
    insta::assert_snapshot!(lines(|j| j.time_wait(&fixture::remnant())));
}

#[test]
fn listeners_and_their_namespace() {
    let mut c = fixture::connection(
        Some(Role::Listener),
        fixture::v4([0; 4], 80, [0; 4], 0),
        fixture::process(80, b"nginx"),
        &[(State::Listen, 0)],
    );
    c.inode = 77;
    let known = Listening {
        ts: 5 * MS,
        interval_us: 1_000_000,
        group: Some(7),
        syn_queue: Depth { len: Some(3), young: Some(2), peak: Some(9), limit: Some(128) },
        accept_queue: Depth { len: Some(0), young: None, peak: Some(129), limit: Some(128) },
        backlog: Some(511),
        somaxconn: Some(128),
        limited_by: Some(LimitedBy::Somaxconn),
        syns: Some(10),
        queued: Some(9),
        completed: Some(8),
        accepted: Some(8),
        cookies_sent: Some(0),
        cookies_ok: Some(0),
        fast_opens: Some(0),
        dropped: [Some(0), Some(1), Some(2), Some(0), Some(0), Some(0), Some(0)],
        synack_retrans: Some(1),
        migrated: Some(0),
        held_back: 4,
        not_taken: None,
        sk_drops: Some(3),
        sources: Some(6),
        waits: Some(Waits { p50: 12, p99: 80, max: 99 }),
        fast_open_queue: Some((0, 16)),
        defer_accept: Some(1),
        exact: true,
        inferred: vec![],
    };
    let sampled = Listening {
        dropped: [None, Some(7), None, None, None, None, None],
        inferred: vec!["dropped.accept_queue_full_syn"],
        ..Listening::default()
    };
    let counters = vec![("ListenOverflows".to_owned(), 3), ("ListenDrops".to_owned(), 0)];
    let netns = NetnsCounters {
        ts: 5 * MS,
        interval_us: 1_000_000,
        netns: 4_026_531_840,
        listeners: 2,
        counters,
        ..NetnsCounters::default()
    };
    insta::assert_snapshot!(lines(|j| {
        j.netns(&netns);
        j.listener(&c, &known);
        j.listener(&c, &sampled);
    }));
}

#[test]
fn what_was_reconciled() {
    let one =
        |counter: &str, listener, kernel| Residual { netns: 1, counter: counter.into(), listener, kernel, ours: 4 };
    let residual = Some(vec![one("ListenDrops", None, 4), one("sk_drops", Some(0x1a), 5)]);
    let summary = Summary { residual, requests_forgotten: 3, ..Summary::default() };
    insta::assert_snapshot!(lines(|j| j.summary(2, &summary)));
}

#[test]
fn loss_and_summary() {
    let loss = fact::Loss { kind: "ring_full".into(), count: 12, cpu: Some(3), program: "inet_sock_set_state".into() };
    let summary = Summary {
        events: 10,
        lost: 12,
        transitions: 4,
        connections: 1,
        collector_cpu_us: Some(5),
        ..Summary::default()
    };
    insta::assert_snapshot!(lines(|j| {
        j.loss(1, &loss);
        j.summary(2, &summary);
    }), @r#"
    {"v":1,"type":"loss","ts":"2026-11-21T12:03:04.000000001Z","mono_ns":1,"kind":"ring_full","count":12,"cpu":3,"program":"inet_sock_set_state"}
    {"v":1,"type":"summary","ts":"2026-11-21T12:03:04.000000002Z","mono_ns":2,"events":10,"lost":12,"transitions":4,"connections":1,"gaps":0,"collector_cpu_us":5}
    "#);
}

#[test]
fn without_a_clock_there_is_no_wall_clock_time() {
    let mut json = Json::new(Output::new(Vec::new(), Reader::Waiting));
    json.summary(2, &Summary::default());
    json.flush(true).expect("a Vec takes everything");
    assert!(json.into_inner().starts_with(br#"{"v":1,"type":"summary","mono_ns":2,"events":0"#));
}

#[test]
fn groups() {
    let mut groups = Groups::with_room(vec![Key::Raddr, Key::Rport, Key::Unit], 1);
    let mut c = fixture::client();
    groups.add(&c, &fixture::fin());
    groups.add(&c, &Final { end: None, ..fixture::fin() });
    c.tuple.rport = 80;
    groups
        .add(&c, &Final { end: Some(End::Refused), counters: None, handshake_ns: None, late: true, ..fixture::fin() });
    assert_eq!(lines(|j| j.groups(2_000 * MS, 1_500_000, &groups, false)), "", "not before the end");
    insta::assert_snapshot!(lines(|j| j.groups(2_000 * MS, 1_500_000, &groups, true)), @r#"
    {"v":1,"type":"group","ts":"2026-11-21T12:03:06.000000000Z","mono_ns":2000000000,"elapsed_us":1500000,"raddr":"93.184.216.34","rport":443,"count":2,"per_second":1.333,"ends":{"fin":1,"unknown":1},"duration_us":{"p50":1225000,"p99":1225000},"handshake_us":{"p50":12000,"p99":12000},"srtt_us":{"p50":12345,"p99":12345},"bytes_sent":2000,"bytes_received":68000}
    {"v":1,"type":"group","ts":"2026-11-21T12:03:06.000000000Z","mono_ns":2000000000,"elapsed_us":1500000,"other":true,"count":1,"per_second":0.666,"ends":{"refused":1},"srtt_us":{"p50":12000,"p99":12000},"bytes_sent":0,"bytes_received":0}
    "#);
}

#[test]
fn the_event_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    let committed = std::fs::read_to_string(path).expect("docs/events.md is committed");
    assert!(committed == events_markdown(), "run `tcptrace docs-events > docs/events.md`");
}

/// `cargo test --release -p tcptrace --lib cost_of_an_object -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, meaningful in release builds only"]
fn cost_of_an_object() {
    const N: u64 = 500_000;
    let mut json = Json::new(Output::new(std::io::sink(), Reader::File));
    json.clock(OFFSET);
    let mut c = fixture::client();
    c.tuple = fixture::v4([127, 0, 0, 1], 43_210, [127, 0, 0, 1], 8080);
    let mut f = fixture::fin();
    let mut t = fixture::transition(0, State::SynSent, State::Established, Some(12 * MS));
    for round in 0..3 {
        let begin = std::time::Instant::now();
        for i in 0..N {
            c.id = i + 1_000_000;
            c.start_ns = i * 7777 + 777_000_000_000;
            f.ts = c.start_ns + 1225 * MS;
            json.connection(&c, &f);
        }
        let connection = begin.elapsed().as_nanos() as u64 / N;
        let begin = std::time::Instant::now();
        for i in 0..N {
            c.id = i;
            t.ts = i * 1777 + 777_000_000_000;
            json.transition(&c, &t);
        }
        let transition = begin.elapsed().as_nanos() as u64 / N;
        println!("round {round}: connection {connection} ns, transition {transition} ns");
    }
}
