//! A recording of a long storm: `cargo run --release --example storm_recording FILE TRANSITIONS` writes so many transitions, some
//! thousand connections a second from many addresses to a few ports, with listeners' rows each second as `record --queues` has them.

#[path = "../tests/support/churn.rs"]
mod churn;

use anyhow::{Context as _, Result};
use churn::{STEPS, noise, process, push};
use tcptrace::{
    frame::{Frames, fact},
    recording::Writer,
};
use tcptrace_common::{
    queue::ListenerSample,
    record::{Accepted, Child, Closed, Established, Head, Open, Owner, Tuple, kind},
};
use zerocopy::{FromBytes, IntoBytes};

/// Connections in flight.
const BATCH: u64 = 1000;
/// Nanoseconds from one record to the next, on average.
const PACE: u64 = 10_000;
const SECOND: u64 = 1_000_000_000;
/// Ports that are asked.
const LISTENERS: u64 = 8;
/// Addresses that ask.
const PEERS: u64 = 2000;
const SERVER: [u8; 4] = [10, 0, 0, 1];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (file, transitions) = arguments.next().zip(arguments.next()).context("FILE TRANSITIONS")?;
    let transitions: u64 = transitions.parse().context("TRANSITIONS")?;
    let mut writer = Writer::create(file)?;
    let (mut frames, mut one) = (Frames::default(), Frames::default());
    let signals = [("accept_queue".to_owned(), "made for a test".to_owned())].into();
    let start = fact::Start { host: "storm".into(), signals, ..fact::Start::default() };
    frames.push_fact(fact::kind::START, 1, &start);
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 1_795_262_584_000_000_000 });
    for i in 0..LISTENERS {
        let head = Head { ts: 1, sock: listener(i), kind: kind::OPEN, from: 7, to: 10, seq: 1, ..Head::default() };
        let owner = Owner { comm: name(b"server"), ..process(2) };
        frames.push(0, Open { head, tuple: listens(i), owner }.as_bytes());
    }
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
    let (mut ts, mut second, mut records) = (2, 0, 0);
    // Of the records of a connection one is no transition.
    for batch in 0..transitions.div_ceil((STEPS - 1) * BATCH) {
        for step in 0..STEPS {
            for n in batch * BATCH..(batch + 1) * BATCH {
                ts += 1 + noise(ts) % (2 * PACE - 1);
                one.clear();
                push(&mut one, step, n, ts);
                for record in one.iter() {
                    let mut record = record.to_vec();
                    vary(&mut record, n);
                    frames.push(0, &record);
                    records += 1;
                }
            }
        }
        if ts / SECOND > second {
            second = ts / SECOND;
            interval(&mut frames, ts);
        }
        writer.write(frames.as_bytes())?;
        frames.clear();
    }
    frames.push_fact(fact::kind::END, ts, &fact::End { records, ..fact::End::default() });
    writer.write(frames.as_bytes())?;
    writer.finish(0)?;
    Ok(())
}

fn name(name: &[u8; 6]) -> [u8; 16] {
    std::array::from_fn(|i| name.get(i).copied().unwrap_or(0))
}

fn address(bytes: [u8; 4]) -> [u8; 16] {
    std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0))
}

/// Cookie of a listener.
fn listener(i: u64) -> u64 {
    u64::MAX - i
}

fn listens(i: u64) -> Tuple {
    Tuple { lport: 80 + i as u16, netns: 1, family: 2, ..Tuple::default() }
}

/// Connection `n` has a peer, a port and counters of its own.
fn vary(record: &mut [u8], n: u64) {
    let (peer, port) = (noise(n) % PEERS, 80 + (n % LISTENERS) as u16);
    let (here, there) = (address([10, 1, (peer >> 8) as u8, peer as u8]), address(SERVER));
    let client = |t: &mut Tuple| (t.laddr, t.raddr, t.rport) = (here, there, port);
    let server = |t: &mut Tuple| (t.laddr, t.raddr, t.lport) = (there, here, port);
    match record[16] {
        kind::OPEN => {
            if let Ok((open, _)) = Open::mut_from_prefix(record) {
                client(&mut open.tuple);
                open.owner.comm = name(b"client");
            }
        }
        kind::CHILD => {
            if let Ok((child, _)) = Child::mut_from_prefix(record) {
                server(&mut child.tuple);
            }
        }
        kind::ESTABLISHED => {
            if let Ok((established, _)) = Established::mut_from_prefix(record) {
                // Cookies of clients are even.
                let side: &dyn Fn(&mut Tuple) = if established.head.sock % 2 == 0 { &client } else { &server };
                side(&mut established.tuple);
            }
        }
        kind::ACCEPTED => {
            if let Ok((accepted, _)) = Accepted::mut_from_prefix(record) {
                accepted.owner.comm = name(b"server");
            }
        }
        kind::CLOSED => {
            if let Ok((closed, _)) = Closed::mut_from_prefix(record) {
                let counters = &mut closed.counters;
                (counters.segs_out, counters.segs_in, counters.bytes_received) = (6, 5, 3001);
                counters.retrans = u32::from(noise(n) % 500 == 7);
            }
        }
        _ => {}
    }
}

/// Every listener as it stands.
fn interval(frames: &mut Frames, ts: u64) {
    for i in 0..LISTENERS {
        let head = Head { ts, sock: listener(i), kind: kind::LISTENER, from: 10, to: 10, ..Head::default() };
        let accept_queue = (ts / SECOND % 7) as u32;
        let sample = ListenerSample { head, tuple: listens(i), accept_queue, limit: 128, ..ListenerSample::default() };
        frames.push(0, sample.as_bytes());
    }
    let interval = fact::Interval { interval_us: SECOND / 1000, exact: false, rest: false };
    frames.push_fact(fact::kind::INTERVAL, ts, &interval);
    frames.push_fact(fact::kind::TICK, ts, &());
}
