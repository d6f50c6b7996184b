//! Every signal and its candidates.

use tcptrace_common::settings::{program, second};

use super::{
    super::objects::{Globals, Object},
    Candidate, Hook, Part, Second, Tier,
};

/// A signal that is asked for.
pub(super) struct Wanted {
    pub name: &'static str,
    /// Without it there is nothing to trace.
    pub required: bool,
    /// It is wanted where only listeners matter, too.
    pub listeners: bool,
    pub candidates: &'static [Candidate],
    /// Its tracepoints' programs are those of this signal, and tell it only if they serve that one, too.
    pub rides_on: Option<&'static str>,
    /// A tracepoint tells it as well as any other hook.
    pub exact_by_tracepoint: bool,
    /// What the kernel counts where no candidate works; read in every interval.
    pub counters: Option<&'static str>,
    /// Only `queues` wants it.
    pub audit: bool,
    /// Only a trace of processes with all that descend from them wants it.
    pub descendants: bool,
    /// Only `watch` wants it.
    pub probes: bool,
}

/// What a candidate rests on besides its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Address of the timer function of half-open requests.
    ReqskTimer,
    /// Address of the timer function of TIME_WAIT sockets.
    TwTimer,
    /// Number of the reason for a drop at a full accept queue.
    ListenOverflow,
    /// Number of the reason for a RST that no socket stands behind.
    NoSocketReset,
    /// Number of the reason for a drop for which no socket could be found.
    NoSocketDrop,
}

impl Need {
    /// The symbol or enumerator.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::ReqskTimer => "reqsk_timer_handler",
            Self::TwTimer => "tw_timer_handler",
            Self::ListenOverflow => "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW",
            Self::NoSocketReset => "SK_RST_REASON_NO_SOCKET",
            Self::NoSocketDrop => "SKB_DROP_REASON_NO_SOCKET",
        }
    }

    pub fn is_met(self, globals: &Globals) -> bool {
        match self {
            Self::ReqskTimer => globals.reqsk_timer != 0,
            Self::TwTimer => globals.tw_timer != 0,
            Self::ListenOverflow => globals.overflow_reason != 0,
            Self::NoSocketReset => globals.no_socket_reason != 0,
            Self::NoSocketDrop => globals.no_socket_drop != 0,
        }
    }

    pub fn reason(self) -> String {
        match self {
            Self::ReqskTimer | Self::TwTimer => {
                format!("the kernel shows no address of {} (see kernel.kptr_restrict)", self.symbol())
            }
            Self::ListenOverflow | Self::NoSocketDrop => format!("this kernel has no drop reason {}", self.symbol()),
            Self::NoSocketReset => format!("this kernel does not tell why it sends a RST ({})", self.symbol()),
        }
    }
}

const fn tp(program: &'static str, name: &'static str) -> Part {
    Part { program, hook: Hook::Tracepoint(name), hot: false, second: None }
}

/// A tracepoint that other work passes, too.
const fn hot(program: &'static str, name: &'static str) -> Part {
    Part { program, hook: Hook::Tracepoint(name), hot: true, second: None }
}

/// Exits of system calls: each makes every system call of the host a little slower.
const fn exits(program: &'static str, names: &'static [&'static str]) -> Part {
    Part { program, hook: Hook::Exits(names), hot: true, second: None }
}

/// A tracepoint with a second program behind the first: `pair!(tp("program", "tracepoint"), NUMBER)`.
macro_rules! pair {
    ($kind:ident($program:literal, $name:literal), $number:ident) => {
        Part {
            second: Some(Second { program: concat!($program, "_nested"), number: second::$number }),
            ..$kind($program, $name)
        }
    };
}

const fn entry(program: &'static str, name: &'static str) -> Part {
    Part { program, hook: Hook::Fentry(name), hot: false, second: None }
}

const fn exit(program: &'static str, name: &'static str) -> Part {
    Part { program, hook: Hook::Fexit(name), hot: false, second: None }
}

const fn probe(program: &'static str, name: &'static str) -> Part {
    Part { program, hook: Hook::Kprobe(name), hot: false, second: None }
}

const fn ret(program: &'static str, name: &'static str) -> Part {
    Part { program, hook: Hook::Kretprobe(name), hot: false, second: None }
}

const fn core(tier: Tier, parts: &'static [Part]) -> Candidate {
    Candidate { tier, object: Object::Core, needs: &[], parts }
}

const fn fentry(parts: &'static [Part]) -> Candidate {
    Candidate { tier: Tier::Fentry, object: Object::Fentry, needs: &[], parts }
}

const fn kprobe(parts: &'static [Part]) -> Candidate {
    Candidate { tier: Tier::Kprobe, object: Object::Kprobe, needs: &[], parts }
}

const fn tracepoint(needs: &'static [Need], parts: &'static [Part]) -> Candidate {
    Candidate { tier: Tier::Tracepoint, object: Object::Tracepoint, needs, parts }
}

/// A signal about connections.
const fn connection(name: &'static str, listeners: bool, candidates: &'static [Candidate]) -> Wanted {
    Wanted {
        name,
        required: false,
        listeners,
        candidates,
        exact_by_tracepoint: true,
        counters: None,
        audit: false,
        descendants: false,
        probes: false,
        rides_on: None,
    }
}

/// A signal about queues.
const fn queue(name: &'static str, counters: Option<&'static str>, candidates: &'static [Candidate]) -> Wanted {
    Wanted {
        name,
        required: false,
        listeners: true,
        candidates,
        exact_by_tracepoint: false,
        counters,
        audit: false,
        descendants: false,
        probes: false,
        rides_on: None,
    }
}

/// A signal about queues that only their account needs.
const fn audit(wanted: Wanted) -> Wanted {
    Wanted { audit: true, ..wanted }
}

/// A signal about queues that another one's tracepoints tell.
const fn riding(wanted: Wanted, on: &'static str) -> Wanted {
    Wanted { rides_on: Some(on), ..wanted }
}

/// Everything that tracing connections needs, in the order of attachment: what makes timelines comes last, so that nothing
/// that belongs to a transition is missed once transitions are seen.
pub(super) const CONNECTIONS: &[Wanted] = &[
    Wanted {
        descendants: true,
        required: true,
        ..connection(
            "fork",
            true,
            &[core(Tier::Tracepoint, &[pair!(tp("sched_process_fork", "sched_process_fork"), FORK)])],
        )
    },
    connection(
        "accept",
        true,
        &[
            core(Tier::Fentry, &[entry("sock_graft_fentry", "security_sock_graft")]),
            core(Tier::Kprobe, &[probe("sock_graft_kprobe", "security_sock_graft")]),
            core(
                Tier::Tracepoint,
                &[
                    exits("exit_accept", &["sys_exit_accept4", "sys_exit_accept"]),
                    exits("exit_listen", &["sys_exit_listen"]),
                ],
            ),
            core(Tier::Tracepoint, &[hot("sys_exit", "sys_exit")]),
        ],
    ),
    connection(
        "destroy",
        true,
        &[core(Tier::Tracepoint, &[pair!(tp("tcp_destroy_sock", "tcp_destroy_sock"), DESTROY)])],
    ),
    connection(
        "reset_sent",
        false,
        &[core(Tier::Tracepoint, &[pair!(tp("tcp_send_reset", "tcp_send_reset"), SEND_RESET)])],
    ),
    connection(
        "reset_received",
        false,
        &[core(Tier::Tracepoint, &[pair!(tp("tcp_receive_reset", "tcp_receive_reset"), RECEIVE_RESET)])],
    ),
    connection(
        "retransmit",
        false,
        &[core(Tier::Tracepoint, &[pair!(tp("tcp_retransmit_skb", "tcp_retransmit_skb"), RETRANSMIT)])],
    ),
    connection(
        "synack_retransmit",
        true,
        &[core(Tier::Tracepoint, &[tp("tcp_retransmit_synack", "tcp_retransmit_synack")])],
    ),
    Wanted {
        probes: true,
        ..connection(
            "probes",
            false,
            &[
                Candidate {
                    needs: &[Need::NoSocketReset],
                    ..core(Tier::Tracepoint, &[pair!(tp("probe", "tcp_send_reset"), PROBE)])
                },
                Candidate {
                    needs: &[Need::NoSocketDrop],
                    ..core(Tier::Tracepoint, &[pair!(hot("probe_dropped", "kfree_skb"), PROBE)])
                },
            ],
        )
    },
    connection(
        "error",
        false,
        &[core(Tier::Tracepoint, &[pair!(tp("inet_sk_error_report", "inet_sk_error_report"), ERROR)])],
    ),
    Wanted {
        name: "state",
        required: true,
        listeners: true,
        candidates: &[core(Tier::Tracepoint, &[pair!(tp("inet_sock_set_state", "inet_sock_set_state"), STATE)])],
        exact_by_tracepoint: true,
        counters: None,
        audit: false,
        descendants: false,
        probes: false,
        rides_on: None,
    },
];

const HASH_ADD: &str = "inet_csk_reqsk_queue_hash_add";
const QUEUE_DROP: &str = "__inet_csk_reqsk_queue_drop";
const HASHDANCE: &str = "inet_csk_complete_hashdance";
const SYN_RECV: [&str; 2] = ["tcp_v4_syn_recv_sock", "tcp_v6_syn_recv_sock"];
const COOKIE: [&str; 2] = ["cookie_v4_init_sequence", "cookie_v6_init_sequence"];

const MARKS: Part = pair!(hot("state_marks", "inet_sock_set_state"), MARKS);

/// All four serve half-open requests and TIME_WAIT.
const TIMERS: &[Part] = &[
    MARKS,
    hot("timer_start", "timer_start"),
    hot("timer_cancel", "timer_cancel"),
    hot("timer_expire_entry", "timer_expire_entry"),
    hot("timer_expire_exit", "timer_expire_exit"),
];

/// Both tell how a connection came into an accept queue.
const CHILDREN: &[Part] = &[MARKS, pair!(hot("sk_data_ready", "sk_data_ready"), READY)];

/// Everything about queues, in the order of attachment: what ends comes before what begins, and a function's return before its
/// entry, so that nothing is begun and never ended.
pub(super) const QUEUES: &[Wanted] = &[
    queue(
        "accept_queue",
        None,
        &[
            fentry(&[exit("hashdance_exit", HASHDANCE), entry("hashdance", HASHDANCE)]),
            // Before Linux 6.18 the child has no cookie until it is established.
            kprobe(&[
                pair!(tp("established", "inet_sock_set_state"), ESTABLISHED),
                ret("hashdance_exit", HASHDANCE),
                probe("hashdance", HASHDANCE),
            ]),
            tracepoint(&[], CHILDREN),
        ],
    ),
    queue(
        "overflow",
        Some("ListenOverflows+sk_drops"),
        &[
            fentry(&[exit("syn_recv_v4_exit", SYN_RECV[0]), exit("syn_recv_v6_exit", SYN_RECV[1])]),
            kprobe(&[
                ret("syn_recv_v4_exit", SYN_RECV[0]),
                probe("syn_recv_v4", SYN_RECV[0]),
                ret("syn_recv_v6_exit", SYN_RECV[1]),
                probe("syn_recv_v6", SYN_RECV[1]),
            ]),
            tracepoint(&[Need::ListenOverflow], &[pair!(hot("kfree_skb", "kfree_skb"), DROPPED)]),
        ],
    ),
    queue(
        "half_open",
        None,
        &[
            fentry(&[exit("queue_drop_exit", QUEUE_DROP), exit("hash_add_exit", HASH_ADD)]),
            kprobe(&[
                ret("queue_drop_exit", QUEUE_DROP),
                probe("queue_drop", QUEUE_DROP),
                ret("hash_add_exit", HASH_ADD),
                probe("hash_add", HASH_ADD),
            ]),
            tracepoint(&[Need::ReqskTimer], TIMERS),
        ],
    ),
    // Without it an ICMP error passes for a RST.
    queue(
        "icmp_error",
        None,
        &[fentry(&[entry("req_err", "tcp_req_err")]), kprobe(&[probe("req_err", "tcp_req_err")])],
    ),
    audit(queue(
        "segments_not_taken",
        Some("sk_drops"),
        &[
            fentry(&[exit("check_req_exit", "tcp_check_req")]),
            kprobe(&[ret("check_req_exit", "tcp_check_req"), probe("check_req", "tcp_check_req")]),
        ],
    )),
    riding(
        queue(
            "migration",
            None,
            &[
                fentry(&[exit("clone_exit", "inet_reqsk_clone")]),
                kprobe(&[ret("clone_exit", "inet_reqsk_clone"), probe("clone", "inet_reqsk_clone")]),
                tracepoint(&[Need::ReqskTimer], TIMERS),
            ],
        ),
        "half_open",
    ),
    // By tracepoints: those that came back. How many were sent, the counters tell.
    riding(
        queue(
            "cookies",
            None,
            &[
                fentry(&[
                    entry("cookie_v4", COOKIE[0]),
                    entry("cookie_v6", COOKIE[1]),
                    exit("cookie_child_exit", "tcp_get_cookie_sock"),
                ]),
                kprobe(&[
                    probe("cookie_v4", COOKIE[0]),
                    probe("cookie_v6", COOKIE[1]),
                    ret("cookie_child_exit", "tcp_get_cookie_sock"),
                    probe("cookie_child", "tcp_get_cookie_sock"),
                ]),
                tracepoint(&[], CHILDREN),
            ],
        ),
        "accept_queue",
    ),
    riding(
        queue(
            "fast_open",
            None,
            &[
                fentry(&[exit("fast_open_exit", "tcp_try_fastopen")]),
                kprobe(&[ret("fast_open_exit", "tcp_try_fastopen"), probe("fast_open", "tcp_try_fastopen")]),
                tracepoint(&[], CHILDREN),
            ],
        ),
        "accept_queue",
    ),
    queue(
        "syn_outcome",
        Some("ListenDrops+TCPReqQFullDrop+sk_drops"),
        &[
            fentry(&[exit("conn_request_exit", "tcp_conn_request"), entry("conn_request", "tcp_conn_request")]),
            kprobe(&[ret("conn_request_exit", "tcp_conn_request"), probe("conn_request", "tcp_conn_request")]),
        ],
    ),
    queue(
        "time_wait",
        None,
        &[
            fentry(&[entry("time_wait_kill", "inet_twsk_kill"), entry("time_wait", "tcp_time_wait")]),
            kprobe(&[probe("time_wait_kill", "inet_twsk_kill"), probe("time_wait", "tcp_time_wait")]),
            tracepoint(&[Need::TwTimer], TIMERS),
        ],
    ),
];

/// Names of the programs by their number in the loss counters.
pub const PROGRAMS: [&str; program::COUNT] = {
    let mut names = [""; program::COUNT];
    names[program::INET_SOCK_SET_STATE] = "inet_sock_set_state";
    names[program::TCP_DESTROY_SOCK] = "tcp_destroy_sock";
    names[program::TCP_SEND_RESET] = "tcp_send_reset";
    names[program::TCP_RECEIVE_RESET] = "tcp_receive_reset";
    names[program::TCP_RETRANSMIT_SKB] = "tcp_retransmit_skb";
    names[program::TCP_RETRANSMIT_SYNACK] = "tcp_retransmit_synack";
    names[program::INET_SK_ERROR_REPORT] = "inet_sk_error_report";
    names[program::ACCEPT] = "accept";
    names[program::HALF_OPEN] = "half_open";
    names[program::SYN_OUTCOME] = "syn_outcome";
    names[program::ACCEPT_QUEUE] = "accept_queue";
    names[program::OVERFLOW] = "overflow";
    names[program::COOKIES] = "cookies";
    names[program::FAST_OPEN] = "fast_open";
    names[program::MIGRATION] = "migration";
    names[program::TIME_WAIT] = "time_wait";
    names[program::NOT_TAKEN] = "segments_not_taken";
    names[program::FORK] = "sched_process_fork";
    names[program::RECEIVED] = "received";
    names[program::PROBES] = "probes";
    names
};
