//! Terms about segments and the flow of data.

use super::{Kind, Page, example, rfc};

/// Maximum segment size.
pub const MSS: Page = Page {
    kind: Kind::Term,
    name: "mss",
    aliases: &["maximum segment size", "mtu", "pmtu"],
    summary: "The most payload that one segment may carry.",
    text: &[
        "Each end names in its SYN what it can receive: the MTU of its interface less 40 bytes of headers (IPv4) or \
         60 (IPv6), so 1460 or 1440 on Ethernet. The sender uses the smaller of the peer's value and what the path \
         can carry, less the bytes of options: with timestamps 1448.",
        "Routers that cannot pass a packet say so by ICMP (path MTU discovery). If a firewall drops that ICMP, large \
         segments vanish while small ones pass: a black hole.",
    ],
    sides: &[("both", "Each direction has its own. In tcptrace's JSON: adv_mss was announced, snd_mss is used.")],
    healthy: "1448 or 1428 on the Internet, about 65,000 on loopback, about 8,950 with jumbo frames.",
    trouble: &[
        "The handshake works, small requests work, large ones hang and are sent again: a path MTU black hole, often \
         a VPN or a tunnel. Allow ICMP \"fragmentation needed\" and \"packet too big\", clamp the MSS on the router, \
         or set tcp_mtu_probing=1.",
        "A tiny MSS from a peer makes many small packets; tcp_min_snd_mss bounds that.",
    ],
    look: &[("ss -tni", "mss, pmtu, rcvmss, advmss"), ("tracepath HOST", "the path's MTU, hop by hop")],
    sysctls: &[
        "net.ipv4.tcp_mtu_probing",
        "net.ipv4.tcp_base_mss",
        "net.ipv4.tcp_min_snd_mss",
        "net.ipv4.ip_no_pmtu_disc",
    ],
    options: &[
        ("TCP_MAXSEG", "an upper bound for this socket, before connect() or listen()"),
        ("IP_MTU_DISCOVER", "whether packets may be fragmented"),
    ],
    rfcs: &[
        rfc(9293, "3.7.1", "maximum segment size option"),
        rfc(9293, "3.7.2", "path MTU discovery"),
        rfc(4821, "7", "probing without ICMP"),
    ],
    examples: &[example(
        "mss",
        "The line that begins with MSS: what the client sends at most, for the server's link takes smaller packets, \
         and what it announced. Both numbers are without the 12 bytes of timestamps.",
    )],
    see: &["handshake", "window"],
    ..Page::EMPTY
};

/// Windows.
pub const WINDOW: Page = Page {
    kind: Kind::Term,
    name: "window",
    aliases: &["receive-window", "rwnd", "cwnd", "congestion-window", "zero-window", "window-scale"],
    summary: "How much may be on its way, by receiver and by network.",
    text: &[
        "The receive window is the room in the receiver's buffer, told with each segment. It closes when the process \
         does not read; at zero the sender only probes. The congestion window is the sender's own estimate of what \
         the network takes.",
        "A connection carries at most a window for each round trip: 64 KB at 100 ms are 5 Mbit/s. Window scaling, \
         agreed in the SYNs, lifts the limit of 64 KB. Linux sizes the buffers by itself up to the last number of \
         tcp_rmem and tcp_wmem.",
    ],
    sides: &[
        ("receiver", "Recv-Q in ss: data that the process has not read."),
        ("sender", "Send-Q in ss: data not acknowledged, sent or not."),
    ],
    healthy: "Recv-Q and Send-Q near 0, or Send-Q steady during a transfer.",
    trouble: &[
        "Send-Q full here, and Recv-Q full there: that program does not read (zero window).",
        "Slow over long distances only: no window scaling, a buffer fixed by SO_RCVBUF or SO_SNDBUF, or a small \
         maximum.",
        "Slow with retransmits: the congestion window is small because of losses.",
    ],
    look: &[
        ("ss -tnim", "cwnd, rwnd_limited, sndbuf_limited, buffers"),
        ("tcptrace conns --json", "unread, unsent, bytes_retrans, wscale_snd, wscale_rcv"),
        ("nstat -az TcpExtTCPToZeroWindowAdv TcpExtTCPRcvCollapsed", "windows closed, buffers squeezed"),
    ],
    sysctls: &[
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
        "net.ipv4.tcp_mem",
        "net.ipv4.tcp_window_scaling",
        "net.ipv4.tcp_moderate_rcvbuf",
        "net.core.rmem_max",
        "net.core.wmem_max",
        "net.ipv4.tcp_congestion_control",
    ],
    options: &[
        ("SO_RCVBUF", "fixes the receive buffer (twice the value, at most rmem_max): no automatic sizing any more"),
        ("SO_SNDBUF", "the same for sending, at most wmem_max"),
        ("TCP_WINDOW_CLAMP", "bounds the window that is announced"),
        ("TCP_NOTSENT_LOWAT", "how much unsent data counts as full"),
        ("TCP_CONGESTION", "the algorithm of this socket"),
    ],
    rfcs: &[
        rfc(9293, "3.8.6", "managing the window"),
        rfc(9293, "3.8.6.1", "zero-window probing"),
        rfc(7323, "2", "window scale option"),
        rfc(5681, "3", "congestion control"),
    ],
    examples: &[example(
        "window",
        "The server does not read: its window is soon full, and most of the data waits at the client with the \
         FIN behind it.",
    )],
    see: &["mss", "delayed-ack", "nagle"],
    ..Page::EMPTY
};

/// The Nagle algorithm.
pub const NAGLE: Page = Page {
    kind: Kind::Term,
    name: "nagle",
    aliases: &["nodelay", "tcp_nodelay", "cork", "tcp_cork"],
    summary: "A small segment waits while sent data is unacknowledged.",
    text: &[
        "A segment that is not full is held back as long as something sent is not acknowledged (Linux: as long as \
         another small segment is). It saves packets when a program writes in small pieces.",
        "Together with delayed ACKs it costs about 40 ms: the program writes twice and then waits for the answer; \
         the second piece waits for an ACK that the peer delays. Write a request in one call, or set TCP_NODELAY.",
    ],
    sides: &[("sender", "Holds the small segment back."), ("receiver", "Delays the ACK that would release it.")],
    healthy: "TCP_NODELAY on requests and answers: most servers and libraries set it. Each write should be a whole \
     message.",
    trouble: &[
        "Each request takes 40 ms (200 ms with some peers) longer than the network explains: Nagle and delayed ACKs \
         meet.",
        "Many tiny segments: TCP_NODELAY is set, and the program writes byte by byte. Collect in the program, or use \
         TCP_CORK or MSG_MORE.",
    ],
    look: &[
        ("tcptrace conns --json", "nodelay in options"),
        ("strace -e trace=network -p PID", "how the program writes"),
    ],
    sysctls: &["net.ipv4.tcp_autocorking"],
    options: &[
        ("TCP_NODELAY", "switches it off"),
        ("TCP_CORK", "holds small segments back until uncorked, for 200 ms at most"),
        ("MSG_MORE", "the same for one call: more follows"),
    ],
    rfcs: &[
        rfc(9293, "3.7.4", "Nagle algorithm"),
        rfc(896, "", "congestion control in IP/TCP: the original"),
        rfc(1122, "4.2.3.4", "when to send data"),
    ],
    examples: &[example(
        "nagle",
        "Ten requests, each written in two small pieces and then answered. In one piece each they would take ten round \
         trips of 10 ms. The rest is Nagle and delayed ACKs: the second piece waits for the ACK of the first.",
    )],
    see: &["delayed-ack", "window"],
    ..Page::EMPTY
};

/// Delayed acknowledgments.
pub const DELAYED_ACK: Page = Page {
    kind: Kind::Term,
    name: "delayed-ack",
    aliases: &["delayed-acknowledgment", "delack", "quickack"],
    summary: "An ACK waits for something that it can go with.",
    text: &[
        "At least every second full segment is acknowledged at once; an ACK for less may wait. Linux waits 40 to 200 \
         ms, and adapts to the traffic: at the start of a connection, or when it looks like a bulk transfer, it \
         acknowledges at once (quick ACKs).",
        "RFC 9293 allows 500 ms.",
    ],
    sides: &[
        ("receiver", "Delays the ACK, hoping that the process answers meanwhile."),
        ("sender", "Measures a longer round trip; with Nagle it waits for the ACK."),
    ],
    healthy: "Request and answer in turn: the ACK goes with the answer, and nobody waits.",
    trouble: &["40 ms in each exchange: two small writes before an answer. See nagle."],
    look: &[
        ("ss -tni", "ato: the delay in use, in milliseconds"),
        ("nstat -az TcpExtDelayedACKs TcpExtDelayedACKLost", "ACKs delayed; too long for the peer"),
    ],
    sysctls: &["net.ipv4.tcp_pingpong_thresh"],
    options: &[("TCP_QUICKACK", "ACK at once; the kernel may switch back by itself, so set it after each read")],
    rfcs: &[
        rfc(9293, "3.8.6.3", "delayed acknowledgments"),
        rfc(1122, "4.2.3.2", "when to send an ACK segment"),
        rfc(5681, "4.2", "generating acknowledgments"),
    ],
    examples: &[
        example(
            "three_segments",
            "The ACK of the client's FIN waits, and goes with the server's FIN: one segment less.",
        ),
        example(
            "close_by_client",
            "The process does not close in time: the ACK goes alone, later than the FIN came by as much as it was \
             delayed.",
        ),
    ],
    see: &["nagle", "window"],
    ..Page::EMPTY
};

/// Control bits.
pub const FLAGS: Page = Page {
    kind: Kind::Term,
    name: "flags",
    aliases: &["control-bits", "ack", "psh", "urg", "ece", "cwr", "syn-ack", "tcp-flags"],
    summary: "The control bits in the header of each segment.",
    text: &[
        "SYN opens and synchronizes sequence numbers. ACK says that the acknowledgment field is valid: set in every \
         segment but the first SYN and some RSTs. FIN: nothing more will be sent. RST: the connection is over. SYN \
         and FIN each take a sequence number, so they are acknowledged and sent again like data.",
        "PSH asks the receiver to hand the data to the process now; Linux sets it at the end of a write. URG points \
         to urgent data and should not be used any more.",
        "ECE and CWR belong to explicit congestion notification: ECE tells the sender that a router marked a packet \
         instead of dropping it, CWR answers that the window was reduced. In SYNs they negotiate its use.",
        "tcpdump prints S for SYN, . for ACK, F for FIN, R for RST, P for PSH, U for URG, E for ECE and W for CWR.",
    ],
    healthy: "S, S., ., then P. and ., then F. from both ends.",
    trouble: &[
        "S without answer: see SYN_SENT. R. after S: refused. R in the middle: see rst.",
        "SYN and FIN together, or no flag at all: a scanner.",
    ],
    look: &[("tcpdump -ni any 'tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0'", "beginnings and ends only")],
    sysctls: &["net.ipv4.tcp_ecn", "net.ipv4.tcp_ecn_fallback"],
    rfcs: &[
        rfc(9293, "3.1", "header format"),
        rfc(9293, "3.8.5", "urgent information"),
        rfc(3168, "6.1", "ECN in TCP"),
    ],
    examples: &[example(
        "rst_after_close",
        "SYN, ACK, FIN and RST in one connection: the client has closed, the server sends on, and is told that \
         nobody is there.",
    )],
    see: &["handshake", "teardown", "rst"],
    ..Page::EMPTY
};
