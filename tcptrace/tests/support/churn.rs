//! Ordinary connection churn as frames: both ends on one host, in batches that live at a time.

use tcptrace::frame::{Frames, fact};
use tcptrace_common::record::{
    Accepted, Child, Closed, Counters, Established, Handshake, Head, Open, Owner, Tuple, flag, kind,
};
use zerocopy::IntoBytes;

/// Connections in flight.
pub const IN_FLIGHT: u64 = 1000;
/// Records of a connection, both ends.
pub const STEPS: u64 = 11;
/// Ports that are asked.
pub const LISTENERS: u64 = 8;
/// Addresses that ask.
const PEERS: u64 = 2000;
const CLIENT: u32 = 1;
const SERVER: u32 = 2;

/// What comes before the first connection: listeners, and the end of the start snapshot.
pub fn begin(frames: &mut Frames) {
    for i in 0..LISTENERS {
        let head = Head { ts: 1, sock: 1 + i, kind: kind::OPEN, from: 7, to: 10, seq: 1, ..Head::default() };
        let tuple = Tuple { lport: 80 + i as u16, netns: 1, family: 2, ..Tuple::default() };
        frames.push(0, Open { head, tuple, owner: process(SERVER) }.as_bytes());
    }
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
}

/// Lives of [`IN_FLIGHT`] connections from number `first` on, a record every `pace` nanoseconds or so; when they are over.
pub fn batch(frames: &mut Frames, first: u64, mut ts: u64, pace: u64) -> u64 {
    for step in 0..STEPS {
        for i in 0..IN_FLIGHT {
            // Not evenly, as nothing is: a recording would be packed too well.
            ts += 1 + noise(ts) % (2 * pace - 1);
            push(frames, step, first + i, ts);
        }
    }
    ts
}

/// One of the records of connection `n`, whose client asks one of the listeners: five are the client's, six the server's.
pub fn push(frames: &mut Frames, step: u64, n: u64, ts: u64) {
    const BOTH: u16 = flag::RCV_SHUTDOWN | flag::SEND_SHUTDOWN | flag::DEAD;
    let head = |server: u64, kind: u8, from: u8, to: u8, seq: u16, flags: u16| Head {
        ts,
        sock: 1 + LISTENERS + 2 * n + server,
        kind,
        from,
        to,
        err: 0,
        seq,
        flags,
    };
    let (peer, port) = (n % PEERS, 80 + (n % LISTENERS) as u16);
    let address = |bytes: [u8; 4]| std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0));
    let (here, there) = (address([10, 1, (peer >> 8) as u8, peer as u8]), address([10, 0, 0, 1]));
    let client =
        Tuple { laddr: here, raddr: there, lport: n as u16, rport: port, netns: 1, family: 2, ..Tuple::default() };
    let server = Tuple { laddr: there, raddr: here, lport: port, rport: n as u16, ..client };
    // Initial sequence numbers are as good as random.
    let isn = noise(n) as u32;
    let handshake = |isn_local: u32, isn_remote: u32| Handshake {
        isn_local,
        isn_remote,
        srtt_us: 20 + (isn >> 26),
        min_rtt_us: 18,
        snd_mss: 1448,
        adv_mss: 1448,
        addr: n,
        ..Handshake::default()
    };
    let (of_client, of_server) = (handshake(isn, !isn), handshake(!isn, isn));
    let counters = Counters {
        bytes_sent: 100 + (u64::from(isn) & 0xfff),
        bytes_acked: 102 + (u64::from(isn) & 0xfff),
        bytes_received: 3001,
        segs_out: 6,
        segs_in: 5,
        retrans: u32::from(isn % 500 == 7),
        srtt_us: 20 + (isn >> 26),
        min_rtt_us: 18,
        snd_mss: 1448,
        ..Counters::default()
    };
    match step {
        0 => {
            frames.push(
                0,
                Open { head: head(0, kind::OPEN, 7, 2, 1, 0), tuple: client, owner: process(CLIENT) }.as_bytes(),
            );
        }
        1 => frames.push(0, Child { head: head(1, kind::CHILD, 10, 3, 1, 0), tuple: server, addr: n }.as_bytes()),
        2 => {
            let head = head(1, kind::ESTABLISHED, 3, 1, 2, 0);
            frames.push(0, Established { head, tuple: server, handshake: of_server }.as_bytes());
        }
        3 => {
            let head = head(0, kind::ESTABLISHED, 2, 1, 2, 0);
            frames.push(0, Established { head, tuple: client, handshake: of_client }.as_bytes());
        }
        4 => frames.push(
            0,
            Accepted { head: head(1, kind::ACCEPTED, 1, 1, 3, 0), owner: process(SERVER), addr: 0 }.as_bytes(),
        ),
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
    let mut comm = [0; 16];
    comm[..6].copy_from_slice(if pid == CLIENT { b"client" } else { b"server" });
    Owner { pid, tid: pid, fd: 3, started: 1, comm, ..Owner::default() }
}
