//! Rules about peers: whom processes here connect to, who connects to them, and what comes unasked.

use super::{Kind, Page, rfc};

/// Refused connections.
pub const REFUSED_CONNECTS: Page = Page {
    kind: Kind::Rule,
    name: "refused-connects",
    aliases: &["connection refused"],
    summary: "Connections are refused by a peer again and again.",
    text: &[
        "Counted are connect() calls of processes of one name to one port of one peer that were answered by a RST, or by an ICMP error that \
         is as good as one.",
        "It fires when nothing but refusals came for 15 s (lasts), five of them at least (refused); and where others succeed, when of \
         twenty or more in a minute a fifth was refused (share) in several parts of that minute, as one of several servers behind an address \
         does that does not listen.",
        "It stays silent while a service restarts, for a client that gets through at another address of the same name (::1, then 127.0.0.1), \
         and for one that asks many peers once or twice.",
    ],
    trouble: &[
        "Start the service, or correct the address or port of the client. If something listens on that port, but on another address \
         (listens_on), change the address that it binds to.",
        "Refused by ICMP: a firewall says so (REJECT), no host does by itself.",
    ],
    look: &[
        ("tcptrace conns --failed --rport 443", "each attempt, and how it ended"),
        ("ss -ltnp sport = :PORT", "who listens on that port, and on which address"),
    ],
    rfcs: &[rfc(9293, "3.5.2", "a SYN to a port where nobody listens is answered by a RST")],
    see: &["connect-timeouts", "SYN_SENT", "rst"],
    ..Page::EMPTY
};

/// Connections that get no answer.
pub const CONNECT_TIMEOUTS: Page = Page {
    kind: Kind::Rule,
    name: "connect-timeouts",
    aliases: &["connection timed out", "no route to host", "unreachable"],
    summary: "A peer does not answer SYNs, or cannot be reached.",
    text: &[
        "Counted are attempts to connect to one port of one peer that ended without an answer: timed out, given up by the process after a SYN \
         was sent again, ended by an ICMP error or for want of an ARP answer; and those that still wait after two more SYNs (syns).",
        "It fires when three of them (attempts) are without an answer, the oldest for 5 s (lasts), and none was answered since.",
        "It stays silent when a SYN is lost now and then, for a client that races two addresses and drops the slower one, and for a crawler \
         that tries many hosts once or twice.",
    ],
    trouble: &[
        "The host is down, or a firewall drops SYNs or the answers to them. A route back that leads elsewhere looks the same.",
        "By default a process waits for two minutes until connect() fails. Give the client a timeout of its own.",
    ],
    look: &[
        ("ip route get ADDRESS", "which way segments take"),
        ("ip neigh show to ADDRESS", "whether the next hop answers"),
        ("tcptrace trace --state SYN_SENT --raddr 10.0.0.2", "attempts as they begin and end"),
    ],
    sysctls: &["net.ipv4.tcp_syn_retries", "net.ipv4.tcp_syn_linear_timeouts"],
    options: &[
        ("TCP_SYNCNT", "SYNs sent again before connect() of this socket fails"),
        ("TCP_USER_TIMEOUT", "how long this socket waits at most"),
    ],
    rfcs: &[rfc(6298, "5", "how long a SYN is waited for"), rfc(5461, "4", "ICMP errors while connecting")],
    see: &["refused-connects", "SYN_SENT"],
    ..Page::EMPTY
};

/// Connections cut off by RSTs.
pub const RESET_STORM: Page = Page {
    kind: Kind::Rule,
    name: "reset-storm",
    aliases: &["resets"],
    summary: "Connections are cut off by RSTs, one after the other.",
    text: &[
        "Counted are established connections, by the service here that took them or the peer that was asked, that a RST ended while data was \
         unread or unacknowledged (data_lost), while a question had no answer (unanswered), or, where this end asked, before anything was \
         said (unused).",
        "It fires when twenty (resets) were cut off within ten seconds, in three of these at least (seconds), and they are 30 % of all that \
         ended (share). resets_sent and resets_received say which end did it.",
        "It stays silent when a process ends with all of its connections at once, when clients close by RST once they have their answer \
         (SO_LINGER), and for load balancers that probe by a handshake and a RST.",
    ],
    trouble: &[
        "Sent by this end with data unread: the process closes without reading what came. Read to the end, or shutdown() the sending side and \
         read until the peer closes.",
        "Received with a question unanswered: the peer crashes or gives up. A pool that keeps connections longer than the server does meets \
         this, too.",
    ],
    look: &[
        ("tcptrace conns --failed --ladder --lport 443", "each segment of the end"),
        ("tcptrace conns --by comm,raddr,end", "who resets whom, how often"),
    ],
    options: &[("SO_LINGER", "on with 0 seconds: close() sends a RST in place of a FIN")],
    rfcs: &[
        rfc(9293, "3.10.7.4", "what a RST does in each state"),
        rfc(1122, "4.2.2.13", "close() with data unread sends a RST"),
    ],
    see: &["rst", "keepalive-deaths"],
    ..Page::EMPTY
};

/// Connections whose peer has vanished.
pub const KEEPALIVE_DEATHS: Page = Page {
    kind: Kind::Rule,
    name: "keepalive-deaths",
    aliases: &["peer vanished", "dead peer"],
    summary: "Connections die because the peer does not answer any more.",
    text: &[
        "Counted are established connections that ended by an unanswered keepalive probe, by unacknowledged data (retransmit timeout) or by \
         TCP_USER_TIMEOUT.",
        "It fires when three to one peer (deaths), or ten of a service's clients (clients) that are 5 % of all that ended (share), died \
         within five minutes.",
        "It stays silent for single deaths, as phones and laptops have them, and when the peer was connected to again.",
    ],
    trouble: &[
        "Idle ones died: a firewall or NAT between forgets idle connections. Let the first keepalive probe come earlier than its timeout.",
        "Busy ones died: the host or the path to it is gone. Clients hang until the retransmit timeout, fifteen minutes by default: set \
         TCP_USER_TIMEOUT.",
    ],
    look: &[
        ("tcptrace conns --failed --raddr 10.0.0.2", "which died, and how"),
        ("ss -tno dst ADDRESS", "timers of those that are left"),
    ],
    sysctls: &[
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_retries2",
    ],
    options: &[
        ("SO_KEEPALIVE", "probe this connection when it is idle"),
        ("TCP_KEEPIDLE", "seconds until the first probe"),
        ("TCP_USER_TIMEOUT", "how long data may stay unacknowledged"),
    ],
    rfcs: &[rfc(1122, "4.2.3.6", "keepalives"), rfc(5482, "", "user timeout")],
    see: &["keepalive", "retransmit-burst"],
    ..Page::EMPTY
};

/// Many short connections.
pub const SHORT_LIVED_CHURN: Page = Page {
    kind: Kind::Rule,
    name: "short-lived-churn",
    aliases: &["no pool"],
    summary: "Many short connections to a peer, where one would do.",
    text: &[
        "Measured over 20 s are connections to one port of one peer that were closed in order: how many a second, how long they lasted, what \
         they carried, which share of their time the handshake took.",
        "It fires at 20 a second (rate), in 15 of the 20 seconds (seconds), that last less than a second (lifetime) and carry less than \
         64 KB (bytes) on average, with the handshake at least 5 % of their time (handshake); from 200 a second on (busy) whatever the \
         handshake takes. would_do says how many connections would carry the same.",
        "It stays silent for a browser's handful of connections, for health checks of many peers, and for a batch of work that is over within \
         seconds.",
    ],
    trouble: &[
        "Keep connections: HTTP keep-alive, a pool for a database, one session of the client's library in place of one for each call.",
        "Each connection that this end closes first (closed_here_percent) leaves a TIME_WAIT and keeps its port for a minute.",
    ],
    look: &[("tcptrace conns --by comm,raddr,rport", "how many, how long, how large"), ("ss -s", "TIME_WAIT sockets")],
    sysctls: &["net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse"],
    rfcs: &[rfc(9112, "9.3", "persistent connections of HTTP")],
    see: &["TIME_WAIT", "short-connections"],
    ..Page::EMPTY
};

/// Bursts of retransmits.
pub const RETRANSMIT_BURST: Page = Page {
    kind: Kind::Rule,
    name: "retransmit-burst",
    aliases: &["packet loss"],
    summary: "Much of what is sent to a peer has to be sent again.",
    text: &[
        "Counted are segments of established connections that were sent again, by peer address, in ten seconds. Those of a connection that \
         hears nothing any more, which waits twice as long each time, count apart (backed_off).",
        "It fires at fifty (segments) that are 1 % of what the kernel sent in that network namespace (share); where nobody reads its \
         counters, because nobody listens there, at two hundred (alone).",
        "It stays silent for single lost segments, for what a busy host always loses, and for connections that die.",
    ],
    trouble: &[
        "Look for drops: on interfaces and queues of both hosts, on the way between them, at a rate limit of a virtual machine.",
        "Only large segments are sent again: the path's MTU is smaller than somebody believes.",
    ],
    look: &[
        ("ss -tin dst ADDRESS", "retrans, lost, reordering, rto of each connection"),
        ("tc -s qdisc", "drops of the queues here"),
        ("nstat -az TcpRetransSegs TcpOutSegs", "the kernel's own counts"),
    ],
    sysctls: &["net.ipv4.tcp_mtu_probing", "net.ipv4.tcp_sack"],
    rfcs: &[rfc(6298, "5", "the retransmission timer"), rfc(8985, "", "loss that ACKs tell of (RACK)")],
    see: &["mss", "keepalive-deaths"],
    ..Page::EMPTY
};

/// SYNs that come late.
pub const STALE_SYN: Page = Page {
    kind: Kind::Rule,
    name: "stale-syn",
    aliases: &["duplicate syn", "old syn"],
    summary: "Old SYNs come again, late, and are answered by RSTs.",
    text: &[
        "A SYN is a late duplicate when it carries the initial sequence number of a handshake between the same ends in the last two minutes. It \
         makes a half-open request, whose SYN-ACK the client answers by a RST.",
        "It fires when five came to a port within a minute (syns). Clients that give up and begin again have other numbers.",
    ],
    trouble: &[
        "No connection comes to harm, but something on the way delays or repeats segments: a bridge with a loop, a tunnel that resends, a \
         mirror port. Data segments suffer from it, too.",
    ],
    look: &[
        ("tcptrace trace --requests --lport 443", "each request, and how it ended"),
        ("tcpdump 'tcp[tcpflags] == tcp-syn'", "sequence numbers of SYNs, to be compared at both ends"),
    ],
    sysctls: &["net.ipv4.tcp_timestamps"],
    rfcs: &[rfc(9293, "3.5.1", "recovery from old duplicate SYNs")],
    see: &["half-open", "NEW_SYN_RECV"],
    ..Page::EMPTY
};

/// Port scans.
pub const PORT_SCAN: Page = Page {
    kind: Kind::Rule,
    name: "port-scan",
    aliases: &["scan", "nmap"],
    summary: "Somebody tries one port after the other.",
    text: &[
        "Counted, by source address, are ports where nobody listens that a SYN, a FIN without ACK, or a segment without flags came to; and \
         ports that are open: half-open requests that their sender resets, connections that end without a byte from it.",
        "It fires at fifteen ports within two minutes (ports), three of them closed (closed); where all are open, when after 30 s (quiet) \
         none was tried a third time.",
        "It stays silent for clients of a service that is down, for a load balancer that asks the same ports again and again, and for segments \
         of connections that are not there any more.",
        "Of segments to closed ports two thousand a second are told one by one; how many more there were is held_back. What a firewall \
         drops is not seen, nor, before Linux 6.10, segments with IPv6 extension headers.",
    ],
    trouble: &[
        "If nobody of yours scans, keep the source out. Close what need not be open: let services listen on 127.0.0.1, or on the address that \
         they are for.",
    ],
    look: &[("ss -ltnp", "what is open"), ("tcptrace trace --requests --raddr 10.0.0.2", "what it asks of open ports")],
    rfcs: &[rfc(9293, "3.10.7.1", "a segment to a port where nobody listens is answered by a RST")],
    see: &["half-open", "refused-connects"],
    ..Page::EMPTY
};
