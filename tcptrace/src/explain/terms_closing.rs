//! Terms about the end of a connection.

use super::{Kind, Page, example, rfc};

/// How a connection ends by FINs.
pub const TEARDOWN: Page = Page {
    kind: Kind::Term,
    name: "teardown",
    aliases: &["close()", "closing a connection", "fin", "four-way handshake", "simultaneous-close"],
    summary: "FIN and ACK in each direction: an end in order.",
    text: &[
        "Each direction is closed by itself: a FIN says that nothing more will be sent, and the other end \
         acknowledges it. That makes four segments; three if the second FIN goes with the ACK of the first.",
        "The end that closes first (active closer) goes through FIN_WAIT1 and FIN_WAIT2 to TIME_WAIT; the other \
         (passive closer) through CLOSE_WAIT and LAST_ACK to CLOSE. When both close at once, both go through CLOSING \
         to TIME_WAIT.",
        "A close() with received data that nobody has read sends a RST instead of a FIN, and so does SO_LINGER with \
         a time of 0. Data that the peer has not read yet can be lost then.",
    ],
    sides: &[
        ("active closer", "ESTABLISHED, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE."),
        ("passive closer", "ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE."),
    ],
    healthy: "FIN from both ends within milliseconds; TIME_WAIT on the side that closed first.",
    trouble: &[
        "Many FIN_WAIT2 here are CLOSE_WAIT there, and the other way round: one program does not close.",
        "RST where FINs are expected: unread data at close(), SO_LINGER, a program that was killed with data unread, \
         or a middlebox.",
    ],
    look: &[("tcptrace conns", "END: FIN or RST, local or remote"), ("tcptrace trace", "each step with its time")],
    sysctls: &[
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_orphan_retries",
        "net.ipv4.tcp_max_orphans",
        "net.ipv4.tcp_max_tw_buckets",
    ],
    options: &[
        ("shutdown(fd, SHUT_WR)", "sends the FIN and goes on reading"),
        ("SO_LINGER", "close() waits for the FIN's ACK; with a time of 0 it sends a RST instead of a FIN"),
        ("TCP_LINGER2", "seconds in FIN_WAIT2 after close()"),
    ],
    rfcs: &[
        rfc(9293, "3.6", "closing a connection"),
        rfc(9293, "3.10.4", "CLOSE call"),
        rfc(1122, "4.2.2.13", "closing a connection"),
        rfc(2525, "2.17", "close() with unread data"),
    ],
    examples: &[
        example(
            "close_by_client",
            "Four segments: the server's process takes its time, so the ACK of the first FIN goes alone.",
        ),
        example(
            "three_segments",
            "Three segments: the server's process closes at once, and the ACK goes with its FIN.",
        ),
    ],
    see: &["half-close", "rst", "2msl", "FIN_WAIT1", "CLOSE_WAIT"],
    ..Page::EMPTY
};

/// A connection closed in one direction.
pub const HALF_CLOSE: Page = Page {
    kind: Kind::Term,
    name: "half-close",
    aliases: &["half-closed", "shutdown"],
    summary: "One end stops sending and still reads: shutdown(SHUT_WR).",
    text: &[
        "shutdown(SHUT_WR) sends a FIN and leaves the reading side open. The peer reads an end of file and can still \
         answer; that is how a request without a length says that it is complete.",
        "Both states last as long as the answer: FIN_WAIT2 on the end that shut down, CLOSE_WAIT on the other. No \
         timeout of the kernel applies while a process holds the socket.",
    ],
    sides: &[
        ("end that shut down", "FIN_WAIT1, FIN_WAIT2; reads until the peer's FIN."),
        ("other end", "CLOSE_WAIT; sends the rest, then closes."),
    ],
    healthy: "Seconds at most, and data flows meanwhile.",
    trouble: &[
        "FIN_WAIT2 with a process for a long time: the other end does not close, and this one has no timeout.",
        "Proxies and NAT with short timeouts for half-closed connections cut the answer off.",
    ],
    look: &[
        ("tcptrace conns --state FIN_WAIT2", "those that were half-closed, and for how long"),
        ("tcptrace conns --json", "half_close in patterns"),
    ],
    options: &[("shutdown(fd, SHUT_WR)", "half-close"), ("close(fd)", "closes both directions for this process")],
    rfcs: &[rfc(9293, "3.6.1", "half-closed connections"), rfc(1122, "4.2.2.13", "half-close and its time limit")],
    examples: &[example(
        "half_close",
        "The client says that its question is complete, and reads: the answer comes between its FIN and the \
         server's.",
    )],
    see: &["FIN_WAIT2", "CLOSE_WAIT", "teardown"],
    ..Page::EMPTY
};

/// Twice the maximum segment lifetime.
pub const TWO_MSL: Page = Page {
    kind: Kind::Term,
    name: "2msl",
    aliases: &["msl", "two-msl"],
    summary: "Two lifetimes of a segment: how long TIME_WAIT lasts.",
    text: &[
        "MSL is the maximum segment lifetime. After twice that, neither an old segment nor the answer to one can \
         still arrive. RFC 9293 takes MSL as 2 minutes; Linux waits 60 seconds in all, a constant of the kernel.",
        "It protects against two things: a last ACK that was lost (the peer sends its FIN again, and somebody must \
         answer), and old segments in a new connection with the same addresses and ports. Timestamps protect against \
         the second, too, which is why reuse with them is safe after a second.",
    ],
    sides: &[("active closer", "Waits."), ("passive closer", "Does not.")],
    healthy: "See TIME_WAIT.",
    trouble: &["See TIME_WAIT: shortening the wait is not the remedy."],
    look: &[("ss -tano state time-wait", "each with the seconds that are left")],
    sysctls: &[
        "net.ipv4.tcp_tw_reuse",
        "net.ipv4.tcp_tw_reuse_delay",
        "net.ipv4.tcp_timestamps",
        "net.ipv4.tcp_max_tw_buckets",
    ],
    rfcs: &[
        rfc(9293, "3.4.2", "knowing when to keep quiet"),
        rfc(9293, "3.6.1", "2 MSL in TIME-WAIT"),
        rfc(7323, "5", "protection against old segments (PAWS)"),
        rfc(1337, "", "TIME-WAIT assassination"),
    ],
    examples: &[example(
        "close_by_server",
        "It begins with the last FIN at the end that closed first: here the server, at the right. The client has \
         nothing left.",
    )],
    see: &["TIME_WAIT", "teardown", "short-connections"],
    ..Page::EMPTY
};

/// Resets.
pub const RST: Page = Page {
    kind: Kind::Term,
    name: "rst",
    aliases: &["reset", "abort", "econnreset", "econnrefused", "refused"],
    summary: "The end at once; what was on its way is lost.",
    text: &[
        "A RST is the answer to a segment that belongs to no connection, and the way to give a connection up. \
         Neither end waits: both go to CLOSE, without TIME_WAIT.",
        "In answer to a SYN it means that nobody listens there: connect() fails with ECONNREFUSED. Later the other \
         end reads or writes ECONNRESET; writing on after that gives EPIPE.",
        "A RST counts only if its sequence number is exactly the one expected. One that is merely inside the window \
         is answered with a challenge ACK, against forged ones.",
    ],
    sides: &[
        (
            "sender",
            "A closed port, a close() with data unread, SO_LINGER 0, a listener closed with connections in its \
             accept queue, too many orphans, data for a socket that is gone, ss -K, or a firewall in its name.",
        ),
        ("receiver", "Finds out at its next call. On Linux it can still read what arrived before."),
    ],
    healthy: "Some. Browsers, scanners and load balancers' health checks send them all day.",
    trouble: &[
        "Bursts of refused: the service is not running, or listens on another address.",
        "RST right after a request: the server closed while the request was on its way. Let the client's idle \
         timeout be the shorter one.",
        "RST that neither end sent: a firewall or NAT whose entry timed out. Both ends' traces together show it.",
    ],
    look: &[
        ("tcptrace conns", "END: RST local, RST remote, refused"),
        ("nstat -az TcpOutRsts TcpEstabResets", "RSTs sent, established connections that were reset"),
        (
            "nstat -az TcpExtTCPAbortOnClose TcpExtTCPAbortOnData",
            "close() with unread data; SO_LINGER 0, or data after close()",
        ),
    ],
    sysctls: &[
        "net.ipv4.tcp_abort_on_overflow",
        "net.ipv4.tcp_max_orphans",
        "net.ipv4.tcp_challenge_ack_limit",
        "net.ipv4.tcp_rfc1337",
    ],
    options: &[("SO_LINGER", "with a time of 0, close() sends a RST")],
    rfcs: &[
        rfc(9293, "3.5.2", "reset generation"),
        rfc(9293, "3.5.3", "reset processing"),
        rfc(5961, "3", "forged resets and the challenge ACK"),
        rfc(2525, "2.17", "close() with unread data"),
    ],
    examples: &[
        example("rst", "The client closes with SO_LINGER 0. One segment, no answer, and both ends are in CLOSE."),
        example("refused", "The answer to a SYN for a port on which nobody listens."),
    ],
    see: &["CLOSE", "teardown", "flags"],
    ..Page::EMPTY
};
