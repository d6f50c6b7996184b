//! Raw SYNs from made-up sources: a range of their numbers in, frames on one end of a veth pair out.
//!
//! Everything that would matter elsewhere is fixed: the target is an address of TEST-NET-1 (RFC 5737) behind a hardware address that no
//! device has unless it was given it, the sources are of the range for benchmarks (RFC 2544). The live tests use this file too.

use std::{
    ffi::CString,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

/// Who is flooded.
pub const VICTIM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The other end of the pair.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Hardware address that the victim's end must have.
pub const VICTIM_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// The same as `ip link` reads it.
pub const VICTIM_MAC_TEXT: &str = "02:00:00:00:02:01";

/// First source; there are 2^17 of them.
const FIRST_SOURCE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const MOST_SOURCES: u32 = 1 << 17;
const FIRST_PORT: u64 = 1024;
const PORTS: u64 = 60_000;
/// Frames in one system call.
const BATCH: usize = 32;
const ETHERNET: usize = 14;
const IP: usize = 20;
/// With the option that tells the segment size.
const TCP: usize = 24;
const FRAME: usize = ETHERNET + IP + TCP;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Port of the victim.
    pub port: u16,
    /// Distinct sources; they take turns.
    pub sources: u32,
    /// SYNs per second; None: as fast as it goes.
    pub rate: Option<u32>,
}

/// Send the SYNs with these numbers through the device `veth0` of this thread's network namespace. No two numbers below
/// `sources` × 60,000 make the same SYN.
///
/// # Errors
/// Not permitted, or there is no such device, or it is down.
pub fn send(flood: &Flood, numbers: std::ops::Range<u64>) -> io::Result<()> {
    let socket = packet_socket()?;
    let mut frames = [[0; FRAME]; BATCH];
    let (began, first) = (Instant::now(), numbers.start);
    let mut next = first;
    while next < numbers.end {
        if let Some(rate) = flood.rate {
            let due = began + Duration::from_secs_f64((next - first) as f64 / f64::from(rate));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let count = usize::try_from(numbers.end - next).unwrap_or(BATCH).min(BATCH);
        for (frame, number) in frames[..count].iter_mut().zip(next..) {
            fill(frame, flood, number);
        }
        let mut sent = 0;
        while sent < count {
            sent += send_some(&socket, &mut frames[sent..count])?;
        }
        next += count as u64;
        // The kernel's softirq thread may have the receiving half of this on the same CPU: let it drain its queue.
        thread::yield_now();
    }
    Ok(())
}

fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor that nobody else knows. Protocol 0: nothing is received.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let name = CString::new("veth0").map_err(io::Error::other)?;
    // SAFETY: a C string; zero is a valid value of a struct of integers.
    let (index, mut address) =
        unsafe { (libc::if_nametoindex(name.as_ptr()), std::mem::zeroed::<libc::sockaddr_ll>()) };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let one: libc::c_int = 1;
    // SAFETY: both addresses are of live values of the sizes told.
    let refused = index == 0
        || unsafe {
            let fd = socket.as_raw_fd();
            let bypass = libc::PACKET_QDISC_BYPASS;
            libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) != 0
                || libc::setsockopt(fd, libc::SOL_PACKET, bypass, (&raw const one).cast(), size_of_val(&one) as u32)
                    != 0
        };
    if refused { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn send_some(socket: &OwnedFd, frames: &mut [[u8; FRAME]]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> =
        frames.iter_mut().map(|f| libc::iovec { iov_base: f.as_mut_ptr().cast(), iov_len: FRAME }).collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: zero is a valid value of a struct of integers and pointers.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: the messages point to live parts, and these to live frames.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    if sent >= 0 {
        return Ok(sent as usize);
    }
    match io::Error::last_os_error() {
        // The other end's queue is full.
        full if full.raw_os_error() == Some(libc::ENOBUFS) => {
            thread::sleep(Duration::from_micros(100));
            Ok(0)
        }
        error => Err(error),
    }
}

/// Make SYN `number`.
fn fill(frame: &mut [u8; FRAME], flood: &Flood, number: u64) {
    let sources = u64::from(flood.sources.clamp(1, MOST_SOURCES));
    let source = (FIRST_SOURCE + (number % sources) as u32).to_be_bytes();
    let port = (FIRST_PORT + number / sources % PORTS) as u16;
    let (ethernet, packet) = frame.split_at_mut(ETHERNET);
    ethernet[..6].copy_from_slice(&VICTIM_MAC);
    ethernet[6..12].copy_from_slice(&[2, 0, 0, 0, 2, 2]);
    ethernet[12..].copy_from_slice(&[8, 0]);
    let (ip, tcp) = packet.split_at_mut(IP);
    ip.copy_from_slice(&[0x45, 0, 0, (IP + TCP) as u8, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[12..16].copy_from_slice(&source);
    ip[16..].copy_from_slice(&VICTIM.octets());
    let sum = checksum(ip, 0);
    ip[10..12].copy_from_slice(&sum);
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    tcp[2..4].copy_from_slice(&flood.port.to_be_bytes());
    tcp[4..8].copy_from_slice(&(number as u32).wrapping_mul(0x9e37_79b9).to_be_bytes());
    // Acknowledges nothing; six words; SYN; window; checksum; not urgent; largest segment 1460.
    tcp[8..].copy_from_slice(&[0, 0, 0, 0, 6 << 4, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
    let pseudo = ip[12..].chunks_exact(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
    let sum = checksum(tcp, pseudo + 6 + TCP as u32);
    tcp[16..18].copy_from_slice(&sum);
}

/// The Internet checksum, RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8], more: u32) -> [u8; 2] {
    let mut sum = more + bytes.chunks_exact(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Counters of TCP in a network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    /// Segments received.
    pub arrived: u64,
    /// Segments sent for the first time.
    pub answered: u64,
}

/// Those of this thread's network namespace.
///
/// # Errors
/// `/proc` cannot be read.
pub fn segments() -> io::Result<Segments> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    let value = |name| -> io::Result<u64> {
        let at = names.split(' ').position(|n| n == name);
        Ok(at.and_then(|at| values.split(' ').nth(at)?.parse().ok()).ok_or(io::ErrorKind::InvalidData)?)
    };
    Ok(Segments { arrived: value("InSegs")?, answered: value("OutSegs")? - value("RetransSegs")? })
}
