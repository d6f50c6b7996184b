//! IPv4 packets with TCP segments, to and from bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Flags in the TCP header.
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

const TCP: u8 = 6;
const ICMP: u8 = 1;
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;

/// A TCP segment and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub payload: Vec<u8>,
}

impl Segment {
    /// Sequence numbers that it takes.
    pub fn len(&self) -> u32 {
        let marks = u32::from(self.flags & flag::SYN != 0) + u32::from(self.flags & flag::FIN != 0);
        self.payload.len() as u32 + marks
    }

    /// The IPv4 packet, without options.
    pub fn encode(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(TCP_HEADER + self.payload.len());
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(TCP_HEADER as u8 / 4) << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.payload);
        let mut pseudo = Vec::new();
        pseudo.extend(self.from.ip().octets());
        pseudo.extend(self.to.ip().octets());
        pseudo.extend([0, TCP]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        pseudo.extend(&tcp);
        let sum = checksum(&pseudo);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        packet(TCP, *self.from.ip(), *self.to.ip(), &tcp)
    }

    /// Parse an IPv4 packet; None for anything but TCP over IPv4.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 15) * 4;
        if packet[0] >> 4 != 4 || *packet.get(9)? != TCP {
            return None;
        }
        let addr = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let tcp = packet.get(header..total)?;
        let short = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        let long = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let data = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            from: SocketAddrV4::new(addr(12)?, short(0)?),
            to: SocketAddrV4::new(addr(16)?, short(2)?),
            seq: long(4)?,
            ack: long(8)?,
            flags: tcp[13] & 0x1f,
            window: short(14)?,
            payload: tcp.get(data..)?.to_vec(),
        })
    }
}

/// "Host unreachable" from `router` about `original`, an IPv4 packet that it was given.
pub fn unreachable(router: Ipv4Addr, original: &Segment) -> Vec<u8> {
    let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
    icmp.extend(&original.encode()[..IP_HEADER + 8]);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(ICMP, router, *original.from.ip(), &icmp)
}

fn packet(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let total = (IP_HEADER + body.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(body);
    ip
}

/// The Internet checksum, RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |&b| u32::from(b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn quick_segment_survives_encoding() {
    let segment = Segment {
        from: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 4321),
        to: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80),
        seq: 0xffff_fffe,
        ack: 7,
        flags: flag::SYN | flag::ACK,
        window: 512,
        payload: b"odd".to_vec(),
    };
    let bytes = segment.encode();
    assert_eq!(checksum(&bytes[..IP_HEADER]), 0, "a right checksum sums up to nothing");
    assert_eq!(Segment::decode(&bytes), Some(segment));
}
