//! Whatever comes, in whatever order: the tracker goes on, forgets what is over, and its times add up.

use proptest::prelude::*;
use tcptrace::{
    decode::Event,
    frame::fact,
    model::{Connection, Final, Found, Observer, Transition},
    tracker::Tracker,
};
use tcptrace_common::{
    queue::{Listen, ListenerSample, ListenerStats, RequestEvent},
    record::{
        Accepted, Bound, Child, Closed, Counters, Established, Handshake, Head, MiniSocket, Open, Owned, Owner,
        Received, Sequence, Socket, SynAck, TimeWaitEnd, Tuple,
    },
};
use zerocopy::FromZeros;

/// Checks every change as it comes.
#[derive(Default)]
struct Checker {
    begun: u64,
    over: Vec<u64>,
}

impl Checker {
    fn timeline(&mut self, c: &Connection) {
        assert!(c.id != 0);
        self.begun = self.begun.max(c.id);
        let entries: Vec<_> = c.states.entries().collect();
        assert_eq!(entries.len(), c.states.len());
        assert_eq!(entries.first().map(|e| e.at), Some(0), "a timeline starts at its start: {entries:?}");
        assert!(entries.is_sorted_by_key(|e| e.at), "{entries:?}");
        assert_eq!(entries.last().map(|e| e.state), Some(c.state), "{entries:?}");
    }
}

impl Observer for Checker {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        self.timeline(c);
        assert!(t.state_ns.is_none_or(|ns| ns <= 2_000_000), "{t:?}");
        assert!(!self.over.contains(&c.id), "{} is over", c.id);
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        self.timeline(c);
        let duration = f.ts - c.start_ns;
        let mut times: Vec<u64> = c.states.iter().map(|(_, at)| at).collect();
        times.push(duration);
        let spent: u64 = times.windows(2).map(|w| w[1].checked_sub(w[0]).expect("time goes on")).sum();
        assert_eq!(spent, duration);
        assert!(!self.over.contains(&c.id), "{} reported twice", c.id);
        self.over.push(c.id);
    }

    fn socket(&mut self, c: &Connection, _: &Found) {
        self.timeline(c);
        assert!(c.preexisting);
    }
}

#[derive(Clone, Debug)]
struct Any {
    kind: u8,
    head: Head,
    port: u16,
    addr: u64,
    pid: u32,
}

fn one() -> impl Strategy<Value = Any> {
    // Few sockets and few addresses, so that events meet; times mostly grow (see below) and sometimes do not.
    let states = (0u8..14, 0u8..14);
    let errors = prop_oneof![4 => Just(0u8), 3 => prop::sample::select(vec![103u8, 104, 110]), 1 => any::<u8>()];
    let seq = prop_oneof![3 => 0u16..20, 1 => any::<u16>()];
    let flags = prop_oneof![1 => Just(0u16), 1 => 0u16..2048];
    (0u8..39, 0u64..4, states, errors, seq, flags, 0u64..1000, 0u16..3, 0u64..3, 0u32..3).prop_map(
        |(kind, sock, (from, to), err, seq, flags, ts, port, addr, pid)| Any {
            kind,
            head: Head { ts, sock, kind: 0, from, to, err, seq, flags },
            port,
            addr,
            pid,
        },
    )
}

fn feed(tracker: &mut Tracker, any: &Any, out: &mut Checker) {
    let head = any.head;
    let tuple = Tuple { lport: any.port, rport: any.port, family: 2, netns: 1, ..Tuple::default() };
    let owner = Owner { pid: any.pid, inode: any.addr, ..Owner::default() };
    let handshake = Handshake { addr: any.addr, ..Handshake::default() };
    let counters = Counters::default();
    let mini = MiniSocket { head, tuple, retrans: 0, reserved: 0 };
    let event = match any.kind {
        0 => &Event::Open(&Open { head, tuple, owner }),
        1 => &Event::Child(&Child { head, tuple, addr: any.addr }),
        2 => &Event::Established(&Established { head, tuple, handshake }),
        3 => &Event::Closed(&Closed { head, counters, ..Closed::default() }),
        4 => &Event::Accepted(&Accepted { head, owner, addr: any.addr }),
        5 => &Event::Actor(&Owned { head, owner }),
        6 => &Event::Destroyed(&head),
        7 => &Event::ResetSent(&head),
        8 => &Event::ResetReceived(&head),
        9 => &Event::Retransmit(&head),
        10 => &Event::SynAckRetransmit(&SynAck { head, tuple, retrans: 1, reserved: 0 }),
        11 => &Event::Error(&head),
        12 => &Event::Socket(&Socket { head, tuple, handshake, counters, inode: any.addr, ..Socket::default() }),
        13 => &Event::Holder(&Owned { head, owner }),
        14 => &Event::Request(&mini),
        15 => &Event::TimeWait(&mini),
        16 => &Event::Snapshot(head.ts, fact::Snapshot::default()),
        17 => &Event::Tick(head.ts),
        18 => &Event::Bound(&Bound { head, lport: any.port, ..Bound::default() }),
        21 => &Event::Sequence(&Sequence { head, rcv_nxt: any.pid, ..Sequence::default() }),
        19 | 20 => {
            let resync =
                fact::Resync { begin: head.ts.saturating_sub(any.addr * 10), netns: vec![1], all: any.pid == 0 };
            &Event::Snapshot(head.ts, fact::Snapshot { resync: Some(resync), ..fact::Snapshot::default() })
        }
        24..=31 => &Event::RequestEvent(&RequestEvent {
            head: Head { sock: 0, ..head },
            tuple,
            child: head.sock,
            addr: any.addr,
            since: u64::from(head.err) * 3,
            rcv_isn: any.pid,
            outcome: any.kind - 24 + 2 * (head.seq % 5) as u8,
            ..RequestEvent::default()
        }),
        32 => &Event::TimeWaitBegin(&head),
        33 => &Event::TimeWaitEnd(&TimeWaitEnd { head, late_ns: any.addr }),
        34 => &Event::Listen(&Listen { open: Open { head, tuple, owner }, backlog: 1, somaxconn: 2 }),
        35 => &Event::Listener(&ListenerSample { head, tuple, group: any.addr, ..ListenerSample::default() }),
        36 => &Event::ListenerStats(&ListenerStats { head, ..ListenerStats::new_zeroed() }),
        37 => {
            tracker.event(&Event::Netns(head.ts, fact::Netns { netns: 1, ..fact::Netns::default() }), out);
            let interval_us = u64::from(any.pid);
            &Event::Interval(head.ts, fact::Interval { interval_us, exact: true, rest: head.seq & 1 == 0 })
        }
        38 => {
            let socket = Socket { head, tuple, handshake, counters, inode: any.addr, ..Socket::default() };
            &Event::Received(&Received { socket, owner })
        }
        _ => &Event::State(&head),
    };
    tracker.event(event, out);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events(events in prop::collection::vec(one(), 0..60), drift in 0u64..2000) {
        let mut tracker = Tracker::new();
        let mut out = Checker::default();
        for (i, any) in events.iter().enumerate() {
            let mut any = any.clone();
            any.head.ts += i as u64 * drift;
            feed(&mut tracker, &any, &mut out);
            // Every live timeline has a cookie of its own, or is a child that waits for one at an address of its own.
            prop_assert!(tracker.live() <= 3 + 3);
        }
        tracker.event(&Event::Tick(200_000_000_000), &mut out);
        tracker.event(&Event::Tick(200_000_000_001), &mut out);
        prop_assert!(tracker.live() <= 3, "children without a cookie are forgotten");
        tracker.finish(2_000_000, &mut out);
        prop_assert_eq!(tracker.live(), 0);
        let netns = events.iter().filter(|any| any.kind == 37).count();
        prop_assert_eq!(tracker.stats().events, (events.len() + netns) as u64 + 2);
    }

    /// In order and without loss nothing is counted as lost, late or impossible, and every connection is reported once.
    #[test]
    fn orderly_lives(closers in prop::collection::vec((any::<bool>(), 1u64..50), 1..40)) {
        let mut tracker = Tracker::new();
        let mut out = Checker::default();
        let mut ts = 0;
        for (i, &(active, step)) in closers.iter().enumerate() {
            let path: &[u8] = if active { &[7, 2, 1, 4, 5, 7] } else { &[7, 2, 1, 8, 9, 7] };
            for (n, w) in path.windows(2).enumerate() {
                ts += step;
                // The peer's FIN was received: RCV_SHUTDOWN and DONE.
                let flags = if w[1] == 7 || w[0] == 8 || w[1] == 8 { 5 } else { 0 };
                let head =
                    Head { ts, sock: 1 + i as u64 % 3, from: w[0], to: w[1], seq: 1 + n as u16, flags, ..Head::default() };
                let kind = match (w[0], w[1]) {
                    (7, _) => 0,
                    (_, 1) => 2,
                    (_, 7) => 3,
                    _ => 21,
                };
                feed(&mut tracker, &Any { kind, head, port: 80, addr: 1, pid: 7 }, &mut out);
            }
        }
        let stats = tracker.stats();
        prop_assert_eq!((stats.gaps, stats.late, stats.impossible, stats.nonsense), (0, 0, 0, 0));
        prop_assert_eq!(out.over.len(), closers.len());
        prop_assert_eq!(tracker.live(), 0);
    }
}
