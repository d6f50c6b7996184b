//! Hand-made connections for the tests of everything behind the tracker.

use std::sync::Arc;

use tcptrace_common::record::{Counters, Handshake, Tuple, option};

use super::{
    CloseSegments, ClosedBy, Connection, End, Entry, Final, Found, Inferred, Left, Mini, Notes, Outcome, Patterns,
    Process, Remnant, Request, Role, State, Timeline, Transition,
};

/// 2026-11-21T12:03:04.000000000Z at mono 0.
pub const OFFSET: i64 = 1_795_262_584_000_000_000;
pub const MS: u64 = 1_000_000;

pub fn v4(laddr: [u8; 4], lport: u16, raddr: [u8; 4], rport: u16) -> Tuple {
    let wide = |a: [u8; 4]| [a[0], a[1], a[2], a[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Tuple { laddr: wide(laddr), raddr: wide(raddr), netns: 4_026_531_840, lport, rport, family: 2, reserved: [0; 3] }
}

pub fn v6(laddr: &str, lport: u16, raddr: &str, rport: u16) -> Tuple {
    let octets = |a: &str| a.parse::<std::net::Ipv6Addr>().expect("a literal").octets();
    Tuple {
        laddr: octets(laddr),
        raddr: octets(raddr),
        netns: 4_026_531_840,
        lport,
        rport,
        family: 10,
        reserved: [0; 3],
    }
}

pub fn process(pid: u32, comm: &[u8]) -> Option<Arc<Process>> {
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm);
    Some(Arc::new(Process { pid, tid: pid, uid: 1000, comm: name, cgroup_id: 1, cgroup: None, started: 5 }))
}

pub fn connection(
    role: Option<Role>,
    tuple: Tuple,
    owner: Option<Arc<Process>>,
    states: &[(State, u64)],
) -> Connection {
    let timeline = Timeline::collect(states.iter().map(|&(state, at)| Entry { state, at, seen: true }));
    Connection {
        id: 7,
        cookie: 0x1a2b,
        start_ns: 100 * MS,
        tuple,
        owner,
        actor: None,
        inode: 123_456,
        states: timeline,
        handshake: None,
        fd: 5,
        gaps: 0,
        synack_retrans: 0,
        state: states.last().map_or(State::Close, |s| s.0),
        role,
        preexisting: false,
        inferred: Inferred::default(),
        patterns: Patterns::default(),
        notes: Notes::default(),
    }
}

/// curl's connection, up to TIME_WAIT.
pub fn client() -> Connection {
    let states = [
        (State::SynSent, 0),
        (State::Established, 12 * MS),
        (State::FinWait1, 1212 * MS),
        (State::FinWait2, 1224 * MS),
        (State::TimeWait, 1225 * MS),
    ];
    let mut c = connection(
        Some(Role::Client),
        v4([192, 168, 1, 20], 43_210, [93, 184, 216, 34], 443),
        process(1234, b"curl"),
        &states,
    );
    c.handshake = Some(handshake());
    c
}

pub fn handshake() -> Handshake {
    Handshake {
        isn_local: 4_000_000_000,
        isn_remote: 17,
        srtt_us: 12_000,
        min_rtt_us: 12_000,
        retrans: 0,
        snd_mss: 1448,
        adv_mss: 1448,
        options: option::SACK | option::TIMESTAMPS | option::WSCALE | option::NODELAY,
        wscale_snd: 7,
        wscale_rcv: 8,
        reserved: [0; 2],
        addr: 0,
    }
}

pub fn transition(ts: u64, from: State, to: State, state_ns: Option<u64>) -> Transition {
    Transition {
        ts,
        from,
        to,
        state_ns,
        kernel: None,
        errno: 0,
        end: None,
        flags: 0,
        sequence: None,
        inferred: Inferred::default(),
    }
}

/// The end of [`client`]'s connection: 1,000 bytes out, 34,000 in.
pub fn fin() -> Final {
    Final {
        ts: 1325 * MS,
        late: false,
        end: Some(End::Fin),
        closed_by: Some(ClosedBy::Local),
        close_segments: Some(CloseSegments::Four),
        errno: 0,
        counters: Some(Counters {
            bytes_sent: 1000,
            bytes_acked: 1002,
            bytes_received: 34_001,
            segs_out: 20,
            segs_in: 30,
            srtt_us: 12_345,
            min_rtt_us: 11_000,
            snd_mss: 1448,
            options: option::SACK | option::TIMESTAMPS | option::WSCALE | option::NODELAY,
            ..Counters::default()
        }),
        syn_retrans: Some(0),
        handshake_ns: Some(12 * MS),
        accept_wait_ns: None,
        stack: None,
    }
}

pub fn found() -> Found {
    Found { ts: 50 * MS, unread: 3, unsent: 0, idle_us: Some(9000), syn_queue: None, counters: Counters::default() }
}

pub fn mini(state: State) -> Mini {
    Mini {
        ts: 51 * MS,
        id: 9,
        cookie: 0,
        state,
        tuple: v6("2001:db8::1", 443, "2001:db8:1:2:3:4:5:6", 50_000),
        retrans: 2,
    }
}

/// Of a listener of nginx.
pub fn request(outcome: Outcome) -> Request {
    Request {
        ts: 60 * MS,
        id: 11,
        child: 0,
        listener: 0x2b,
        owner: process(80, b"nginx"),
        tuple: v4([10, 0, 0, 1], 443, [10, 0, 0, 2], 40_000),
        outcome: Some(outcome),
        detail: None,
        over: false,
        synack_retrans: 1,
        rcv_isn: Some(2000),
        snt_isn: Some(1000),
        age_ns: Some(1003 * MS),
        syn_queue: Some((3, 2)),
        accept_queue: Some(129),
        limit: Some(128),
        preexisting: false,
        inferred: Inferred::default(),
    }
}

/// Of curl's connection.
pub fn remnant() -> Remnant {
    let c = client();
    Remnant {
        ts: 61_225 * MS,
        id: c.id,
        cookie: c.cookie,
        tuple: c.tuple,
        owner: c.owner,
        state: State::TimeWait,
        ns: Some(60_000 * MS),
        how: Left::Expired,
        preexisting: false,
    }
}
