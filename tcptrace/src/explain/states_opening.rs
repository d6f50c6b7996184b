//! States up to an established connection.

use super::{Arc, Kind, Page, example, rfc};
use crate::model::State;

/// CLOSE: no connection.
pub const CLOSE: Page = Page {
    kind: Kind::State,
    name: "CLOSE",
    aliases: &["CLOSED", "UNCONN", "unconnected"],
    summary: "No connection: not begun, or over.",
    text: &[
        "A new socket is in CLOSE, and every connection ends there. The process can still hold the descriptor then: \
         what arrived before can be read, and errno tells how it ended.",
        "The kernel reports the change to CLOSE also where it keeps a small remnant in TIME_WAIT or FIN_WAIT2 \
         instead of the socket. tcptrace shows that as what it is, marked ~ because it was concluded.",
    ],
    sides: &[
        ("client", "CLOSE is what connect() starts from, and where a connect() that failed comes back to."),
        (
            "server",
            "CLOSE is what listen() starts from. A connection that the peer reset waits in CLOSE for its close().",
        ),
    ],
    enters: &[
        Arc(State::Listen, "close(), or shutdown() of the reading side"),
        Arc(
            State::SynSent,
            "refused (RST), unreachable (ICMP), no answer, no free local port, or close() before an answer",
        ),
        Arc(State::NewSynRecv, "RST from the peer, no answer to the SYN-ACKs, or the listener was closed"),
        Arc(State::SynRecv, "RST, timeout, or the listener was closed"),
        Arc(
            State::Established,
            "RST from either end, no answer to retransmits or keepalive probes, or killed (ss \
             -K)",
        ),
        Arc(State::FinWait1, "RST, or no answer to the FIN"),
        Arc(State::FinWait2, "RST, or the peer's FIN did not come in time"),
        Arc(State::CloseWait, "RST, timeout, or close() with data left unread"),
        Arc(State::LastAck, "the peer acknowledged the FIN; RST, or no answer to it"),
        Arc(State::Closing, "RST, or no answer to the FIN"),
        Arc(State::TimeWait, "its 60 seconds are over, or it was reused or reset before"),
    ],
    leaves: &[Arc(State::SynSent, "connect()"), Arc(State::Listen, "listen()")],
    healthy: "Sockets pass through it in an instant: ss hardly ever shows one.",
    trouble: &[
        "Descriptors of connections that are over pile up where a process never calls close() after an error. In \
         /proc/net/sockstat \"alloc\", which counts the whole host, is then far above \"inuse\" of all network \
         namespaces, and the process runs into its limit of open files (EMFILE).",
    ],
    look: &[
        ("tcptrace trace --state CLOSE", "every end, and why it ended so"),
        ("cat /proc/net/sockstat", "sockets in use, orphaned, in TIME_WAIT, allocated"),
    ],
    rfcs: &[rfc(9293, "3.3.2", "state machine"), rfc(9293, "3.10.7.1", "segments that arrive in CLOSED")],
    examples: &[example(
        "refused",
        "From CLOSE and back to it: nobody listens, and the RST that says so ends the attempt at once.",
    )],
    see: &["rst", "teardown", "TIME_WAIT"],
    ..Page::EMPTY
};

/// LISTEN: a listener.
pub const LISTEN: Page = Page {
    kind: Kind::State,
    name: "LISTEN",
    aliases: &["listening", "listener"],
    summary: "A listener: takes SYNs, hands connections to accept().",
    text: &[
        "A listener never becomes a connection. Each SYN makes a half-open request of its own (NEW_SYN_RECV), each \
         completed handshake a socket of its own, which waits in the accept queue until the process takes it.",
        "In ss, Recv-Q of a listener is the number of connections in its accept queue, Send-Q the queue's limit: the \
         smaller of listen()'s backlog and net.core.somaxconn at the time of listen().",
    ],
    sides: &[("server", "The only side that has it.")],
    enters: &[Arc(State::Close, "listen()")],
    leaves: &[
        Arc(State::NewSynRecv, "not the listener itself: a SYN came, and a half-open request begins"),
        Arc(State::SynRecv, "not the listener itself: so the kernel reports the birth of a child at the final ACK"),
        Arc(State::Close, "close(), or shutdown() of the reading side; connections in its accept queue are reset"),
    ],
    healthy: "One for each service, address and port; with SO_REUSEPORT one for each worker. Recv-Q 0 or close to \
     it.",
    trouble: &[
        "A Recv-Q that stays high: the process accepts too slowly. Above Send-Q the kernel drops SYNs and final \
         ACKs, and clients see timeouts of 1 s and more.",
        "A larger backlog helps only against bursts. Raise both listen()'s backlog and somaxconn, then restart the \
         service: the limit is taken at listen().",
    ],
    look: &[
        ("tcptrace queues", "both queues of every listener, and what became of SYNs"),
        ("ss -ltnp", "listeners, Recv-Q, Send-Q, processes"),
    ],
    sysctls: &["net.core.somaxconn", "net.ipv4.tcp_abort_on_overflow", "net.ipv4.tcp_migrate_req"],
    options: &[
        ("SO_REUSEADDR", "bind() although connections of the port are still in TIME_WAIT"),
        ("SO_REUSEPORT", "several listeners on one port; the kernel spreads SYNs over them"),
        ("TCP_DEFER_ACCEPT", "a connection enters the accept queue only with its first data"),
        ("TCP_FASTOPEN", "accept data in the SYN; the value bounds such requests"),
    ],
    rfcs: &[rfc(9293, "3.10.1", "OPEN call"), rfc(9293, "3.10.7.2", "segments that arrive in LISTEN")],
    examples: &[example(
        "close_by_server",
        "What a listener makes of a SYN, at the right: a request in NEW_SYN_RECV, and at the final ACK a socket. \
         The listener itself stays in LISTEN and has no part in it.",
    )],
    see: &["backlog", "half-open", "syncookies", "NEW_SYN_RECV"],
};

/// SYN_SENT: connect() waits.
pub const SYN_SENT: Page = Page {
    kind: Kind::State,
    name: "SYN_SENT",
    summary: "connect() sent a SYN and waits for the answer.",
    text: &[
        "The SYN is sent again after 1 s without an answer, then at growing intervals. With the default of 6 \
         retransmits connect() gives up after about two minutes with ETIMEDOUT, unless the program has a timeout of \
         its own.",
        "A closed port answers with a RST: ECONNREFUSED at once. A firewall that rejects answers with ICMP: \
         EHOSTUNREACH, ENETUNREACH or ECONNREFUSED at once. Silence means that the SYN or its answer is dropped on \
         the way, or that the server's accept queue is full.",
    ],
    sides: &[
        ("client", "The only side that has it, for one round trip."),
        ("server", "Shows NEW_SYN_RECV meanwhile, if the SYN arrived and was not dropped."),
    ],
    enters: &[Arc(State::Close, "connect()")],
    leaves: &[
        Arc(State::Established, "SYN-ACK; the final ACK is sent"),
        Arc(State::SynRecv, "a SYN without ACK: the peer connects to us at the same time (simultaneous open)"),
        Arc(
            State::Close,
            "refused (RST), unreachable (ICMP), no answer, no free local port, or close() before an answer",
        ),
    ],
    healthy: "Hardly any: each lasts a round trip. A trace shows microseconds inside a host, milliseconds in a data \
     centre.",
    trouble: &[
        "Many to one destination: it is down, a firewall drops without a word, or its accept queue overflows. \
         Handshakes of 1 s and more are retransmits that got through.",
        "Many to many destinations: a scan, malware, or a service discovery that hands out dead addresses.",
        "EADDRNOTAVAIL and only a moment in SYN_SENT: no local port is free for this destination.",
    ],
    look: &[
        ("tcptrace conns --state SYN_SENT --role client", "handshake times, and how each attempt ended"),
        ("ss -tnp state syn-sent", "who waits for whom now"),
    ],
    sysctls: &[
        "net.ipv4.tcp_syn_retries",
        "net.ipv4.tcp_syn_linear_timeouts",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_tw_reuse",
    ],
    options: &[
        ("TCP_SYNCNT", "SYN retransmits of this socket"),
        ("TCP_USER_TIMEOUT", "milliseconds after which an unanswered SYN fails, too"),
        ("SO_SNDTIMEO", "how long a blocking connect() waits; then EINPROGRESS"),
        ("IP_BIND_ADDRESS_NO_PORT", "bind() to an address picks no port: connect() does, and knows the destination"),
    ],
    rfcs: &[
        rfc(9293, "3.5", "establishing a connection"),
        rfc(9293, "3.10.7.3", "segments that arrive in SYN-SENT"),
        rfc(6298, "2", "initial retransmission timeout of 1 s"),
        rfc(1122, "4.2.3.5", "connection failures: a SYN is tried for at least 3 minutes (Linux: about 2)"),
    ],
    examples: &[example(
        "no_answer",
        "Nothing comes back: the SYN is sent again, each time after twice the wait, until connect() gives up. \
         Here after 2 retransmits (tcp_syn_retries).",
    )],
    see: &["handshake", "NEW_SYN_RECV", "backlog", "rst"],
    ..Page::EMPTY
};

/// NEW_SYN_RECV: a half-open request.
pub const NEW_SYN_RECV: Page = Page {
    kind: Kind::State,
    name: "NEW_SYN_RECV",
    aliases: &["request", "request sock"],
    summary: "Half-open: SYN came, SYN-ACK sent, final ACK awaited.",
    text: &[
        "Linux keeps a half-open connection as a small request, not as a socket; it belongs to the listener and \
         counts in its SYN queue. RFC 9293 calls the state SYN-RECEIVED, and ss shows it as SYN-RECV.",
        "The SYN-ACK is sent again after 1 s, 2 s, 4 s and so on. With the default of 5 retransmits the request is \
         dropped after 63 s. When a SYN queue is more than half full, old requests get fewer retransmits.",
        "With a full accept queue the final ACK is ignored: the client believes that it is connected, the request \
         stays half-open and may complete at a later retransmit.",
    ],
    sides: &[
        ("server", "The only side that has it."),
        ("client", "Is in SYN_SENT until the SYN-ACK arrives, then in ESTABLISHED."),
    ],
    enters: &[Arc(State::Listen, "a SYN reached the listener, which stays in LISTEN")],
    leaves: &[
        Arc(State::SynRecv, "final ACK: the child socket is born"),
        Arc(State::Close, "RST from the peer, no answer to the SYN-ACKs, or the listener was closed"),
    ],
    healthy: "A few for each busy listener: its rate of new connections times the clients' round-trip time.",
    trouble: &[
        "Thousands whose SYN-ACKs go unanswered are a SYN flood: made-up sources that will never answer. Once the \
         queue is full, SYN cookies take over, and the number stays flat at the limit: look at the rates, not at the \
         depth.",
        "Many from known clients: SYN-ACKs are lost on the way back (asymmetric route, firewall), the accept queue \
         is full, or TCP_DEFER_ACCEPT waits for data on purpose.",
    ],
    look: &[
        ("tcptrace trace --requests", "what became of each request"),
        ("tcptrace queues", "depth, peak and limit of both queues"),
        ("ss -tn state syn-recv", "half-open requests now"),
    ],
    sysctls: &[
        "net.ipv4.tcp_synack_retries",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_max_syn_backlog",
        "net.core.somaxconn",
        "net.ipv4.tcp_abort_on_overflow",
    ],
    options: &[
        ("TCP_DEFER_ACCEPT", "the final ACK alone does not complete it: data must come"),
        ("TCP_SYNCNT", "on the listener: SYN-ACK retransmits"),
    ],
    rfcs: &[
        rfc(9293, "3.3.2", "SYN-RECEIVED"),
        rfc(4987, "2", "the SYN flooding attack"),
        rfc(4987, "3", "common defenses"),
    ],
    examples: &[example(
        "half_open",
        "The final ACK is lost: the client is ESTABLISHED, the server still half-open. A second later it sends \
         the SYN-ACK again, and the answer completes the handshake.",
    )],
    see: &["half-open", "syncookies", "backlog", "SYN_RECV"],
};

/// SYN_RECV: a full socket on its way to ESTABLISHED.
pub const SYN_RECV: Page = Page {
    kind: Kind::State,
    name: "SYN_RECV",
    aliases: &["SYN-RECEIVED", "SYN_RCVD"],
    summary: "A full socket just before ESTABLISHED.",
    text: &[
        "On Linux this is a short state: the child of a listener is born in it when the final ACK arrives, and is \
         ESTABLISHED some microseconds later. The long wait for that ACK is NEW_SYN_RECV, which ss shows as \
         SYN-RECV, too.",
        "It lasts longer in two cases: TCP Fast Open, where the child exists from the SYN on, and a simultaneous \
         open.",
    ],
    sides: &[
        ("server", "The child of a listener, between the final ACK and ESTABLISHED; with Fast Open from the SYN on."),
        ("client", "Only in a simultaneous open: both ends sent a SYN."),
    ],
    enters: &[
        Arc(State::NewSynRecv, "final ACK: the child socket is born"),
        Arc(State::Listen, "the same, as the kernel reports it; also a SYN with a Fast Open cookie"),
        Arc(State::SynSent, "a SYN without ACK: the peer connects to us at the same time (simultaneous open)"),
    ],
    leaves: &[
        Arc(State::Established, "final ACK (or, in a simultaneous open, SYN-ACK)"),
        Arc(State::FinWait1, "Fast Open: close() or shutdown() before the final ACK"),
        Arc(State::CloseWait, "Fast Open: FIN from the peer before the handshake is over"),
        Arc(State::Close, "RST, timeout, or the listener was closed"),
    ],
    healthy: "None that ss would catch. What ss lists under SYN-RECV are requests: see NEW_SYN_RECV.",
    trouble: &["Many real ones mean Fast Open clients whose final ACKs do not come: lost on the way, or an attack."],
    look: &[("tcptrace trace --state SYN_RECV", "each child as it is born")],
    sysctls: &["net.ipv4.tcp_fastopen", "net.ipv4.tcp_synack_retries"],
    options: &[("TCP_FASTOPEN", "on the listener: how many Fast Open requests may be pending")],
    rfcs: &[
        rfc(9293, "3.3.2", "SYN-RECEIVED"),
        rfc(9293, "3.5", "simultaneous connection synchronization (figure 7)"),
        rfc(7413, "4.2", "Fast Open protocol"),
    ],
    examples: &[
        example(
            "fast_open",
            "With Fast Open the server's socket is in SYN_RECV from the SYN, which brings data, to the final ACK.",
        ),
        example("simultaneous_open", "Two SYNs cross: both ends go through SYN_RECV, and nobody listens."),
    ],
    see: &["NEW_SYN_RECV", "handshake", "half-open"],
};

/// ESTABLISHED: data flows.
pub const ESTABLISHED: Page = Page {
    kind: Kind::State,
    name: "ESTABLISHED",
    aliases: &["ESTAB", "connected"],
    summary: "The handshake is over: both ends can send.",
    text: &[
        "The kernel establishes a connection without the process: it is ESTABLISHED, and can already receive data, \
         while it waits in the accept queue. Such connections have no process in ss -p.",
        "Nothing is sent on an idle connection. A peer that loses power or its network leaves it ESTABLISHED for \
         ever, until something is sent (then retransmits end it after about 15 minutes by default) or keepalive \
         finds out.",
    ],
    sides: &[
        ("client", "From the SYN-ACK on, one-way delay earlier than the server."),
        ("server", "From the final ACK on."),
    ],
    enters: &[
        Arc(State::SynSent, "SYN-ACK; the final ACK is sent"),
        Arc(State::SynRecv, "final ACK (or, in a simultaneous open, SYN-ACK)"),
    ],
    leaves: &[
        Arc(State::FinWait1, "this end closes first: close(), shutdown() of the writing side, or the process ends"),
        Arc(State::CloseWait, "the peer closes first: its FIN arrived"),
        Arc(State::Close, "RST from either end, no answer to retransmits or keepalive probes, or killed (ss -K)"),
    ],
    healthy: "Most of all sockets. As many as clients and pools explain, and steady.",
    trouble: &[
        "A number that only grows: a pool without a bound, clients that never close, or peers that are gone. Turn \
         keepalive or idle timeouts on; the first limit reached is that of open files (EMFILE).",
        "Recv-Q high: this process does not read. Send-Q high: the peer does not read, or the network loses \
         segments.",
    ],
    look: &[
        ("tcptrace conns", "each connection when it is over; at Ctrl-C those that are open"),
        ("ss -tnpo state established", "sockets with their timers"),
    ],
    sysctls: &[
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_retries2",
        "net.ipv4.tcp_rto_max_ms",
        "net.ipv4.tcp_mem",
    ],
    options: &[
        ("SO_KEEPALIVE", "probe an idle peer"),
        ("TCP_USER_TIMEOUT", "milliseconds that sent data may stay unacknowledged"),
    ],
    rfcs: &[
        rfc(9293, "3.8", "data communication"),
        rfc(9293, "3.8.3", "connection failures"),
        rfc(9293, "3.10.7.4", "segments that arrive in other states"),
    ],
    examples: &[example(
        "long",
        "From the SYN-ACK on at the left, from the final ACK on at the right, to the first FIN. In between 50 \
         requests and answers.",
    )],
    see: &["handshake", "keepalive", "long-connections", "teardown"],
};
