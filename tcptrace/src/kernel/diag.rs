//! sock_diag(7): the sockets of a network namespace in CLOSE_WAIT and FIN_WAIT2, which the kernel picks from its tables.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{frame::fact, model::address};

/// Peers that are told apart in an answer.
const PEERS: usize = 64;
/// Bytes of a message to or from the kernel.
const BUFFER: usize = 32 << 10;
/// The kernel's numbers of the states.
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
/// `TCPDIAG_GETSOCK`: TCP sockets of both address families in one pass over the tables.
const GETSOCK: u16 = 18;
/// `INET_DIAG_INFO`: `struct tcp_info`.
const INFO: u16 = 2;
/// `tcpi_bytes_sent` in it, since Linux 4.19.
const BYTES_SENT: usize = 200;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
    port: u32,
}

/// `struct inet_diag_sockid`; ports and addresses in network order.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Id {
    sport: [u8; 2],
    dport: [u8; 2],
    src: [u8; 16],
    dst: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    header: Header,
    family: u8,
    src_len: u8,
    dst_len: u8,
    ext: u8,
    id: Id,
    states: u32,
    dbs: u32,
}

/// `struct inet_diag_msg`; attributes follow.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Message {
    family: u8,
    state: u8,
    timer: u8,
    retrans: u8,
    id: Id,
    expires: u32,
    rqueue: u32,
    wqueue: u32,
    uid: u32,
    inode: u32,
}

/// What an answer holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Sockets in CLOSE_WAIT.
    pub close_wait: Vec<fact::CloseWait>,
    /// Sockets in FIN_WAIT2 without a process, by peer.
    pub orphans: HashMap<IpAddr, u32>,
}

impl Found {
    /// Peers with the most orphans, and how many orphans there are.
    pub fn peers(&self) -> (Vec<(IpAddr, u32)>, u32) {
        let mut peers: Vec<_> = self.orphans.iter().map(|(&addr, &n)| (addr, n)).collect();
        peers.sort_unstable_by_key(|&(addr, n)| (std::cmp::Reverse(n), addr));
        peers.truncate(PEERS);
        (peers, self.orphans.values().sum())
    }

    /// Take one message of the kernel; false: the answer is complete.
    fn take(&mut self, header: &Header, body: &[u8]) -> io::Result<bool> {
        const DONE: u16 = libc::NLMSG_DONE as u16;
        const ERROR: u16 = libc::NLMSG_ERROR as u16;
        match header.kind {
            DONE => return Ok(false),
            ERROR => {
                let errno = i32::read_from_prefix(body).map_or(libc::EIO, |(errno, _)| -errno);
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => {}
        }
        let Ok((m, attributes)) = Message::read_from_prefix(body) else { return Ok(true) };
        if m.state == CLOSE_WAIT {
            let sock = u64::from(m.id.cookie[0]) | u64::from(m.id.cookie[1]) << 32;
            let sent = bytes_sent(attributes).unwrap_or(0);
            self.close_wait.push(fact::CloseWait { sock, unread: m.rqueue, unsent: m.wqueue, sent });
        } else if m.state == FIN_WAIT2 && m.inode == 0 {
            *self.orphans.entry(address(m.family.into(), &m.id.dst)).or_default() += 1;
        }
        Ok(true)
    }
}

/// Ask about the namespace that the calling thread is in.
pub(super) fn closing() -> io::Result<Found> {
    // SAFETY: makes a descriptor.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let request = Request {
        header: Header {
            len: size_of::<Request>() as u32,
            kind: GETSOCK,
            flags: (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
            seq: 1,
            port: 0,
        },
        family: libc::AF_INET as u8,
        src_len: 0,
        dst_len: 0,
        ext: 1 << (INFO - 1),
        id: Id::default(),
        states: 1 << CLOSE_WAIT | 1 << FIN_WAIT2,
        dbs: 0,
    };
    let bytes = request.as_bytes();
    // SAFETY: `bytes` is that long. The kernel makes the first part of the answer here, and each other part when one is received: it never blocks.
    if unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Found::default();
    let mut buffer = vec![0u8; BUFFER];
    loop {
        // SAFETY: `buffer` is that long.
        let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        if !parse(&buffer[..n as usize], &mut found)? {
            return Ok(found);
        }
    }
}

/// Take the messages of one datagram; false: the answer is complete.
fn parse(mut rest: &[u8], found: &mut Found) -> io::Result<bool> {
    if rest.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    while let Ok((header, body)) = Header::read_from_prefix(rest) {
        let body_len = (header.len as usize).checked_sub(size_of::<Header>()).filter(|&len| len <= body.len());
        let Some(len) = body_len else { return Err(io::ErrorKind::InvalidData.into()) };
        if !found.take(&header, &body[..len])? {
            return Ok(false);
        }
        rest = body.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// `tcpi_bytes_sent` among attributes: length and type (16 bits each), the value, padding to 4 bytes.
fn bytes_sent(mut rest: &[u8]) -> Option<u64> {
    loop {
        let (&[len, kind], _) = <[u16; 2]>::ref_from_prefix(rest).ok()?;
        let value = rest.get(4..usize::from(len))?;
        if kind == INFO {
            return u64::read_from_bytes(value.get(BYTES_SENT..BYTES_SENT + 8)?).ok();
        }
        rest = rest.get(usize::from(len).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpListener, TcpStream},
    };

    use super::*;

    fn message(state: u8, inode: u32, cookie: u64, attributes: &[u8]) -> Vec<u8> {
        let mut m = vec![0u8; size_of::<Message>()];
        (m[0], m[1], m[56]) = (2, state, 7);
        m[24..28].copy_from_slice(&[10, 0, 0, 9]);
        m[44..52].copy_from_slice(&cookie.to_le_bytes());
        m[68..72].copy_from_slice(&inode.to_le_bytes());
        m.extend_from_slice(attributes);
        framed(20, &m)
    }

    fn framed(kind: u16, body: &[u8]) -> Vec<u8> {
        let header = Header { len: (size_of::<Header>() + body.len()) as u32, kind, flags: 2, seq: 1, port: 0 };
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn an_answer_is_cut_into_sockets() {
        let mut info = vec![4 + 208, 0, INFO as u8, 0];
        info.resize(4 + 208, 0);
        info[4 + BYTES_SENT] = 99;
        let shutdown = [5u8, 0, 8, 0, 1, 0, 0, 0];
        let mut text = message(CLOSE_WAIT, 5, 0x1_0000_0002, &[&shutdown[..], &info].concat());
        text.extend(message(FIN_WAIT2, 0, 3, &[]));
        text.extend(message(FIN_WAIT2, 0, 4, &[]));
        text.extend(message(FIN_WAIT2, 77, 5, &[]));
        let mut found = Found::default();
        assert!(parse(&text, &mut found).unwrap());
        assert!(!parse(&framed(libc::NLMSG_DONE as u16, &[0; 4]), &mut found).unwrap());
        let row = fact::CloseWait { sock: 0x1_0000_0002, unread: 7, unsent: 0, sent: 99 };
        assert_eq!(found.close_wait, [row]);
        assert_eq!(found.peers(), (vec![("10.0.0.9".parse().unwrap(), 2)], 2), "one has a process");
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let mut found = Found::default();
        let refused = framed(libc::NLMSG_ERROR as u16, &(-libc::ENOENT).to_le_bytes());
        assert_eq!(parse(&refused, &mut found).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(parse(&[], &mut found).is_err());
        let mut long = message(CLOSE_WAIT, 1, 1, &[]);
        long[0] = 255;
        assert!(parse(&long, &mut found).is_err());
        assert!(parse(&framed(20, &[1; 8]), &mut found).unwrap() && found.close_wait.is_empty());
        assert_eq!(bytes_sent(&[0, 0, 2, 0]), None, "an attribute shorter than its own header");
    }

    #[test]
    fn this_kernel_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"12345").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.set_nonblocking(false).unwrap();
        let mut cookie = 0u64;
        let mut len = 8u32;
        // SAFETY: both are as long as said.
        let told = unsafe {
            let (cookie, len) = ((&raw mut cookie).cast(), &raw mut len);
            libc::getsockopt(server.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, cookie, len)
        };
        assert_eq!(told, 0);
        let mine = || closing().unwrap().close_wait.into_iter().find(|row| row.sock == cookie);
        let unread = || mine().map(|row| row.unread);
        // The FIN may be on its way.
        let began = std::time::Instant::now();
        while unread() != Some(6) && began.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        assert_eq!(unread(), Some(6), "five bytes and the FIN");
        let mut text = Vec::new();
        server.read_to_end(&mut text).unwrap();
        assert_eq!((text.len(), unread()), (5, Some(0)));
    }
}
