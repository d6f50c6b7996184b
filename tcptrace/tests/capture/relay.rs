//! A bad network: packets from one namespace to the other and back, some lost, some twice, some out of order.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    random::Random,
    tshark::{RST, SYN},
};
use crate::support::{netns::Netns, tun};

/// Addresses of the two ends.
pub const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
pub const V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2)];
/// What they call their interfaces.
pub const INTERFACE: &str = "tun0";

/// Of a thousand packets.
const LOST: u64 = 60;
const TWICE: u64 = 30;
const LATE: u64 = 40;
/// A packet that is to be late goes when another one has overtaken it, or after so long, milliseconds.
const LATEST: i32 = 3;

/// Runs until it is dropped.
pub struct Relay {
    ways: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// What it did, for the test to know that it did.
#[derive(Default)]
pub struct Counts {
    pub lost: AtomicU64,
    pub twice: AtomicU64,
    pub late: AtomicU64,
}

impl Relay {
    pub fn new(ends: [&Netns; 2], random: &mut Random) -> Self {
        let devices: Vec<_> = (0..2).map(|i| device(ends[i], V4[i], V6[i])).collect();
        let (over, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let ways = [[0, 1], [1, 0]].map(|way| {
            let [from, to] = way.map(|i| devices[i].try_clone().expect("another descriptor"));
            let way = Way { from, to, random: random.another(), counts: Arc::clone(&counts) };
            let over = Arc::clone(&over);
            std::thread::spawn(move || way.run(&over))
        });
        Self { ways: ways.into(), over, counts }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for way in self.ways.drain(..) {
            let ended = way.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a way of the relay failed");
        }
    }
}

fn device(ns: &Netns, v4: Ipv4Addr, v6: Ipv6Addr) -> File {
    let file = tun::device(ns);
    ns.ip(&format!("addr add {v4}/24 dev {INTERFACE}"));
    ns.ip(&format!("addr add {v6}/64 dev {INTERFACE} nodad"));
    ns.ip(&format!("link set {INTERFACE} up"));
    file
}

struct Way {
    from: File,
    to: File,
    random: Random,
    counts: Arc<Counts>,
}

impl Way {
    fn run(mut self, over: &AtomicBool) {
        let mut held: Option<Vec<u8>> = None;
        let mut packet = vec![0; 1 << 16];
        while !over.load(Ordering::Relaxed) {
            let mut fds = [libc::pollfd { fd: self.from.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            // SAFETY: one descriptor in the array.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, if held.is_some() { LATEST } else { 50 }) };
            if ready > 0 {
                let len = (&self.from).read(&mut packet).expect("the device is up");
                self.pass(&packet[..len], &mut held);
            } else if let Some(late) = held.take() {
                self.write(&late);
            }
        }
    }

    fn pass(&mut self, packet: &[u8], held: &mut Option<Vec<u8>>) {
        let Counts { lost, twice, late } = &*self.counts;
        let chance = if is_reset(packet) { LOST + self.random.below(1000 - LOST) } else { self.random.below(1000) };
        if chance < LOST {
            lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if chance < LOST + LATE && held.is_none() {
            late.fetch_add(1, Ordering::Relaxed);
            *held = Some(packet.to_vec());
            return;
        }
        self.write(packet);
        if chance >= 1000 - TWICE && !opens_fast(packet) {
            twice.fetch_add(1, Ordering::Relaxed);
            self.write(packet);
        }
        if let Some(late) = held.take() {
            self.write(&late);
        }
    }

    fn write(&self, packet: &[u8]) {
        assert_eq!((&self.to).write(packet).expect("the device is up"), packet.len());
    }
}

/// Flags and bytes of payload of a packet of TCP without IPv6 extension headers.
fn tcp(packet: &[u8]) -> Option<(u8, usize)> {
    let (protocol, header) = match packet.first()? >> 4 {
        4 => (packet.get(9)?, usize::from(packet[0] & 15) * 4),
        _ => (packet.get(6)?, 40),
    };
    let payload = header + usize::from(packet.get(header + 12)? >> 4) * 4;
    (*protocol == 6).then_some((packet.get(header + 13).copied()?, packet.len().saturating_sub(payload)))
}

/// One that is lost is not sent again, and an end that has nothing to send would never hear of it. What is not TCP is not lost, either: it
/// marks the end of a capture.
fn is_reset(packet: &[u8]) -> bool {
    tcp(packet).is_none_or(|(flags, _)| flags & RST != 0)
}

/// A SYN with data. What comes twice may make two connections, where the first is over by then: RFC 7413, 6.1.
fn opens_fast(packet: &[u8]) -> bool {
    tcp(packet).is_some_and(|(flags, payload)| flags & SYN != 0 && payload > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::segment::Segment;

    #[test]
    fn quick_packets_are_told_apart() {
        let [from, to] = [1, 2].map(|n| std::net::SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 80));
        let packet = |flags: u8, payload: &[u8]| {
            Segment { from, to, seq: 1, ack: 0, flags, window: 1, payload: payload.to_vec() }.encode()
        };
        assert!(opens_fast(&packet(SYN, b"GET")) && !opens_fast(&packet(SYN, b"")) && !opens_fast(&packet(0, b"GET")));
        assert!(is_reset(&packet(RST, b"")) && !is_reset(&packet(SYN, b"")));
        let mut datagram = packet(SYN, b"GET");
        datagram[9] = 17;
        assert!(is_reset(&datagram) && !opens_fast(&datagram));
    }
}
