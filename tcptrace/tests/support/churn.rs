//! Ordinary connection churn, both ends on one host, as frames.

use tcptrace::frame::Frames;
use tcptrace_common::record::{
    Accepted, Child, Closed, Counters, Established, Handshake, Head, Open, Owner, Tuple, flag, kind,
};
use zerocopy::IntoBytes;

/// Steps of a connection.
pub const STEPS: u64 = 11;

/// Step `step` of connection `n`: five records of the client (its cookie is `2 + 2 * n`), six of the server (the next one). The listener has
/// cookie 1.
pub fn push(frames: &mut Frames, step: u64, n: u64, ts: u64) {
    const BOTH: u16 = flag::RCV_SHUTDOWN | flag::SEND_SHUTDOWN | flag::DEAD;
    let head = |server: u64, kind: u8, from: u8, to: u8, seq: u16, flags: u16| Head {
        ts,
        sock: 2 + 2 * n + server,
        kind,
        from,
        to,
        err: 0,
        seq,
        flags,
    };
    let client = Tuple { lport: n as u16, rport: 80, netns: 1, family: 2, ..Tuple::default() };
    let server = Tuple { lport: 80, rport: n as u16, ..client };
    // What differs from one connection to the next.
    let [isn_local, isn_remote] = [0, 1].map(|end| noise(2 * n + end) as u32);
    let srtt_us = 20 + (noise(ts) % 64) as u32;
    let handshake =
        Handshake { isn_local, isn_remote, srtt_us, min_rtt_us: srtt_us / 2, addr: n, ..Handshake::default() };
    let counters = Counters { srtt_us, min_rtt_us: srtt_us / 2, bytes_sent: noise(n) % 4096, ..Counters::default() };
    match step {
        0 => {
            frames.push(0, Open { head: head(0, kind::OPEN, 7, 2, 1, 0), tuple: client, owner: process(1) }.as_bytes());
        }
        1 => frames.push(0, Child { head: head(1, kind::CHILD, 10, 3, 1, 0), tuple: server, addr: n }.as_bytes()),
        2 => {
            let head = head(1, kind::ESTABLISHED, 3, 1, 2, 0);
            frames.push(0, Established { head, tuple: server, handshake }.as_bytes());
        }
        3 => {
            let head = head(0, kind::ESTABLISHED, 2, 1, 2, 0);
            frames.push(0, Established { head, tuple: client, handshake }.as_bytes());
        }
        4 => frames
            .push(0, Accepted { head: head(1, kind::ACCEPTED, 1, 1, 3, 0), owner: process(2), addr: 0 }.as_bytes()),
        5 => frames.push(0, head(0, kind::STATE, 1, 4, 3, BOTH).as_bytes()),
        6 => frames.push(0, head(1, kind::STATE, 1, 8, 4, flag::RCV_SHUTDOWN | flag::DONE).as_bytes()),
        7 => frames.push(0, head(1, kind::STATE, 8, 9, 5, BOTH | flag::DONE).as_bytes()),
        8 => frames.push(0, head(0, kind::STATE, 4, 5, 4, BOTH).as_bytes()),
        9 => {
            let head = head(0, kind::CLOSED, 5, 7, 5, BOTH | flag::DONE);
            frames.push(0, Closed { head, counters, ..Closed::default() }.as_bytes());
        }
        _ => {
            let head = head(1, kind::CLOSED, 9, 7, 6, BOTH | flag::DONE);
            frames.push(0, Closed { head, counters, ..Closed::default() }.as_bytes());
        }
    }
}

/// A number that looks like none other.
pub fn noise(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 24
}

/// A process by its number.
pub fn process(pid: u32) -> Owner {
    Owner { pid, tid: pid, fd: 3, started: 1, ..Owner::default() }
}
