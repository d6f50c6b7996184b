//! Terms about beginning, and about how long connections live.

use super::{Kind, Page, example, rfc};

/// The three-way handshake.
pub const HANDSHAKE: Page = Page {
    kind: Kind::Term,
    name: "handshake",
    aliases: &["three-way handshake", "3whs", "simultaneous-open", "syn"],
    summary: "SYN, SYN-ACK, ACK: how both ends agree to talk.",
    text: &[
        "The client sends a SYN with its initial sequence number, the server answers with a SYN-ACK that has its own \
         and acknowledges the client's, and the client acknowledges that. Initial numbers are hard to guess on \
         purpose. The two SYNs also carry the options: MSS, window scale, SACK, timestamps.",
        "The client is ESTABLISHED after one round trip, the server half a round trip later; both sides' handshake \
         times in tcptrace are close to the RTT. 1 s more means that a SYN or SYN-ACK was lost or dropped and sent \
         again.",
        "TCP Fast Open lets the SYN of a later connection carry data, with a cookie from an earlier one. In a \
         simultaneous open both ends send a SYN, and both go through SYN_RECV; no listener is needed.",
    ],
    sides: &[
        ("client", "CLOSE, SYN_SENT, ESTABLISHED."),
        ("server", "NEW_SYN_RECV at the SYN; SYN_RECV and ESTABLISHED at the final ACK; then the accept queue."),
    ],
    healthy: "One round trip, no SYN or SYN-ACK sent again.",
    trouble: &[
        "RST in answer to the SYN: nobody listens there (refused).",
        "No answer: a firewall drops it, the host is down, or the server's accept queue is full.",
        "Sent again now and then: loss on the path, or bursts that overflow the accept queue.",
    ],
    look: &[
        ("tcptrace conns --json", "handshake_us, syn_retrans, synack_retrans"),
        ("nstat -az TcpExtListenOverflows TcpExtListenDrops", "accept queue overflows, dropped SYNs"),
    ],
    sysctls: &[
        "net.ipv4.tcp_syn_retries",
        "net.ipv4.tcp_synack_retries",
        "net.ipv4.tcp_fastopen",
        "net.ipv4.tcp_timestamps",
        "net.ipv4.tcp_sack",
        "net.ipv4.tcp_window_scaling",
    ],
    options: &[
        ("TCP_SYNCNT", "SYN retransmits of this socket"),
        ("TCP_FASTOPEN_CONNECT", "connect() waits with the SYN for the first data"),
        ("TCP_DEFER_ACCEPT", "accept() returns connections only with their first data"),
    ],
    rfcs: &[
        rfc(9293, "3.5", "establishing a connection"),
        rfc(9293, "3.4.1", "initial sequence number selection"),
        rfc(6528, "3", "sequence numbers that are hard to guess"),
        rfc(7413, "3", "Fast Open"),
        rfc(7323, "2", "window scale option"),
        rfc(6298, "2", "initial retransmission timeout of 1 s"),
    ],
    examples: &[example(
        "close_by_client",
        "The first three segments. Each end's number is acknowledged plus one, for a SYN takes one.",
    )],
    see: &["half-open", "backlog", "SYN_SENT", "flags"],
    ..Page::EMPTY
};

/// Half-open connections.
pub const HALF_OPEN: Page = Page {
    kind: Kind::Term,
    name: "half-open",
    aliases: &["half open connection", "syn flooding"],
    summary: "An incomplete handshake: the final ACK is awaited.",
    text: &[
        "Linux keeps it as a request of the listener, in state NEW_SYN_RECV, until the final ACK, a RST or the last \
         SYN-ACK's timeout: 63 s with the default of 5 retransmits.",
        "A SYN flood fills the SYN queue with requests from made-up sources. When it is full, SYN cookies answer \
         without keeping anything; with cookies switched off, further SYNs are dropped.",
        "RFC 9293 uses the word for something else, too: a connection that one end has lost (a crash, a power \
         failure) and the other still believes in. That one shows as ESTABLISHED; keepalive or the next data finds \
         it out.",
    ],
    sides: &[
        ("server", "Has the request, and pays for it."),
        (
            "client",
            "In SYN_SENT, or in ESTABLISHED already if its final ACK was lost or ignored. In a flood there is none.",
        ),
    ],
    healthy: "The rate of new connections times their round-trip time: a few, for milliseconds each.",
    trouble: &[
        "Many that time out: a flood, or SYN-ACKs that do not reach the clients.",
        "Many that complete late: the accept queue is full when the final ACK comes.",
    ],
    look: &[
        ("tcptrace queues", "SYN queue, outcomes, estimated number of sources"),
        ("tcptrace trace --requests", "each request and what became of it"),
        ("nstat -az TcpExtTCPReqQFullDrop TcpExtTCPReqQFullDoCookies", "full SYN queues"),
    ],
    sysctls: &[
        "net.ipv4.tcp_synack_retries",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_max_syn_backlog",
        "net.core.somaxconn",
    ],
    options: &[("TCP_SYNCNT", "on the listener: SYN-ACK retransmits")],
    rfcs: &[
        rfc(9293, "3.5.1", "half-open connections and other anomalies"),
        rfc(4987, "2", "the SYN flooding attack"),
        rfc(4987, "3", "common defenses"),
    ],
    examples: &[example(
        "half_open",
        "Half-open at the right from the SYN on. The first final ACK is lost, so it lasts until the SYN-ACK was \
         sent again.",
    )],
    see: &["NEW_SYN_RECV", "syncookies", "backlog"],
    ..Page::EMPTY
};

/// The queues of a listener.
pub const BACKLOG: Page = Page {
    kind: Kind::Term,
    name: "backlog",
    aliases: &["accept-queue", "syn-queue", "somaxconn", "listen-queue", "overflow"],
    summary: "How many may wait: for accept(), and for the final ACK.",
    text: &[
        "A listener has two queues: the SYN queue of half-open requests and the accept queue of established \
         connections that the process has not taken yet. One number bounds both: the smaller of listen()'s backlog \
         and net.core.somaxconn, taken when listen() is called.",
        "The accept queue is full when it holds more than that number: a backlog of 4 has room for 5. A full accept \
         queue makes the kernel drop new SYNs and ignore final ACKs; clients retry after 1 s and more. With \
         tcp_abort_on_overflow=1 the final ACK is answered with a RST instead.",
        "When the SYN queue is full, cookies are sent (tcp_syncookies) or SYNs are dropped. tcp_max_syn_backlog \
         matters only with cookies switched off.",
    ],
    sides: &[
        ("server", "Sees ListenOverflows and ListenDrops grow; the process itself notices nothing."),
        ("client", "Sees connect() take 1 s or more, or succeed while the first answer does not come."),
    ],
    healthy: "Both queues near 0, peaks well below the limit.",
    trouble: &[
        "A peak at the limit during bursts only: raise the backlog and somaxconn, then restart the service.",
        "Full all the time: the process accepts too slowly. More room only makes the clients wait longer.",
    ],
    look: &[
        ("tcptrace queues", "length, peak, limit, and whether listen() or somaxconn set the limit"),
        ("ss -ltn", "Recv-Q: accept queue; Send-Q: its limit"),
        ("nstat -az TcpExtListenOverflows TcpExtListenDrops", "the kernel's own counters"),
    ],
    sysctls: &[
        "net.core.somaxconn",
        "net.ipv4.tcp_max_syn_backlog",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_abort_on_overflow",
    ],
    options: &[
        ("listen(fd, backlog)", "the limit that the program asks for; may be called again with another"),
        ("SO_REUSEPORT", "several listeners share the work, each with queues of its own"),
    ],
    rfcs: &[rfc(9293, "3.9.1.1", "OPEN call"), rfc(4987, "3.2", "increasing the backlog")],
    examples: &[example(
        "backlog",
        "The accept queue is full when the SYN comes: it is dropped without a word. By the time the client sends \
         it again there is room.",
    )],
    see: &["LISTEN", "half-open", "syncookies"],
    ..Page::EMPTY
};

/// SYN cookies.
pub const SYNCOOKIES: Page = Page {
    kind: Kind::Term,
    name: "syncookies",
    aliases: &["syncookie", "cookie"],
    summary: "A full SYN queue: SYNs are answered and not remembered.",
    text: &[
        "The server hides what it must know in the sequence number of its SYN-ACK: a keyed hash of addresses and \
         ports, a counter that moves each minute, and an approximation of the MSS. The final ACK brings it back; if \
         it is right, the connection is made from it.",
        "Window scale, SACK and ECN survive only if the client uses timestamps, which carry them. Without a request \
         nothing is sent again: if the SYN-ACK is lost, the client has to send its SYN again.",
        "Cookies do not help a full accept queue: SYNs are dropped then in any case.",
    ],
    sides: &[
        ("server", "Sends cookies instead of queueing; logs \"Possible SYN flooding\" once for each listener."),
        ("client", "Notices nothing but, without timestamps, a smaller window."),
    ],
    healthy: "None sent. They are a fallback for floods, not for high load.",
    trouble: &[
        "Sent and hardly any come back valid: a flood from made-up sources, and cookies do their work.",
        "Sent and most come back valid: real clients, and a backlog that is too small. Raise the backlog and \
         somaxconn.",
    ],
    look: &[
        ("tcptrace queues", "cookies sent and accepted, for each listener"),
        ("nstat -az TcpExtSyncookiesSent TcpExtSyncookiesRecv TcpExtSyncookiesFailed", "of the network namespace"),
    ],
    sysctls: &["net.ipv4.tcp_syncookies", "net.core.somaxconn", "net.ipv4.tcp_timestamps"],
    rfcs: &[rfc(4987, "3.6", "SYN cookies"), rfc(7323, "3", "timestamps option")],
    examples: &[example(
        "cookies",
        "The SYN-ACK is a cookie: the server keeps nothing, and makes the connection from the ACK alone. What \
         came before has no time there.",
    )],
    see: &["half-open", "backlog", "NEW_SYN_RECV"],
    ..Page::EMPTY
};

/// Keepalive probes.
pub const KEEPALIVE: Page = Page {
    kind: Kind::Term,
    name: "keepalive",
    aliases: &["keep-alives", "so_keepalive"],
    summary: "Probes on an idle connection: is the peer still there?",
    text: &[
        "Off unless the program sets SO_KEEPALIVE. After tcp_keepalive_time idle seconds the kernel sends a probe \
         without data, then one every tcp_keepalive_intvl seconds. After tcp_keepalive_probes without an answer the \
         connection ends with ETIMEDOUT: with the defaults 2 hours and 11 minutes after the last sign of life.",
        "A peer that restarted answers with a RST: ECONNRESET at once. While sent data is unacknowledged there are \
         no probes; then retransmits decide (tcp_retries2).",
        "It also keeps the entries of firewalls, NAT and load balancers alive, which often forget idle connections \
         after a few minutes. HTTP keep-alive is another thing: it means using a connection for several requests.",
    ],
    sides: &[
        ("prober", "The side that set the option. The other side answers in any case."),
        ("both", "May set it; times are each side's own."),
    ],
    healthy: "Servers that hold idle connections have it on, with times below those of the firewalls between.",
    trouble: &[
        "Connections that hang in ESTABLISHED for days: keepalive is off, or at 2 hours.",
        "Connections that end with ETIMEDOUT after an idle time: something on the way forgot them. Probe more \
         often.",
    ],
    look: &[("ss -tno", "timer:(keepalive,...) where it is on"), ("tcptrace conns", "ends with a keepalive timeout")],
    sysctls: &[
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_retries2",
    ],
    options: &[
        ("SO_KEEPALIVE", "on or off"),
        ("TCP_KEEPIDLE", "idle seconds before the first probe"),
        ("TCP_KEEPINTVL", "seconds between probes"),
        ("TCP_KEEPCNT", "unanswered probes that end it"),
        ("TCP_USER_TIMEOUT", "if set, the time decides instead of the number of probes"),
    ],
    rfcs: &[rfc(9293, "3.8.4", "keep-alives"), rfc(1122, "4.2.3.6", "keep-alives")],
    examples: &[example(
        "keepalive",
        "The wire is cut behind the handshake. The client probes after an idle second, and gives up a second \
         later; the server, without keepalive, still believes in the connection.",
    )],
    see: &["ESTABLISHED", "long-connections", "rst"],
    ..Page::EMPTY
};

/// Short connections.
pub const SHORT_CONNECTIONS: Page = Page {
    kind: Kind::Term,
    name: "short-connections",
    aliases: &["short connection", "short", "churn"],
    summary: "One connection for each request: a handshake every time.",
    text: &[
        "Each costs a round trip before the first byte (more with TLS), starts with a small congestion window, and \
         leaves a TIME_WAIT of 60 s on the side that closes first.",
        "The client needs a local port for each, and ports rest in TIME_WAIT: with the default range some 470 \
         connections a second to one destination, then EADDRNOTAVAIL.",
    ],
    sides: &[
        ("client", "Runs out of local ports first, if it closes first."),
        ("server", "Pays in handshakes and accept() calls; its backlog must hold the bursts."),
    ],
    healthy: "Fine at some tens a second, or where requests are rare.",
    trouble: &[
        "Connections that live for milliseconds, by the thousand, between the same two hosts: use a pool or HTTP \
         keep-alive.",
        "EADDRNOTAVAIL: see TIME_WAIT for the remedies.",
    ],
    look: &[
        ("tcptrace conns --role client", "how long each lived, and who closed first"),
        ("ss -s", "how many there are, and in TIME_WAIT"),
    ],
    sysctls: &[
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_tw_reuse",
        "net.ipv4.tcp_max_tw_buckets",
        "net.ipv4.tcp_fastopen",
    ],
    options: &[
        ("TCP_FASTOPEN_CONNECT", "data in the SYN: saves the round trip"),
        ("IP_BIND_ADDRESS_NO_PORT", "bind() to an address picks no port: connect() does, and knows the destination"),
    ],
    rfcs: &[
        rfc(9293, "3.6.1", "TIME-WAIT after each close"),
        rfc(5681, "3.1", "slow start"),
        rfc(7413, "1", "what a handshake costs"),
    ],
    examples: &[example(
        "close_by_server",
        "One request: more segments to open and close than to ask and answer, and a TIME_WAIT.",
    )],
    see: &["long-connections", "TIME_WAIT", "handshake"],
    ..Page::EMPTY
};

/// Long connections.
pub const LONG_CONNECTIONS: Page = Page {
    kind: Kind::Term,
    name: "long-connections",
    aliases: &["long connection", "long", "persistent-connections", "idle"],
    summary: "One connection for many requests; may be dead unnoticed.",
    text: &[
        "Nothing is sent while it is idle, so neither end learns that the other is gone, that a firewall or NAT \
         forgot the connection, or that a load balancer closed it. The next request finds out: with a RST at once, \
         or with retransmits for up to 15 minutes.",
        "After an idle time the congestion window starts small again (tcp_slow_start_after_idle), so the first large \
         answer is slower than the ones before.",
    ],
    sides: &[
        (
            "client",
            "A pool must check or retry: the server may have closed while the connection was idle (CLOSE_WAIT).",
        ),
        ("server", "Needs an idle timeout or keepalive, or dead clients stay ESTABLISHED for ever."),
    ],
    healthy: "A steady number, idle timeouts of the client below those of the server.",
    trouble: &[
        "Errors only for the first request after a pause: an idle timeout on the way is shorter than the pool's.",
        "A number that only grows: see ESTABLISHED. Requests that hang for minutes: set TCP_USER_TIMEOUT.",
        "CLOSE_WAIT in a pool: connections that the server has closed are not thrown away.",
    ],
    look: &[
        ("tcptrace trace --json --duration 1s", "what exists: objects of type socket, with idle_us"),
        ("ss -tnoi", "lastsnd, lastrcv: milliseconds since data went either way"),
    ],
    sysctls: &[
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_retries2",
        "net.ipv4.tcp_slow_start_after_idle",
    ],
    options: &[
        ("SO_KEEPALIVE", "probe an idle peer"),
        ("TCP_USER_TIMEOUT", "milliseconds that sent data may stay unacknowledged"),
    ],
    rfcs: &[
        rfc(9293, "3.8.3", "connection failures"),
        rfc(9293, "3.8.4", "keep-alives"),
        rfc(5681, "4.1", "restarting idle connections"),
    ],
    examples: &[example("long", "50 requests and one handshake.")],
    see: &["short-connections", "keepalive", "ESTABLISHED", "CLOSE_WAIT"],
    ..Page::EMPTY
};
