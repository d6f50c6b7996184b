//! Hand-made observer calls in, what reaches the sink out.

use super::*;
use crate::{
    error::Result,
    frame::fact,
    model::{
        Entry, Inferred, Observer,
        fixture::{self, v4},
        ladder::Ladder,
    },
    sink::Summary,
};

fn filter(options: &[(&str, &str)]) -> Filter {
    let mut f = Filter::default();
    for (name, value) in options {
        f.set(name, value).unwrap_or_else(|e| panic!("{e}"));
    }
    f
}

fn connection(tuple: tcptrace_common::record::Tuple) -> Connection {
    fixture::connection(Some(Role::Client), tuple, fixture::process(10, b"curl"), &[(State::SynSent, 0)])
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
    fn ladder(&mut self, ladder: &Ladder) {
        self.0.push(format!(
            "{} and {:?} drawn",
            ladder.left.connection.id,
            ladder.right.as_ref().map(|r| r.connection.id)
        ));
    }
    fn groups(&mut self, ts: u64, elapsed_us: u64, groups: &Groups, last: bool) {
        let counts: Vec<_> = groups.sorted().iter().map(|(_, group)| group.count).collect();
        self.0.push(format!("{ts} {elapsed_us} {counts:?} {last}"));
    }
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
    c.states.push(Entry { state: State::Established, at: 1, seen: true });
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
fn a_connection_is_its_listeners_until_it_is_accepted() {
    let mut gate = Gate::new(Notes::default(), Records::Transitions, filter(&[("pid", "5")]), None);
    gate.set_recorded(filter(&[("pid", "5")]));
    // A prefork server: 5 listens, 6 and 7 accept; and one in which 8 listens and 5 accepts.
    for (id, listener, acceptor) in [(1, 5, 5), (2, 5, 6), (3, 8, 5), (4, 8, 9), (5, 5, 0)] {
        let mut c = connection(v4([127, 0, 0, 1], 80, [127, 0, 0, 1], 5000));
        (c.id, c.cookie, c.role) = (id, 100 + id, Some(Role::Server));
        c.owner = fixture::process(listener, b"server");
        c.inferred = Inferred(Inferred::OWNER);
        gate.transition(&c, &fixture::transition(1, State::Listen, State::SynRecv, None));
        if acceptor != 0 {
            c.owner = fixture::process(acceptor, b"server");
            c.inferred = Inferred::default();
            gate.owner(&c);
        }
        gate.transition(&c, &fixture::transition(3, State::SynRecv, State::Close, None));
        gate.connection(&c, &fixture::fin());
    }
    let expected = [
        "1 5 LISTEN>SYN_RECV",
        "1 5 SYN_RECV>CLOSE",
        "2 5 LISTEN>SYN_RECV",
        "3 5 LISTEN>SYN_RECV",
        "3 5 SYN_RECV>CLOSE",
        "5 5 LISTEN>SYN_RECV",
        "5 5 SYN_RECV>CLOSE",
    ];
    assert_eq!(gate.sink.0, expected);
    assert_eq!((gate.counts.connections, gate.held_now), (3, 0));
    // What others accepted is forgotten: the kernel programs do not tell of it any more.
    gate.stopped.dedup();
    assert_eq!(gate.stopped, [102, 104]);
}

#[test]
fn what_was_held_back_of_a_socket_before_it_was_received_is_dropped() {
    let mut gate = Gate::new(Notes::default(), Records::Transitions, filter(&[("pid", "5")]), None);
    let mut c = connection(v4([127, 0, 0, 1], 80, [127, 0, 0, 1], 5000));
    c.owner = None;
    gate.transition(&c, &fixture::transition(1, State::SynSent, State::Established, None));
    c.owner = fixture::process(5, b"worker");
    gate.socket(&c, &fixture::found());
    assert_eq!((gate.sink.0.len(), gate.counts.found), (0, 1), "nobody said whose it was then");
    gate.transition(&c, &fixture::transition(2, State::Established, State::FinWait1, None));
    assert_eq!(gate.sink.0.len(), 1);
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
    gate.set_recorded(filter(&[("port", "81")]));
    accepted(&mut gate, 1, Some(5));
    assert!(gate.sink.0.is_empty());
}

#[test]
fn groups_take_the_place_of_connections() {
    let mut gate = Gate::new(Notes::default(), Records::Connections, filter(&[("pid", "5")]), None);
    gate.groups = Some(Groups::new(vec!["comm".parse().expect("a key")]));
    gate.requests = true;
    for pid in [Some(5), Some(6), None, Some(5)] {
        accepted(&mut gate, 1, pid);
    }
    gate.request(&fixture::request(crate::model::Outcome::SynAckTimeout));
    gate.time_wait(&fixture::remnant());
    gate.tell_groups(7, 8, true);
    assert_eq!(gate.sink.0, ["7 8 [2] true"]);
    assert_eq!((gate.counts.connections, gate.counts.printed), (2, 2), "--count counts them");
}

#[test]
fn outcomes_are_asked_of_connections_alone() {
    let asked = || filter(&[("failed", "true")]);
    let mut gate = Gate::new(Notes::default(), Records::Connections, asked(), None);
    accepted(&mut gate, 1, Some(5));
    gate.time_wait(&fixture::remnant());
    assert!(gate.sink.0.is_empty(), "it ended by FINs");
    let c = connection(v4([127, 0, 0, 1], 80, [127, 0, 0, 1], 5000));
    gate.connection(&c, &Final { end: Some(crate::model::End::Refused), ..fixture::fin() });
    assert_eq!(gate.sink.0, ["7 over"]);
    // `trace --from` of a recording that was made with it.
    let mut gate = Gate::new(Notes::default(), Records::Transitions, Filter::default(), None);
    gate.set_recorded(asked());
    assert_eq!(gate.options(), [], "it is not said to be applied");
    accepted(&mut gate, 1, Some(5));
    assert_eq!(gate.sink.0.len(), 3);
    let mut gate = Gate::new(Notes::default(), Records::Connections, Filter::default(), None);
    gate.set_recorded(asked());
    accepted(&mut gate, 1, Some(5));
    assert!(gate.sink.0.is_empty());
}

/// Both ends of a connection in ESTABLISHED: the client, and the server that nobody has accepted yet.
fn both_ends(gate: &mut Gate<Notes>) -> [Connection; 2] {
    let mut client = fixture::client();
    client.tuple = v4([127, 0, 0, 1], 5000, [127, 0, 0, 1], 80);
    let mut server = client.clone();
    (server.id, server.role, server.owner) = (client.id + 1, Some(Role::Server), None);
    server.tuple = v4([127, 0, 0, 1], 80, [127, 0, 0, 1], 5000);
    if let Some(h) = &mut server.handshake {
        std::mem::swap(&mut h.isn_local, &mut h.isn_remote);
    }
    for c in [&client, &server] {
        gate.transition(c, &fixture::transition(1, State::SynRecv, State::Established, None));
    }
    [client, server]
}

#[test]
fn an_end_is_drawn_when_it_is_known_that_the_other_is_not_wanted() {
    let ladders = |options: &[(&str, &str)]| {
        let mut gate = Gate::new(Notes::default(), Records::Connections, filter(options), None);
        gate.ladders = Some(Box::default());
        gate
    };
    // By its role from the beginning.
    let mut gate = ladders(&[("role", "client")]);
    let [client, _server] = both_ends(&mut gate);
    gate.connection(&client, &fixture::fin());
    assert_eq!(gate.sink.0, [format!("{} and None drawn", client.id)]);
    // By its owner, which accept() tells.
    let mut gate = ladders(&[("comm", "curl")]);
    let [client, mut server] = both_ends(&mut gate);
    gate.connection(&client, &fixture::fin());
    assert_eq!(gate.sink.0, [""; 0], "it may be wanted");
    server.owner = fixture::process(6, b"server");
    gate.owner(&server);
    assert_eq!(gate.sink.0, [format!("{} and None drawn", client.id)]);
    gate.connection(&server, &fixture::fin());
    assert_eq!(gate.sink.0.len(), 1);
    // By how it ends.
    let mut gate = ladders(&[("failed", "true")]);
    let [client, server] = both_ends(&mut gate);
    gate.connection(&client, &Final { end: Some(crate::model::End::RstSent), ..fixture::fin() });
    assert_eq!(gate.sink.0, [""; 0], "the other one may have failed, too");
    gate.connection(&server, &fixture::fin());
    assert_eq!(gate.sink.0, [format!("{} and None drawn", client.id)]);
}
