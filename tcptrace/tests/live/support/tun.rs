//! A scripted TCP peer: it sees each segment that the kernel sends over a TUN device and answers what the script says.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
    rc::Rc,
};

use super::{
    DEADLINE,
    netns::Netns,
    segment::{Segment, flag, unreachable},
    socket::Sock,
};

/// The kernel's end of the device.
pub const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The peer's end.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// The kernel's end of the device, at `port`.
pub fn at(port: u16) -> SocketAddr {
    (KERNEL, port).into()
}

/// A TUN device in a namespace.
pub struct Tun(Rc<File>);

impl Tun {
    /// Made and up, with [`KERNEL`] as its address.
    pub fn new(ns: &Netns) -> Self {
        let file = device(ns);
        ns.sysctl("net/ipv6/conf/tun0/disable_ipv6", "1");
        ns.ip(&format!("addr add {KERNEL}/24 dev tun0"));
        ns.ip("link set tun0 up");
        Self(Rc::new(file))
    }

    /// Sends packets from any thread.
    pub fn writer(&self) -> Writer {
        Writer(self.0.try_clone().expect("another descriptor"))
    }

    /// The peer at `port`, which has not met anyone yet. One device serves one peer after the other.
    pub fn peer(&self, port: u16) -> Peer {
        let here = SocketAddrV4::new(PEER, port);
        Peer { tun: Rc::clone(&self.0), here, there: SocketAddrV4::new(KERNEL, 0), seq: 1000, ack: 0, met: false }
    }

    /// A peer at `from` whose handshake with the kernel's listener at `to` has come as far as its SYN-ACK.
    pub fn half_open(&self, from: u16, to: u16) -> Peer {
        let mut peer = self.peer(from);
        peer.half_open(to);
        peer
    }
}

/// A TUN device `tun0` in `ns`, without addresses and down.
pub fn device(ns: &Netns) -> File {
    ns.enter(|| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
        let mut request = [0u8; 40];
        request[..4].copy_from_slice(b"tun0");
        request[16..18].copy_from_slice(&((libc::IFF_TUN | libc::IFF_NO_PI) as u16).to_ne_bytes());
        // SAFETY: `request` is a `struct ifreq`.
        let r = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        assert_eq!(r, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        file
    })
}

/// See [`Tun::writer`].
pub struct Writer(File);

impl Writer {
    /// Give the kernel a packet; it has handled it on this CPU when this returns.
    pub fn write(&self, packet: &[u8]) {
        assert_eq!((&self.0).write(packet).expect("the device is up"), packet.len());
    }
}

/// One end of one connection, played by the test.
pub struct Peer {
    tun: Rc<File>,
    here: SocketAddrV4,
    there: SocketAddrV4,
    /// Next sequence number to send.
    pub seq: u32,
    /// Next sequence number to receive.
    pub ack: u32,
    met: bool,
}

impl Peer {
    /// Address for the kernel's socket to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.here.into()
    }

    /// Will send to this port of the kernel's end.
    pub fn meets(&mut self, port: u16) {
        self.there.set_port(port);
    }

    /// The next segment must have exactly `flags` (PSH aside); what it carries counts as received.
    pub fn expect(&mut self, flags: u8) -> Segment {
        let segment = self.next();
        assert_eq!(segment.flags & !flag::PSH, flags, "flags of {segment:?}");
        self.ack = segment.seq.wrapping_add(segment.len());
        segment
    }

    /// The next segment must have exactly one of these sets of flags.
    pub fn expect_any(&mut self, flags: &[u8]) -> Segment {
        let segment = self.next();
        assert!(flags.contains(&(segment.flags & !flag::PSH)), "flags of {segment:?}");
        self.ack = segment.seq.wrapping_add(segment.len());
        segment
    }

    /// Segments with the flags `maybe`, as many as there are, then one with `flags`.
    pub fn expect_skipping(&mut self, maybe: u8, flags: u8) -> Segment {
        loop {
            let segment = self.expect_any(&[maybe, flags]);
            if segment.flags & !flag::PSH == flags {
                return segment;
            }
        }
    }

    /// The next segment, which is lost: nothing of it counts as received.
    pub fn lose(&mut self, flags: u8) -> Segment {
        let before = (self.ack, self.met);
        let segment = self.next();
        assert_eq!(segment.flags & !flag::PSH, flags, "flags of {segment:?}");
        (self.ack, self.met) = before;
        segment
    }

    /// Send a segment with what comes next in the stream, and everything received acknowledged if `flags` has ACK.
    pub fn send(&mut self, flags: u8, payload: &[u8]) {
        let (seq, ack) = (self.seq, self.ack);
        self.send_at(seq, ack, flags, payload);
    }

    /// The same with numbers of one's own; the stream goes on behind it.
    pub fn send_at(&mut self, seq: u32, ack: u32, flags: u8, payload: &[u8]) {
        let ack = if flags & flag::ACK == 0 { 0 } else { ack };
        let segment =
            Segment { from: self.here, to: self.there, seq, ack, flags, window: 60000, payload: payload.to_vec() };
        self.seq = seq.wrapping_add(segment.len());
        self.write(&segment.encode());
    }

    /// What [`Peer::send`] would send next, as a packet.
    pub fn next_packet(&self, flags: u8) -> Vec<u8> {
        let Self { here: from, there: to, seq, ack, .. } = *self;
        Segment { from, to, seq, ack, flags, window: 60000, payload: Vec::new() }.encode()
    }

    /// Answer `segment` as a router that does not know the way.
    pub fn send_unreachable(&mut self, segment: &Segment) {
        self.write(&unreachable(PEER, segment));
    }

    /// Answer the kernel's connect().
    pub fn accept(&mut self) {
        self.expect(flag::SYN);
        self.send(flag::SYN | flag::ACK, b"");
        self.expect(flag::ACK);
    }

    /// A socket in `ns` that has connected to this peer.
    pub fn connected_from(&mut self, ns: &Netns) -> Sock {
        let sock = Sock::new(ns, self.addr());
        sock.start_connect(self.addr());
        self.accept();
        sock.finish_connect().expect("the peer accepts");
        sock
    }

    /// Connect to the kernel's listener at `port`.
    pub fn connect(&mut self, port: u16) {
        self.half_open(port);
        self.send(flag::ACK, b"");
    }

    fn half_open(&mut self, port: u16) {
        self.meets(port);
        self.send(flag::SYN, b"");
        self.expect(flag::SYN | flag::ACK);
    }

    fn write(&mut self, packet: &[u8]) {
        assert_eq!((&*self.tun).write(packet).expect("the device is up"), packet.len());
    }

    /// The next segment for this peer. Copies of what was received already are skipped: a slow machine sends some again.
    fn next(&mut self) -> Segment {
        loop {
            let mut fds = [libc::pollfd { fd: self.tun.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            // SAFETY: one descriptor in the array.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, DEADLINE.as_millis() as i32) };
            assert_eq!(ready, 1, "the kernel sends nothing more");
            let mut packet = [0; 65536];
            let len = (&*self.tun).read(&mut packet).expect("the device is up");
            let Some(segment) = Segment::decode(&packet[..len]) else { continue };
            if segment.to != self.here || (self.there.port() != 0 && segment.from.port() != self.there.port()) {
                continue;
            }
            let known = self.ack.wrapping_sub(segment.seq.wrapping_add(segment.len())) < 1 << 31;
            if self.met && segment.len() > 0 && known {
                continue;
            }
            self.met = true;
            self.there = segment.from;
            return segment;
        }
    }
}
