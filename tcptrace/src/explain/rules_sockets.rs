//! Rules about connections that are not closed, and about ports that run out.

use super::{Kind, Page, rfc};

/// close-wait-leak.
pub const CLOSE_WAIT_LEAK: Page = Page {
    kind: Kind::Rule,
    name: "close-wait-leak",
    summary: "A process never closes what its peers have closed.",
    text: &[
        "Connections in CLOSE_WAIT are put together by process and by cause: those that it opened by the address and port that they go \
         to, those that it accepted by its own port. A connection counts when it came to CLOSE_WAIT during the trace, has been there for 30 s, \
         and nothing was read from it or sent on it for as long: what it holds is read from the kernel every few seconds.",
        "It fires when 20 of them are there and they came one after the other, for 15 s at least. The growth is that of the last minute \
         (least squares), or since the latest 20 if they came more slowly; a leak of one a second is told after 50 s. It is resolved when they \
         have been closed, be it with their process. 900 are critical: a process may open 1024 descriptors, unless somebody changed that.",
        "It stays silent while the process still reads what came before the FIN, or sends (a half-close on purpose); when a server restarts and \
         all connections of a pool end at once; when about as many are closed late as wait, as by a slow reader or a pool that is looked \
         after now and then: then only those count that wait twice as long as any of these. What was there at the start is counted, but \
         does not make it fire.",
        "Of each finding: how many, the oldest, the growth, bytes that nobody has read, how many were read to the end of the stream \
         (read_to_the_end: the process knows, and forgot), descriptors, and the peers with the most.",
    ],
    trouble: &[
        "read_to_the_end is high: one path in the program (an error, an early return, a timeout) leaves without close(). The descriptors \
         say which connections; their stack or log says which path.",
        "read_to_the_end is low: nobody reads them any more. They fell out of the event loop, or the thread that should read hangs.",
        "Opened by this process: responses or connections are not given back to their pool, or the pool keeps what its server has closed.",
    ],
    look: &[
        (
            "ss -tnpe state close-wait",
            "all of them with process and descriptor; Recv-Q is what is not read, 1 the FIN alone",
        ),
        ("tcptrace watch --stacks", "with the function that opened or accepted them"),
        ("tcptrace conns --state CLOSE_WAIT", "how long each took to be closed"),
        ("ls -l /proc/PID/fd | wc -l", "how near the process is to its limit of descriptors"),
    ],
    options: &[("EPOLLRDHUP", "epoll_ctl(2): wakes when the peer has closed its sending side")],
    rfcs: &[rfc(9293, "3.6", "closing a connection")],
    see: &["CLOSE_WAIT", "fin-wait2-orphans"],
    ..Page::EMPTY
};

/// fin-wait2-orphans.
pub const FIN_WAIT2_ORPHANS: Page = Page {
    kind: Kind::Rule,
    name: "fin-wait2-orphans",
    summary: "A peer never closes what this host has closed.",
    text: &[
        "Connections that no process has any more and that wait for the peer's FIN are counted by peer, from the kernel's tables, every few \
         seconds. It fires when one peer leaves 50 waiting, and more than this host closes within 5 s, for 5 s.",
        "It stays silent for a peer that answers each FIN, only late: those that wait are then what is closed within a round trip. Many peers \
         with one or two each, as browsers leave them, are none of its concern.",
        "Of the whole host: it also fires when sockets without a process come near tcp_max_orphans, beyond which the kernel resets them. That \
         is known where the first network namespace of the host is watched.",
    ],
    trouble: &[
        "The peer has a close-wait-leak: look for CLOSE_WAIT there. Here each costs a few hundred bytes until tcp_fin_timeout is over.",
        "Near tcp_max_orphans: orphans hold send buffers. Many in FIN_WAIT1 mean peers that take no data.",
    ],
    look: &[
        ("ss -tn state fin-wait-2", "the peers"),
        ("nstat -az TcpExtTCPAbortOnMemory", "orphans that the kernel reset"),
        ("cat /proc/net/sockstat", "orphan: sockets without a process"),
    ],
    sysctls: &["net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_orphan_retries"],
    options: &[("TCP_LINGER2", "how long one connection may wait in FIN_WAIT2 after close()")],
    rfcs: &[rfc(9293, "3.6", "closing a connection")],
    see: &["FIN_WAIT2", "close-wait-leak"],
    ..Page::EMPTY
};

/// time-wait-pressure.
pub const TIME_WAIT_PRESSURE: Page = Page {
    kind: Kind::Rule,
    name: "time-wait-pressure",
    summary: "The kernel has no room for more TIME_WAIT, or soon will.",
    text: &[
        "The kernel's count of timewait sockets of a network namespace against tcp_max_tw_buckets, and its counter TCPTimeWaitOverflow. It fires \
         (info) at 90 %, and (warning) when connections went without TIME_WAIT within ten seconds because there was no room.",
        "Of each finding: how many, the limit, the growth over the last minute, and which processes close first, which is who gets TIME_WAIT.",
        "It stays silent where many are in TIME_WAIT and there is room: that is what TIME_WAIT is for. Where tcp_max_tw_buckets is 0 somebody \
         wants none.",
    ],
    trouble: &[
        "A connection without TIME_WAIT may be hit by late segments of the one before it with the same ends. That is rare; the overflow \
         mostly says that this host opens and closes far too many connections.",
        "A client: use connections again. A server: let clients close first, and keep connections open longer.",
    ],
    look: &[
        ("ss -s", "timewait: how many there are"),
        ("nstat -az TcpExtTCPTimeWaitOverflow", "how many had no room since the start"),
        ("tcptrace conns --by comm,rport", "who makes so many connections"),
    ],
    sysctls: &["net.ipv4.tcp_max_tw_buckets", "net.ipv4.tcp_tw_reuse"],
    rfcs: &[rfc(9293, "3.6.1", "half-closed connections"), rfc(6191, "2", "TIME_WAIT and timestamps")],
    see: &["TIME_WAIT", "ephemeral-ports"],
    ..Page::EMPTY
};

/// ephemeral-ports.
pub const EPHEMERAL_PORTS: Page = Page {
    kind: Kind::Rule,
    name: "ephemeral-ports",
    summary: "connect() finds no free local port, or soon will not.",
    text: &[
        "Connections that this host opens are counted by local address, destination and port: each needs a local port of its own there, out of \
         ip_local_port_range. Those in TIME_WAIT keep theirs for 60 s, unless tcp_tw_reuse lets connect() take them. It fires (warning) at 90 %, \
         and (critical) when calls of connect() found none (EADDRNOTAVAIL): the kernel reports a socket that goes from SYN_SENT to CLOSE without a \
         local port, an error or a segment.",
        "It stays silent while the same ports serve several destinations, which they may, and for calls that fail otherwise. What bind() says \
         when it finds no port (EADDRINUSE) changes no state and cannot be seen.",
        "Settings of a network namespace are read every few seconds; where they are not known only calls that failed count.",
    ],
    trouble: &[
        "Most ports are in TIME_WAIT: a connection for each request. Use connections again; tcp_tw_reuse=1 is the way out for today.",
        "Most are open: a pool without a limit, or a proxy with one address before one busy service. More addresses, or more ports of the service.",
    ],
    look: &[
        ("ss -tan 'dst ADDRESS:PORT'", "what takes the ports"),
        ("tcptrace conns --by comm,raddr,rport", "who opens so many"),
    ],
    sysctls: &["net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_tw_reuse"],
    options: &[("IP_BIND_ADDRESS_NO_PORT", "bind() to an address leaves the port to connect(), which may share it")],
    rfcs: &[rfc(6056, "3", "choosing ephemeral ports")],
    see: &["TIME_WAIT", "time-wait-pressure"],
    ..Page::EMPTY
};
