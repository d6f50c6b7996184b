use std::os::unix::fs::MetadataExt;

use tcptrace_common::{record::Tuple, settings::side};

use super::*;
use crate::{
    error::Result,
    frame::fact,
    model::{Final, Observer, Transition},
    sink::{
        Sink, Summary,
        fixture::{self, v4, v6},
    },
};

fn filter(options: &[(&str, &str)]) -> Filter {
    let mut f = Filter::default();
    for (name, value) in options {
        f.set(name, value).unwrap_or_else(|e| panic!("{e}"));
    }
    f
}

fn connection(tuple: Tuple) -> Connection {
    fixture::connection(Some(Role::Client), tuple, fixture::process(10, b"curl"), &[(State::SynSent, 0)])
}

#[test]
fn ends_of_a_connection() {
    use Verdict::{Unknown, Unwanted, Wanted};
    let c4 = v4([10, 1, 2, 3], 5000, [192, 0, 2, 1], 443);
    let no_lport = v4([10, 1, 2, 3], 0, [192, 0, 2, 1], 443);
    let no_laddr = v4([0; 4], 5000, [192, 0, 2, 1], 443);
    let c6 = v6("2001:db8::1", 5000, "2001:db8:ffff::1", 443);
    let mapped = v6("::ffff:10.1.2.3", 5000, "::ffff:192.0.2.1", 443);
    let table: &[(Tuple, &[(&str, &str)], Verdict)] = &[
        (c4, &[], Wanted),
        (c4, &[("port", "443")], Wanted),
        (c4, &[("port", "80,4000-6000")], Wanted),
        (c4, &[("port", "80")], Unwanted),
        (c4, &[("lport", "443")], Unwanted),
        (c4, &[("rport", "443"), ("lport", "5000")], Wanted),
        (c4, &[("rport", "443"), ("lport", "5001")], Unwanted),
        (no_lport, &[("lport", "5000")], Unknown),
        (no_lport, &[("port", "5000")], Unknown),
        (no_lport, &[("port", "443")], Wanted),
        (no_lport, &[("lport", "5000"), ("rport", "80")], Unwanted),
        (c4, &[("addr", "10.0.0.0/8")], Wanted),
        (c4, &[("raddr", "10.0.0.0/8")], Unwanted),
        (c4, &[("laddr", "10.1.2.3"), ("raddr", "192.0.2.0/24")], Wanted),
        (c4, &[("addr", "0.0.0.0/0")], Wanted),
        (c4, &[("addr", "::/0")], Unwanted),
        (no_laddr, &[("laddr", "10.0.0.0/8")], Unknown),
        (c6, &[("raddr", "2001:db8:ffff::/48")], Wanted),
        (c6, &[("raddr", "2001:db8:fffe::/48")], Unwanted),
        (c6, &[("addr", "0.0.0.0/0,::/0")], Wanted),
        (mapped, &[("laddr", "10.0.0.0/8")], Wanted),
        (mapped, &[("laddr", "::ffff:10.0.0.0/104")], Wanted),
        (mapped, &[("addr", "2001:db8::/32")], Unwanted),
        (c4, &[("netns", "4026531840")], Wanted),
        (c4, &[("netns", "1,2")], Unwanted),
    ];
    for (tuple, options, want) in table {
        assert_eq!(filter(options).connection(&connection(*tuple)), *want, "{tuple:?} {options:?}");
    }
}

#[test]
fn roles_and_owners() {
    use Verdict::{Unknown, Unwanted, Wanted};
    let mut c = connection(v4([1; 4], 1, [2; 4], 2));
    assert_eq!(filter(&[("role", "client,listener")]).connection(&c), Wanted);
    assert_eq!(filter(&[("role", "server")]).connection(&c), Unwanted);
    assert_eq!(filter(&[("pid", "9,10"), ("comm", "wget,curl")]).connection(&c), Wanted);
    assert_eq!(filter(&[("pid", "10"), ("comm", "wget")]).connection(&c), Unwanted);
    assert_eq!(filter(&[("comm", "cur")]).connection(&c), Unwanted);
    // The listener's owner is not yet the owner.
    c.inferred = Inferred(Inferred::OWNER);
    assert_eq!(filter(&[("pid", "10")]).connection(&c), Unknown);
    c.owner = None;
    c.role = None;
    assert_eq!(filter(&[("comm", "curl")]).connection(&c), Unknown);
    assert_eq!(filter(&[("role", "client")]).connection(&c), Unknown);
    assert_eq!(filter(&[("role", "client"), ("port", "80")]).connection(&c), Unwanted);
}

#[test]
fn what_is_not_a_filter() {
    let mut f = Filter::default();
    for (name, value, says) in [
        ("port", "0", "--port: `0` is not a port"),
        ("port", "90-80", "--port: `90-80` is not a port"),
        ("port", "http", "--port: `http` is not a port"),
        ("lport", "80,,443", "--lport: an empty value in `80,,443`"),
        ("addr", "10.0.0.0/33", "--addr: `10.0.0.0/33` is not an address"),
        ("raddr", "example.org", "--raddr: `example.org` is not an address"),
        ("pid", "0", "--pid: `0` is not a process id"),
        ("state", "OPEN", "--state: `OPEN` is not a TCP state: ESTABLISHED"),
        ("role", "peer", "--role: `peer` is not a role: client, server or listener"),
        ("netns", "no-such-namespace", "--netns: no network namespace `no-such-namespace`"),
        ("color", "red", "--color: unknown filter `color`"),
    ] {
        let e = f.set(name, value).expect_err(value);
        assert!(e.starts_with(says), "{e}");
    }
}

#[test]
fn a_filter_survives_a_recording() {
    let f = filter(&[
        ("port", "80,8000-8100"),
        ("lport", "1"),
        ("rport", "2"),
        ("addr", "10.0.0.0/8,::1"),
        ("laddr", "::ffff:1.2.3.4"),
        ("raddr", "2001:db8::/32"),
        ("netns", "4026531840"),
        ("pid", "1,2"),
        ("comm", r"a\,b,c\\d"),
        ("role", "server"),
        ("state", "close-wait,TIME_WAIT"),
    ]);
    assert_eq!(f.comms, ["a,b", r"c\d"]);
    assert_eq!(f.addrs.local[0].to_string(), "1.2.3.4");
    assert_eq!(Filter::from_pairs(&f.to_pairs()), Ok(f));
    assert_eq!(Filter::default().to_pairs(), []);
}

#[test]
fn a_namespace_by_number_and_by_path() {
    let inode = std::fs::metadata("/proc/self/ns/net").expect("every process has one").ino() as u32;
    assert_eq!(netns_number("/proc/self/ns/net"), Ok(inode));
    assert_eq!(netns_number(&inode.to_string()), Ok(inode));
    assert_eq!(netns_number(&format!("net:[{inode}]")), Ok(inode));
}

#[test]
fn the_longest_prefix_in_the_kernel_has_the_whole_answer() {
    let k =
        filter(&[("laddr", "10.0.0.0/8"), ("raddr", "10.1.0.0/16"), ("addr", "10.0.0.0/8"), ("port", "1-9")]).kernel();
    let prefix = |s: &str| s.parse::<Prefix>().expect("a literal");
    let all = side::LOCAL | side::REMOTE | side::EITHER;
    assert_eq!(k.addrs, [(prefix("10.0.0.0/8"), side::LOCAL | side::EITHER), (prefix("10.1.0.0/16"), all)]);
    assert_eq!(k.addr_sides, all);
    assert_eq!((k.ports, k.port_sides), (vec![(Ports { first: 1, last: 9 }, side::EITHER)], side::EITHER));
}

/// Notes what reaches the sink.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        let pid = c.owner.as_ref().map_or(0, |o| o.pid);
        self.0.push(format!("{} {pid} {}>{}", c.id, t.from, t.to));
    }
    fn connection(&mut self, c: &Connection, _: &Final) {
        self.0.push(format!("{} over", c.id));
    }
}

impl Sink for Notes {
    fn clock(&mut self, _: i64) {}
    fn start(&mut self, _: u64, _: &fact::Start, _: &[(String, String)]) {}
    fn loss(&mut self, _: u64, _: &fact::Loss) {}
    fn summary(&mut self, _: u64, _: &Summary) {}
    fn flush(&mut self, _: bool) -> Result<()> {
        Ok(())
    }
}

/// An accepted connection: its owner is known at accept(), after two transitions.
fn accepted(gate: &mut Gate<Notes>, id: u64, pid: Option<u32>) {
    let mut c = connection(v4([127, 0, 0, 1], 80, [127, 0, 0, 1], 5000));
    (c.id, c.owner, c.role) = (id, None, Some(Role::Server));
    gate.transition(&c, &fixture::transition(1, State::Listen, State::SynRecv, None));
    gate.transition(&c, &fixture::transition(2, State::SynRecv, State::Established, None));
    if let Some(pid) = pid {
        c.owner = fixture::process(pid, b"server");
        gate.owner(&c);
    }
    gate.transition(&c, &fixture::transition(3, State::Established, State::Close, None));
    c.states.push(State::Established, 1);
    gate.connection(&c, &fixture::fin());
}

#[test]
fn a_transition_waits_for_its_owner() {
    let mut gate = Gate::new(Notes::default(), Records::Transitions, filter(&[("pid", "5")]), None);
    accepted(&mut gate, 1, Some(5));
    accepted(&mut gate, 2, Some(6));
    accepted(&mut gate, 3, None);
    assert_eq!(gate.sink.0, ["1 5 LISTEN>SYN_RECV", "1 5 SYN_RECV>ESTABLISHED", "1 5 ESTABLISHED>CLOSE"]);
    assert_eq!((gate.counts.transitions, gate.counts.connections, gate.counts.printed), (3, 1, 3));
    assert_eq!((gate.held_now, gate.held.len()), (0, 0));
}

#[test]
fn what_is_held_back_is_bounded_and_counted() {
    let mut gate = Gate::new(Notes::default(), Records::Transitions, filter(&[("pid", "5")]), None);
    let mut c = connection(v4([127, 0, 0, 1], 80, [127, 0, 0, 1], 5000));
    c.owner = None;
    for id in 0..(1 << 16) + 10 {
        c.id = id;
        gate.transition(&c, &fixture::transition(1, State::Listen, State::SynRecv, None));
    }
    assert_eq!((gate.held_now, gate.counts.held_dropped), (1 << 16, 10));
    // The last one is still there.
    c.owner = fixture::process(5, b"server");
    gate.owner(&c);
    assert_eq!(gate.sink.0, [format!("{} 5 LISTEN>SYN_RECV", c.id)]);
}

#[test]
fn state_selects_output_only() {
    let mut gate = Gate::new(Notes::default(), Records::Transitions, filter(&[("state", "SYN_RECV")]), None);
    accepted(&mut gate, 1, Some(5));
    assert_eq!(gate.sink.0, ["1 0 LISTEN>SYN_RECV", "1 0 SYN_RECV>ESTABLISHED"]);
    let mut gate = Gate::new(Notes::default(), Records::Connections, filter(&[("state", "ESTABLISHED")]), None);
    accepted(&mut gate, 1, Some(5));
    assert_eq!(gate.sink.0, ["1 over"]);
    let mut gate = Gate::new(Notes::default(), Records::Connections, filter(&[("state", "FIN_WAIT1")]), None);
    accepted(&mut gate, 1, Some(5));
    assert!(gate.sink.0.is_empty());
}

#[test]
fn a_count_ends_the_output() {
    let mut gate = Gate::new(Notes::default(), Records::Transitions, Filter::default(), Some(2));
    accepted(&mut gate, 1, Some(5));
    assert_eq!(gate.sink.0.len(), 2);
    assert!(gate.is_done());
}

#[test]
fn filters_of_a_recording_and_of_the_command_line_are_both_met() {
    let mut gate = Gate::new(Notes::default(), Records::Connections, filter(&[("pid", "5")]), None);
    gate.demand(filter(&[("port", "81")]));
    accepted(&mut gate, 1, Some(5));
    assert!(gate.sink.0.is_empty());
}
