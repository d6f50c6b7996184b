//! A packet capture inside of a namespace: what a packet socket sees, each segment once.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{netns::Netns, segment::Segment};

/// Captures from when it is made.
pub struct Capture(OwnedFd);

/// Bytes that may wait to be read.
static BUFFER: libc::c_int = 64 << 20;

impl Capture {
    /// Of every interface in `ns`.
    pub fn start(ns: &Netns) -> Self {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = ns.enter(|| {
            // SAFETY: no memory is passed.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
            assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
            // SAFETY: just opened, and nobody else has it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        // SAFETY: `BUFFER` is of the size that is given.
        let set = unsafe {
            let size = mem::size_of_val(&BUFFER) as libc::socklen_t;
            let value = (&raw const BUFFER).cast();
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, size)
        };
        assert_eq!(set, 0, "SO_RCVBUFFORCE: {}", io::Error::last_os_error());
        Self(fd)
    }

    /// All TCP segments so far that were received somewhere, in order. Over loopback each is seen as it leaves, too.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut packet = vec![0u8; 1 << 17];
        loop {
            // SAFETY: zero is a valid value of a struct of integers.
            let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
            let mut size = mem::size_of_val(&from) as libc::socklen_t;
            // SAFETY: both buffers have the sizes that are given.
            let n = unsafe {
                let from = (&raw mut from).cast();
                libc::recvfrom(self.0.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0, from, &raw mut size)
            };
            let Ok(n) = usize::try_from(n) else {
                let e = io::Error::last_os_error();
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}");
                return segments;
            };
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                segments.extend(Segment::decode(&packet[..n]));
            }
        }
    }
}
