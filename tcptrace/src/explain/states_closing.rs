//! States from the first FIN on.

use super::{Arc, Kind, Page, example, rfc};
use crate::model::State;

/// FIN_WAIT1: this end closed first.
pub const FIN_WAIT1: Page = Page {
    kind: Kind::State,
    name: "FIN_WAIT1",
    summary: "This end closed first; its FIN is not acknowledged yet.",
    text: &[
        "The FIN has its place behind all data that is still to be sent. As long as the peer does not take that \
         data, the FIN is not sent, either, and the connection stays in FIN_WAIT1.",
        "After close() no process owns the socket: it is an orphan, ss shows no process, and the kernel gives it \
         fewer retransmits (tcp_orphan_retries) than a socket with an owner (tcp_retries2).",
    ],
    sides: &[
        ("active closer", "The side that has it."),
        ("passive closer", "Goes to CLOSE_WAIT as soon as the FIN arrives."),
    ],
    enters: &[
        Arc(
            State::Established,
            "this end closes first: close(), shutdown() of the writing side, or the process \
             ends",
        ),
        Arc(State::SynRecv, "Fast Open: close() or shutdown() before the final ACK"),
    ],
    leaves: &[
        Arc(State::FinWait2, "the peer acknowledged the FIN"),
        Arc(State::Closing, "the peer's FIN arrived, but not yet its ACK of ours (simultaneous close)"),
        Arc(State::TimeWait, "one segment brought both: the peer's FIN and its ACK of ours"),
        Arc(State::Close, "RST, or no answer to the FIN"),
    ],
    healthy: "Few: each lasts one round trip.",
    trouble: &[
        "Many with Send-Q above 0: peers that stopped reading or vanished in the middle of a transfer. Each keeps \
         its send buffer until the retransmits run out.",
        "More orphans than tcp_max_orphans, or too little memory for TCP: the kernel resets them and logs \"too many \
         orphaned sockets\" or \"out of memory\".",
    ],
    look: &[
        ("tcptrace conns --state FIN_WAIT1", "how long, and what came of it"),
        ("ss -tno state fin-wait-1", "Send-Q and timers"),
        ("nstat -az TcpExtTCPAbortOnTimeout TcpExtTCPAbortOnMemory", "connections given up"),
    ],
    sysctls: &["net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_retries2"],
    options: &[
        ("SO_LINGER", "close() waits for the FIN's ACK; with a time of 0 it sends a RST instead of a FIN"),
        ("TCP_USER_TIMEOUT", "milliseconds that data and FIN may stay unacknowledged"),
    ],
    rfcs: &[rfc(9293, "3.6", "closing a connection"), rfc(9293, "3.10.4", "CLOSE call")],
    examples: &[
        example("fin_again", "The FIN is lost, and FIN_WAIT1 lasts until it is sent again and acknowledged."),
        example(
            "window",
            "The FIN waits behind data that the peer does not take. It leaves when its process has read the rest.",
        ),
    ],
    see: &["teardown", "FIN_WAIT2", "CLOSING"],
    ..Page::EMPTY
};

/// FIN_WAIT2: the peer is to close.
pub const FIN_WAIT2: Page = Page {
    kind: Kind::State,
    name: "FIN_WAIT2",
    summary: "This end's FIN is acknowledged; the peer's is awaited.",
    text: &[
        "It depends on how this end closed. After shutdown() the process still reads, and the state may last for \
         ever: a half-close. After close() nobody reads: the kernel waits tcp_fin_timeout seconds for the peer's \
         FIN, then forgets the connection without a word.",
        "For that wait Linux replaces the socket with a small remnant. The tracepoint then says FIN_WAIT2>CLOSE; \
         tcptrace shows FIN_WAIT2 again (an orphan), as ss does. Data that arrives for an orphan is answered with a \
         RST.",
    ],
    sides: &[
        ("active closer", "The side that has it."),
        ("passive closer", "Is in CLOSE_WAIT: its process has not called close() yet."),
    ],
    enters: &[Arc(State::FinWait1, "the peer acknowledged the FIN")],
    leaves: &[
        Arc(State::TimeWait, "the peer's FIN arrived"),
        Arc(State::Close, "RST, or the peer's FIN did not come in time"),
    ],
    healthy: "Few: the time that the peers need to notice the end and close.",
    trouble: &[
        "Many mean that the peers do not close: a leak there (their CLOSE_WAIT), or a firewall that forgot the \
         connection and drops the FIN. The remedy is on the other side.",
        "With a process in ss -p: this program called shutdown() and now waits without a timeout.",
    ],
    look: &[
        ("tcptrace conns --state FIN_WAIT2", "peers that close late, and how late"),
        ("ss -tnpo state fin-wait-2", "those with a process, and the timers of orphans"),
    ],
    sysctls: &["net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_max_tw_buckets"],
    options: &[("TCP_LINGER2", "seconds in FIN_WAIT2 after close(), instead of tcp_fin_timeout; below 0: none")],
    rfcs: &[rfc(9293, "3.6", "closing a connection"), rfc(1122, "4.2.2.13", "half-close and its time limit")],
    examples: &[example(
        "fin_wait2",
        "The client has called close(): no process is there when the peer, which needs a while for it, closes. \
         The kernel waits in its place.",
    )],
    see: &["half-close", "CLOSE_WAIT", "TIME_WAIT"],
    ..Page::EMPTY
};

/// CLOSE_WAIT: this process is to close.
pub const CLOSE_WAIT: Page = Page {
    kind: Kind::State,
    name: "CLOSE_WAIT",
    summary: "The peer closed; this process has not called close() yet.",
    text: &[
        "The process reads an end of file (0 bytes) and is expected to close. The kernel waits for that without a \
         limit: no sysctl ends CLOSE_WAIT. It is always the local program that has to act.",
        "Sending is still allowed: after a half-close by the peer this is the normal state of a long answer.",
    ],
    sides: &[
        ("passive closer", "The side that has it."),
        ("active closer", "Is in FIN_WAIT2, or has forgotten the connection already and would answer with a RST."),
    ],
    enters: &[
        Arc(State::Established, "the peer closes first: its FIN arrived"),
        Arc(State::SynRecv, "Fast Open: FIN from the peer before the handshake is over"),
    ],
    leaves: &[
        Arc(State::LastAck, "close(), shutdown() of the writing side, or the process ends"),
        Arc(State::Close, "RST, timeout, or close() with data left unread"),
    ],
    healthy: "None that lasts: milliseconds, as long as the program needs to read the end of file and close.",
    trouble: &[
        "Numbers that grow are a bug of the program that owns the sockets: an error path without close(), a pool \
         that does not check its idle connections, a thread that is stuck. They end when the process closes them or \
         ends.",
        "Recv-Q tells more: above 1, data was never read; 1, only the FIN is unread; 0, the program has seen the end \
         of file and forgot to close.",
        "Without a process in ss -p, asked as root: the connection is still in the accept queue. The program does \
         not accept.",
    ],
    look: &[
        ("tcptrace conns --state CLOSE_WAIT --duration 1s", "those that exist, with their owners"),
        ("tcptrace trace --state CLOSE_WAIT", "who enters and leaves it, and after how long"),
        ("ss -tnp state close-wait", "processes and descriptors"),
    ],
    sysctls: &["net.ipv4.tcp_keepalive_time"],
    options: &[(
        "SO_KEEPALIVE",
        "finds out that the peer is gone; the descriptor stays open until the process closes it",
    )],
    rfcs: &[rfc(9293, "3.6", "closing a connection"), rfc(9293, "3.10.4", "CLOSE call")],
    examples: &[example(
        "close_wait",
        "A leak: the client has closed, the server read the end of file and keeps the socket. The kernel \
         acknowledges the FIN, and nothing more will happen.",
    )],
    see: &["FIN_WAIT2", "LAST_ACK", "half-close"],
    ..Page::EMPTY
};

/// LAST_ACK: the second FIN is on its way.
pub const LAST_ACK: Page = Page {
    kind: Kind::State,
    name: "LAST_ACK",
    summary: "Both ends closed, the peer first; the last ACK is awaited.",
    text: &[
        "Like FIN_WAIT1, but nothing more is expected than the ACK of the FIN. Data that was still to be sent goes \
         first.",
        "When the ACK comes the connection is over at once: the TIME_WAIT is the peer's.",
    ],
    sides: &[
        ("passive closer", "The side that has it."),
        ("active closer", "Is in FIN_WAIT2 until this FIN arrives, then in TIME_WAIT."),
    ],
    enters: &[Arc(State::CloseWait, "close(), shutdown() of the writing side, or the process ends")],
    leaves: &[Arc(State::Close, "the peer acknowledged the FIN; RST, or no answer to it")],
    healthy: "Few: each lasts one round trip.",
    trouble: &[
        "Many: the peers are gone, or a firewall dropped its state after the first FIN and does not let the second \
         through. The orphans end by themselves after tcp_orphan_retries retransmits.",
    ],
    look: &[
        ("tcptrace conns --state LAST_ACK", "how long, and whether the ACK came"),
        ("ss -tno state last-ack", "retransmit timers"),
    ],
    sysctls: &["net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_max_orphans"],
    options: &[("SO_LINGER", "close() waits for the FIN's ACK; with a time of 0 it sends a RST instead of a FIN")],
    rfcs: &[rfc(9293, "3.6", "closing a connection")],
    examples: &[example(
        "close_by_server",
        "At the left: the server closed first, the client follows, and CLOSE comes with the ACK of its FIN.",
    )],
    see: &["teardown", "CLOSE_WAIT", "TIME_WAIT"],
    ..Page::EMPTY
};

/// CLOSING: both closed at the same time.
pub const CLOSING: Page = Page {
    kind: Kind::State,
    name: "CLOSING",
    summary: "Both ends closed at the same time: their FINs crossed.",
    text: &[
        "The peer's FIN arrived while ours was not acknowledged yet. Both ends pass through CLOSING, and both end in \
         TIME_WAIT.",
    ],
    sides: &[("both", "Each end is an active closer.")],
    enters: &[Arc(State::FinWait1, "the peer's FIN arrived, but not yet its ACK of ours (simultaneous close)")],
    leaves: &[Arc(State::TimeWait, "the peer acknowledged the FIN"), Arc(State::Close, "RST, or no answer to the FIN")],
    healthy: "Hardly ever seen: it needs FINs that cross, and lasts less than a round trip.",
    trouble: &[
        "Some that stay: ACKs of FINs are lost on the way, or the connection was closed with unsent data, which goes \
         first.",
        "Many that pass: both programs close at the same signal, such as the end of a message that both count.",
    ],
    look: &[("tcptrace conns --state CLOSING", "connections with the pattern simultaneous_close")],
    sysctls: &["net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_max_orphans"],
    rfcs: &[rfc(9293, "3.6", "simultaneous close (figure 13)")],
    examples: &[example(
        "simultaneous_close",
        "Two FINs cross: each arrives before the ACK of the own one, and both ends go through CLOSING to \
         TIME_WAIT.",
    )],
    see: &["teardown", "FIN_WAIT1", "TIME_WAIT"],
    ..Page::EMPTY
};

/// TIME_WAIT: what a connection leaves behind.
pub const TIME_WAIT: Page = Page {
    kind: Kind::State,
    name: "TIME_WAIT",
    aliases: &["TW"],
    summary: "The connection is over; its ports rest for 60 seconds.",
    text: &[
        "It has two uses: to answer a FIN that the peer sends again because our last ACK was lost, and to keep \
         segments of the old connection that are still on their way out of a new one with the same addresses and \
         ports.",
        "Linux keeps a remnant of some 250 bytes, without a process and without buffers, for 60 seconds. That time \
         is fixed in the kernel: tcp_fin_timeout does not change it, and tcp_tw_recycle is gone since Linux 4.12.",
        "It can end earlier: a SYN of the same peer and port with a newer timestamp or sequence number starts a new \
         connection from it, and connect() may reuse it as tcp_tw_reuse allows.",
    ],
    sides: &[
        ("active closer", "The side that has it: who closes first pays."),
        ("passive closer", "Has nothing left. Only in a simultaneous close both have it."),
    ],
    enters: &[
        Arc(State::FinWait2, "the peer's FIN arrived"),
        Arc(State::FinWait1, "one segment brought both: the peer's FIN and its ACK of ours"),
        Arc(State::Closing, "the peer acknowledged the FIN"),
    ],
    leaves: &[Arc(State::Close, "its 60 seconds are over, or it was reused or reset before")],
    healthy: "60 times the rate of connections that this host closes first. Tens of thousands are no problem by \
     themselves.",
    trouble: &[
        "On a client: connect() fails with EADDRNOTAVAIL when all local ports to one destination rest. With 28,000 \
         ports that takes 470 connections a second to one address and port.",
        "Remedies, best first: keep connections open (pool, HTTP keep-alive); more destination or source addresses; \
         a wider ip_local_port_range; tcp_tw_reuse=1 with timestamps on. Do not lower tcp_max_tw_buckets: the kernel \
         then skips TIME_WAIT, and late segments can end up in a new connection.",
        "On a server: bind() says EADDRINUSE after a restart. The program should set SO_REUSEADDR.",
    ],
    look: &[
        ("tcptrace conns --state TIME_WAIT", "who closes first, and how often"),
        ("tcptrace trace --requests", "also when each TIME_WAIT is left"),
        ("ss -tan state time-wait", "all that rest now"),
    ],
    sysctls: &[
        "net.ipv4.tcp_tw_reuse",
        "net.ipv4.tcp_tw_reuse_delay",
        "net.ipv4.tcp_timestamps",
        "net.ipv4.tcp_max_tw_buckets",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_rfc1337",
    ],
    options: &[
        ("SO_REUSEADDR", "bind() of a listener although connections of its port rest"),
        ("SO_LINGER", "a time of 0 sends a RST and skips TIME_WAIT, and the peer may lose data: no remedy"),
    ],
    rfcs: &[
        rfc(9293, "3.6", "closing a connection"),
        rfc(9293, "3.6.1", "half-closed connections"),
        rfc(1122, "4.2.2.13", "new SYNs in TIME-WAIT"),
        rfc(1337, "", "TIME-WAIT assassination"),
        rfc(6191, "2", "reuse with timestamps"),
    ],
    examples: &[example(
        "close_by_client",
        "The client closes first, and the TIME_WAIT is the client's. The server is done with the last ACK.",
    )],
    see: &["2msl", "short-connections", "teardown"],
};
