//! Blocks as a terminal shows them, at several widths.

use jiff::tz::TimeZone;

use super::*;
use crate::{
    model::{
        LimitedBy, Role, State, Waits,
        fixture::{self, OFFSET, v4, v6},
    },
    sink::{output::Reader, text::TimeMode},
};

fn depth(len: u32, peak: u32, limit: u32) -> Depth {
    Depth { len: Some(len), young: None, peak: Some(peak), limit: Some(limit) }
}

fn listener(id: u64, tuple: tcptrace_common::record::Tuple, pid: u32, comm: &[u8]) -> Connection {
    let mut c = fixture::connection(Some(Role::Listener), tuple, fixture::process(pid, comm), &[(State::Listen, 0)]);
    c.id = id;
    c
}

fn quiet() -> Listening {
    Listening {
        ts: 1_000_000_000,
        interval_us: 1_000_000,
        syn_queue: depth(0, 0, 4096),
        accept_queue: depth(0, 0, 4096),
        syns: Some(0),
        queued: Some(0),
        completed: Some(0),
        accepted: Some(0),
        cookies_sent: Some(0),
        dropped: [Some(0); 7],
        sources: Some(0),
        exact: true,
        ..Listening::default()
    }
}

fn tour(t: &mut QueuesText<Vec<u8>>) {
    let any = |port| v4([0; 4], port, [0; 4], 0);
    t.netns(&NetnsCounters {
        netns: fixture::connection(None, any(1), None, &[]).tuple.netns,
        counters: vec![("ListenOverflows".into(), 12), ("EmbryonicRsts".into(), 3)],
        ..NetnsCounters::default()
    });
    t.listener(&listener(1, any(22), 812, b"sshd"), &quiet());
    let flooded = Listening {
        syn_queue: depth(129, 129, 128),
        accept_queue: depth(2, 129, 128),
        backlog: Some(511),
        somaxconn: Some(128),
        limited_by: Some(LimitedBy::Somaxconn),
        syns: Some(18_345),
        queued: Some(1200),
        completed: Some(118),
        accepted: Some(117),
        cookies_sent: Some(17_000),
        cookies_ok: Some(3),
        dropped: [Some(0), Some(33), Some(12), Some(4), Some(9), Some(0), Some(0)],
        synack_retrans: Some(870),
        sources: Some(15_211),
        // 33 SYNs, and 12 final ACKs that are counted twice.
        not_taken: None,
        sk_drops: Some(57),
        waits: Some(Waits { p50: 1200, p99: 12_000, max: 95_123 }),
        ..quiet()
    };
    t.listener(&listener(2, any(8080), 1234, b"nginx"), &flooded);
    for (id, done) in [(5, 70), (6, 9), (7, 1)] {
        let member =
            Listening { group: Some(5), syns: Some(done), completed: Some(done), accepted: Some(done), ..quiet() };
        t.listener(&listener(id, v6("::", 9000, "::", 0), 40 + id as u32, b"worker process"), &member);
    }
    let sampled = Listening {
        syns: None,
        cookies_sent: Some(40),
        dropped: [None, Some(7), Some(0), Some(0), Some(0), None, Some(0)],
        not_taken: None,
        sk_drops: Some(9),
        accept_queue: depth(9, 11, 10),
        limited_by: Some(LimitedBy::Backlog),
        inferred: vec!["limited_by", "dropped.accept_queue_full_syn", "cookies_sent"],
        exact: false,
        sources: None,
        ..quiet()
    };
    let mut other =
        listener(9, v6("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 443, "::", 0), 1_234_567, b"postgres: main");
    other.tuple.netns = 4_026_532_999;
    other.preexisting = true;
    t.listener(&other, &sampled);
    let gone = Listening {
        syn_queue: Depth { peak: Some(1), limit: Some(5), ..Depth::default() },
        accept_queue: Depth { peak: Some(0), limit: Some(5), ..Depth::default() },
        ..quiet()
    };
    other.owner = None;
    other.state = State::Close;
    t.listener(&other, &gone);
    t.interval(1_000_000_000, 1_000_000);
}

fn text(width: Option<usize>, color: bool, repaint: bool, f: impl FnOnce(&mut QueuesText<Vec<u8>>)) -> String {
    let look =
        Look { width, follow: false, color, time: TimeMode::Utc, zone: TimeZone::UTC, header: true, ascii: false };
    let mut t = QueuesText::new(Output::new(Vec::new(), Reader::Waiting), look, repaint);
    t.clock(OFFSET);
    f(&mut t);
    t.flush(true).expect("a Vec takes everything");
    let text = String::from_utf8(t.into_inner()).expect("text is UTF-8");
    if let Some(width) = width.filter(|_| !color && !repaint) {
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
    }
    text.replace('\x1b', "␛")
}

#[test]
fn queues_in_80_columns() {
    insta::assert_snapshot!(text(Some(80), false, false, tour));
}

#[test]
fn queues_in_120_columns() {
    insta::assert_snapshot!(text(Some(120), false, false, tour));
}

#[test]
fn queues_in_colour() {
    insta::assert_snapshot!(text(Some(80), true, false, tour));
}

#[test]
fn queues_in_a_pipe() {
    insta::assert_snapshot!(text(None, false, false, tour));
}

#[test]
fn a_terminal_is_painted_over_and_a_pipe_gets_block_after_block() {
    let twice = |t: &mut QueuesText<Vec<u8>>| {
        for _ in 0..2 {
            t.listener(&listener(1, v4([0; 4], 22, [0; 4], 0), 812, b"sshd"), &quiet());
            t.interval(1_000_000_000, 1_000_000);
        }
    };
    let block = text(Some(80), false, false, |t| {
        t.listener(&listener(1, v4([0; 4], 22, [0; 4], 0), 812, b"sshd"), &quiet());
        t.interval(1_000_000_000, 1_000_000);
    });
    assert_eq!(block.lines().count(), 3);
    assert_eq!(text(Some(80), false, true, twice), format!("{block}␛[3A␛[J{block}"));
    assert_eq!(text(Some(80), false, false, twice), format!("{block}\n{block}"));
}

#[test]
fn rates() {
    let show = |n, us| {
        let mut s = String::new();
        rate(&mut s, n, us);
        s
    };
    let shown = [(0, 1), (15, 10), (3, 100), (9999, 1), (12_345, 1), (4_000_000, 1)]
        .map(|(n, seconds)| show(Some(n), seconds * 1_000_000));
    assert_eq!(shown, ["0", "1.5", "<.1", "9999", "12.3k", "4M"]);
    assert_eq!(show(None, 1), "-");
}
