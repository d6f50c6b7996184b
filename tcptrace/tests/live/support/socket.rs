//! TCP sockets with every knob that the scenarios turn. Each call that blocks gives up at the deadline.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto,
    sockopt::{self, Timeout},
};

use super::{DEADLINE, netns::Netns, process::no_start, wait_until};

/// A TCP socket.
pub struct Sock(Option<OwnedFd>);

impl Sock {
    /// A new one in `ns`, of the family of `addr`.
    pub fn new(ns: &Netns, addr: SocketAddr) -> Self {
        Self::with_protocol(ns, addr, Some(ipproto::TCP)).expect("a TCP socket")
    }

    /// The same for another protocol with streams.
    pub fn with_protocol(ns: &Netns, addr: SocketAddr, protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = ns.enter(|| rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol))?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&fd, timeout, Some(*DEADLINE))?;
        }
        Ok(Self(Some(fd)))
    }

    /// Bound to `addr`, listening with `backlog`.
    pub fn listen(ns: &Netns, addr: SocketAddr, backlog: i32) -> Self {
        let sock = Self::new(ns, addr);
        sock.bind(addr);
        rustix::net::listen(&sock, backlog).expect("listen");
        sock
    }

    /// [`Sock::listen`] as one of a SO_REUSEPORT group.
    pub fn listen_in_group(ns: &Netns, addr: SocketAddr, backlog: i32) -> Self {
        let sock = Self::new(ns, addr);
        rustix::net::sockopt::set_socket_reuseport(&sock, true).expect("SO_REUSEPORT");
        sock.bind(addr);
        rustix::net::listen(&sock, backlog).expect("listen");
        sock
    }

    /// [`Sock::listen`] with room for 16 TCP Fast Open children.
    pub fn listen_fast_open(ns: &Netns, addr: SocketAddr, backlog: i32) -> Self {
        let sock = Self::new(ns, addr);
        sock.bind(addr);
        sock.tcp_option(libc::TCP_FASTOPEN, 16);
        rustix::net::listen(&sock, backlog).expect("listen");
        sock
    }

    /// Connected to `addr` from `ns`.
    pub fn connected(ns: &Netns, addr: SocketAddr) -> Self {
        let sock = Self::new(ns, addr);
        sock.connect(addr).unwrap_or_else(|e| panic!("connect to {addr}: {e}"));
        sock
    }

    /// bind(), with SO_REUSEADDR.
    pub fn bind(&self, addr: SocketAddr) {
        sockopt::set_socket_reuseaddr(self, true).expect("SO_REUSEADDR");
        rustix::net::bind(self, &addr).unwrap_or_else(|e| panic!("bind to {addr}: {e}"));
    }

    /// connect().
    pub fn connect(&self, addr: SocketAddr) -> io::Result<()> {
        Ok(rustix::net::connect(self, &addr)?)
    }

    /// connect() without waiting for the answer.
    pub fn start_connect(&self, addr: SocketAddr) {
        rustix::io::ioctl_fionbio(self, true).expect("FIONBIO");
        assert_eq!(rustix::net::connect(self, &addr), Err(rustix::io::Errno::INPROGRESS), "connect to {addr}");
        rustix::io::ioctl_fionbio(self, false).expect("FIONBIO");
    }

    /// Wait for the outcome of [`Sock::start_connect`].
    pub fn finish_connect(&self) -> io::Result<()> {
        let mut fds = [libc::pollfd { fd: self.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
        // SAFETY: one descriptor in the array.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, DEADLINE.as_millis() as i32) };
        assert_eq!(ready, 1, "connect() is still on its way");
        Ok(sockopt::socket_error(self)??)
    }

    /// accept().
    pub fn accept(&self) -> Self {
        let fd = rustix::net::accept_with(self, SocketFlags::CLOEXEC).expect("accept");
        for timeout in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&fd, timeout, Some(*DEADLINE)).expect("SO_RCVTIMEO");
        }
        Self(Some(fd))
    }

    /// Send all of `bytes`.
    pub fn send(&self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[rustix::net::send(self, rest, SendFlags::NOSIGNAL).expect("send")..];
        }
    }

    /// Connect to `addr` by a SYN that carries `bytes`, or asks for a TFO cookie.
    pub fn send_fast_open(&self, addr: SocketAddr, bytes: &[u8]) {
        let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32);
        let sent = rustix::net::sendto(self, bytes, flags, &addr).expect("sendto with MSG_FASTOPEN");
        assert_eq!(sent, bytes.len());
    }

    /// Receive exactly `n` bytes.
    pub fn receive(&self, n: usize) {
        let mut buffer = vec![0; n];
        let (got, _) = rustix::net::recv(self, &mut buffer[..], RecvFlags::WAITALL).expect("recv");
        assert_eq!(got, n, "bytes before the end of the stream");
    }

    /// Receive to the end of the stream: bytes until then.
    pub fn receive_all(&self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let mut sum = 0;
        loop {
            match rustix::net::recv(self, &mut buffer[..], RecvFlags::empty())?.0 {
                0 => return Ok(sum),
                n => sum += n,
            }
        }
    }

    /// Wait until `n` bytes are there, without reading them.
    pub fn wait_unread(&self, n: usize) {
        wait_until("bytes to arrive", || rustix::io::ioctl_fionread(self).expect("FIONREAD") == n as u64);
    }

    /// Close the sending side.
    pub fn shutdown(&self) {
        rustix::net::shutdown(self, Shutdown::Write).expect("shutdown");
    }

    /// Make close() send a RST.
    pub fn linger_zero(&self) {
        sockopt::set_socket_linger(self, Some(std::time::Duration::ZERO)).expect("SO_LINGER");
    }

    /// Set an integer option of IPPROTO_TCP.
    pub fn tcp_option(&self, option: i32, value: i32) {
        // SAFETY: `value` is four bytes.
        let r = unsafe { libc::setsockopt(self.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), 4) };
        assert_eq!(r, 0, "setsockopt: {}", io::Error::last_os_error());
    }

    /// State, as the kernel numbers it.
    pub fn state(&self) -> u8 {
        let mut info = [0u8; 8];
        let mut len = 8;
        // SAFETY: `info` has `len` bytes; the kernel writes no more.
        let r = unsafe {
            let buffer = info.as_mut_ptr().cast();
            libc::getsockopt(self.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &raw mut len)
        };
        assert_eq!(r, 0, "TCP_INFO: {}", io::Error::last_os_error());
        info[0]
    }

    /// Wait until the kernel has it in state `number`.
    pub fn wait_state(&self, number: u8) {
        wait_until("a state", || self.state() == number);
    }

    /// Local address.
    pub fn local(&self) -> SocketAddr {
        rustix::net::getsockname(self).expect("getsockname").try_into().expect("an IP address")
    }

    /// Cookie, as the JSON field `sock` has it.
    pub fn cookie(&self) -> String {
        format!("{:x}", sockopt::socket_cookie(self).expect("SO_COOKIE"))
    }

    /// Inode number, as `ss -e` prints it.
    pub fn inode(&self) -> u64 {
        rustix::fs::fstat(self).expect("fstat").st_ino
    }

    /// close().
    pub fn close(self) {}
}

impl Drop for Sock {
    fn drop(&mut self) {
        let _no_start = no_start();
        self.0 = None;
    }
}

impl AsFd for Sock {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_ref().expect("open until dropped").as_fd()
    }
}

impl AsRawFd for Sock {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// 127.0.0.1 with this port.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A listener and both ends of a connection to it, accepted.
pub struct Pair {
    /// Listens on the address.
    pub listener: Sock,
    /// Connected to it.
    pub client: Sock,
    /// Accepted by it.
    pub server: Sock,
}

/// Connect and accept at `addr`.
pub fn pair(ns: &Netns, addr: SocketAddr) -> Pair {
    let listener = Sock::listen(ns, addr, 16);
    let client = Sock::connected(ns, addr);
    let server = listener.accept();
    Pair { listener, client, server }
}

/// Close by FINs: `first` begins, `second` follows when it has seen that. What each has not read yet is read.
pub fn close_in_order(first: Sock, second: Sock) {
    first.shutdown();
    second.receive_all().expect("the end of the stream");
    second.close();
    first.receive_all().expect("the end of the stream");
    first.close();
}
