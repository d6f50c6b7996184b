//! Rules of `watch` about listeners: floods, full queues, processes that do not accept, clients that never get in.

use super::{Kind, Page, rfc};

/// SYNs that nobody goes on with.
pub const SYN_FLOOD: Page = Page {
    kind: Kind::Rule,
    name: "syn-flood",
    aliases: &["flood"],
    summary: "SYNs come in numbers, and nobody answers the SYN-ACKs.",
    text: &[
        "Measured per listener, interval by interval: SYNs that were answered (queued, or with a cookie), SYNs that \
         found no room, and handshakes that were completed. Replies take a round trip, so they are looked for until \
         half a second after the SYNs. The queue's depth is no measure: with cookies it stays at the limit however \
         many come.",
        "It fires when more SYN-ACKs a second stay unanswered than unanswered, and fewer handshakes than \
         completed are completed, or growth times as many as usual stay unanswered; when SYNs find no room and \
         those that fill the queue do not go on; and when the queue is held full by few SYNs a second from more \
         than sources addresses, none of which ever answers.",
        "It does not fire for a burst of clients, who answer a round trip later; for a full accept queue, where \
         final ACKs come and are dropped (accept-overflow); for a listener with TCP_DEFER_ACCEPT, where bare ACKs \
         are dropped on purpose; for a few addresses that hear no SYN-ACK (half-open-clients).",
        "Without hooks on functions, SYNs that were not queued are known from the counters of the network namespace \
         and the listener's own sk_drops alone; sources are then estimated from those that were queued.",
    ],
    trouble: &[
        "SYNs are dropped: switch cookies on, so that clients get in while the queue is full.",
        "Cookies answer: clients get in. Have the provider filter the flood, or limit SYNs in nftables; made-up sources \
         cannot be blocked one by one, a few real ones can.",
        "A slow flood: fewer SYN-ACK retransmits free each request sooner.",
    ],
    look: &[
        ("tcptrace queues", "SYNs, cookies, drops, an estimate of distinct sources"),
        ("nstat -az TcpExtSyncookiesSent TcpExtTCPReqQFullDrop", "of the network namespace"),
    ],
    sysctls: &["net.ipv4.tcp_syncookies", "net.ipv4.tcp_synack_retries", "net.core.somaxconn"],
    rfcs: &[rfc(4987, "2", "the SYN flooding attack"), rfc(4987, "3", "common defenses")],
    see: &["half-open", "syncookies", "half-open-clients", "backlog-too-small"],
    ..Page::EMPTY
};

/// A full accept queue.
pub const ACCEPT_OVERFLOW: Page = Page {
    kind: Kind::Rule,
    name: "accept-overflow",
    aliases: &["listen-overflow"],
    summary: "Clients are turned away: a listener's accept queue is full.",
    text: &[
        "Measured over five seconds: SYNs and final ACKs that met a full accept queue, and as far as single requests \
         are seen, how many clients sent them, for a client sends again. A SYN that is dropped costs the client a \
         second; after a final ACK that is dropped it believes that it is connected, and waits for an answer.",
        "It fires at the first of them, and is critical from critical on, or when the process is stuck: clients \
         wait and it has accepted nothing for stuck. It is slow when it accepts and the queue stays full, and keeps up \
         when the queue was full for a moment only; then backlog-too-small says how long it would have to be.",
        "It does not fire for a queue that is full to its last place, nor for SYNs that were dropped for another \
         reason. Without hooks on functions, dropped SYNs are known from ListenOverflows and sk_drops: where those \
         do not tell the reason, they are told as other drops, and of their clients nothing is known.",
    ],
    trouble: &[
        "Stuck: look at what the accepting thread waits for, and at RLIMIT_NOFILE: accept() fails with EMFILE at it.",
        "Slow: more workers, no slow work between two accept() calls. A longer queue only makes clients wait longer.",
        "With cookies, a client whose final ACK meets a full queue is forgotten, and gets in only when it sends data.",
    ],
    look: &[
        ("tcptrace queues", "both queues, drops, how long connections wait for accept()"),
        ("ss -ltn", "Recv-Q: accept queue; Send-Q: its limit"),
        ("nstat -az TcpExtListenOverflows TcpExtListenDrops", "of the network namespace"),
    ],
    sysctls: &["net.core.somaxconn", "net.ipv4.tcp_abort_on_overflow"],
    options: &[("listen(fd, backlog)", "the limit that the program asks for")],
    rfcs: &[rfc(9293, "3.9.1.1", "OPEN call")],
    see: &["backlog", "backlog-too-small", "dead-listener", "LISTEN"],
    ..Page::EMPTY
};

/// Queues that are too short.
pub const BACKLOG_TOO_SMALL: Page = Page {
    kind: Kind::Rule,
    name: "backlog-too-small",
    aliases: &["small backlog", "reuseport-imbalance"],
    summary: "Bursts fill a queue of a listener whose process keeps up.",
    text: &[
        "Measured over a minute: times in which the accept queue was full. One that is over within two seconds, with no \
         more than a quarter of the queue left, is a burst; a longer one is a process that does not keep up, and \
         speaks against this rule. The limit that would have done is the deepest that the queue would have been, \
         rounded up to a power of two.",
        "It fires when a burst turned clients away, and when bursts of them filled the queue to its last place. It \
         also fires when a burst of clients, who complete their handshakes, fills the SYN queue, which has the same \
         limit.",
        "In a SO_REUSEPORT group it fires for a listener that gets share times its even share (75 % at most) and is full, or lets \
         clients wait for wait, while the others' queues are no more than half full: then not the limit is wrong but \
         the spread.",
        "It does not fire for a process that is slow or stuck, nor for a flood. accept-overflow beside it means that \
         clients were turned away.",
    ],
    trouble: &[
        "listen()'s argument is the limit: raise the server's setting for the backlog.",
        "somaxconn is the limit: raise it, and restart the server: it is applied at listen().",
        "tcp_abort_on_overflow resets clients whose final ACK is dropped. They would get in a second later without it.",
        "Uneven: let all workers accept from one listener, or spread with SO_ATTACH_REUSEPORT_EBPF.",
    ],
    look: &[("tcptrace queues", "peak, limit, backlog, somaxconn, and which of them bites")],
    sysctls: &["net.core.somaxconn", "net.ipv4.tcp_abort_on_overflow", "net.ipv4.tcp_migrate_req"],
    options: &[
        ("listen(fd, backlog)", "the limit that the program asks for"),
        ("SO_REUSEPORT", "listeners of a group have queues of their own; a hash of both ends picks one"),
        ("SO_ATTACH_REUSEPORT_EBPF", "a program picks one in place of the hash"),
    ],
    see: &["backlog", "accept-overflow", "LISTEN"],
    ..Page::EMPTY
};

/// Nobody accepts.
pub const DEAD_LISTENER: Page = Page {
    kind: Kind::Rule,
    name: "dead-listener",
    aliases: &["never-accepts"],
    summary: "Connected clients wait, and the process accepts nobody.",
    text: &[
        "Measured per listener: for how long connections wait in the accept queue without one being taken from it. \
         Their clients are connected and may have sent their requests.",
        "It fires after never where nothing was accepted since listen(), and after stopped where something was, \
         or where the trace began later than listen(). It is critical when the queue is full.",
        "It does not fire for a listener that nobody asks, such as one that systemd holds for a service that is \
         started on demand, nor while anything at all is accepted from it. Half-open requests, those that \
         TCP_DEFER_ACCEPT holds back included, wait for the client, not for the process.",
    ],
    trouble: &[
        "Never: the start of the server hangs, the listener is not in its event loop, or the socket was inherited by a \
         process that does not use it and should close it.",
        "Stopped: a lock, a slow call in the accepting thread, or RLIMIT_NOFILE (accept() fails with EMFILE).",
        "One of a SO_REUSEPORT group: the kernel goes on giving it its share. Close what is not served.",
    ],
    look: &[
        ("tcptrace queues", "len of the accept queue, and accepted"),
        ("strace -f -e trace=accept,accept4,epoll_wait -p PID", "whether it asks for connections"),
        ("ls /proc/PID/fd | wc -l", "descriptors in use"),
    ],
    options: &[("SO_REUSEPORT", "each listener of a group gets a share, whether it is served or not")],
    see: &["accept-overflow", "backlog", "LISTEN"],
    ..Page::EMPTY
};

/// Clients that cannot get in.
pub const HALF_OPEN_CLIENTS: Page = Page {
    kind: Kind::Rule,
    name: "half-open-clients",
    aliases: &["asymmetric-route"],
    summary: "A few addresses send SYNs and never complete a handshake.",
    text: &[
        "Measured per address: requests to which the SYN-ACK was sent again in vain, for three and a half seconds or \
         until they timed out. One that is answered after all, or ended by a RST, clears its address: then SYN-ACKs \
         arrive.",
        "It fires when an address has made attempts of them within a minute and completed none. It names the five \
         addresses with the most.",
        "It does not fire when more than sources addresses are silent or more than flood requests a second stay \
         unanswered (syn-flood), for clients whose final ACK met a full accept queue (accept-overflow), for a \
         listener with TCP_DEFER_ACCEPT, for a path that loses some SYN-ACKs, nor for a client that is gone after \
         one or two SYNs.",
    ],
    trouble: &[
        "Others connect: look at the way back to these addresses. A firewall that did not see the SYN drops the SYN-ACK: an \
         asymmetric route, a failover without shared state.",
        "Nobody connects: look at this host's own output rules and default route first.",
        "The client never sends its SYN again: it hears the SYN-ACK, and its final ACK is lost on the way here.",
    ],
    look: &[
        ("tcpdump -ni any 'host ADDRESS and tcp port PORT'", "what comes and what leaves, and through which device"),
        ("ip route get ADDRESS", "the way back"),
        ("tcptrace trace --requests", "each request and what became of it"),
    ],
    sysctls: &["net.ipv4.tcp_synack_retries"],
    options: &[("TCP_SYNCNT", "on the listener: SYN-ACK retransmits")],
    rfcs: &[rfc(9293, "3.5.1", "half-open connections and other anomalies")],
    see: &["half-open", "NEW_SYN_RECV", "syn-flood"],
    ..Page::EMPTY
};
