//! Signals: what we want to know, each with its hook candidates, best first. The first one that loads and attaches wins.

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, KProbe, Program, ProgramError},
};
use tcptrace_common::settings::program;

use super::Error;

/// A signal and the hook that serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// What it tells.
    pub name: &'static str,
    /// Hook in use, for example `tp_btf:inet_sock_set_state`; None: no candidate works here.
    pub hook: Option<String>,
    /// Better candidates, and why each was refused.
    pub refused: Vec<(String, String)>,
    /// Kernel program behind the hook.
    pub program: Option<&'static str>,
    /// A second program on the same hook, which takes what the first must skip because it would interrupt itself.
    pub second: Option<&'static str>,
}

/// Kinds of hooks, best first. A signal takes the best candidate that works; a tier other than the first passes better ones over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// fentry and fexit: the least overhead, typed arguments.
    #[default]
    Fentry,
    /// kprobe and kretprobe.
    Kprobe,
    /// Typed tracepoints alone.
    Tracepoint,
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        })
    }
}

/// A way to learn a signal.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Name of the program in the object.
    program: &'static str,
    hook: Hook,
}

#[derive(Clone, Copy, Debug)]
enum Hook {
    Tracepoint(&'static str),
    Fentry(&'static str),
    Kprobe(&'static str),
}

impl Hook {
    fn tier(self) -> Tier {
        match self {
            Self::Tracepoint(_) => Tier::Tracepoint,
            Self::Fentry(_) => Tier::Fentry,
            Self::Kprobe(_) => Tier::Kprobe,
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tracepoint(name) => write!(f, "tp_btf:{name}"),
            Self::Fentry(name) => write!(f, "fentry:{name}"),
            Self::Kprobe(name) => write!(f, "kprobe:{name}"),
        }
    }
}

struct Wanted {
    name: &'static str,
    /// Without it there is nothing to trace.
    required: bool,
    candidates: &'static [Candidate],
    /// See [`Signal::second`].
    second: Option<Candidate>,
}

const fn tracepoint(name: &'static str) -> Candidate {
    Candidate { program: name, hook: Hook::Tracepoint(name) }
}

/// Everything that tracing connections needs, in the order of attachment: what makes timelines comes last, so that nothing
/// that belongs to a transition is missed once transitions are seen.
const WANTED: &[Wanted] = &[
    Wanted {
        name: "accept",
        required: false,
        candidates: &[
            Candidate { program: "sock_graft_fentry", hook: Hook::Fentry("security_sock_graft") },
            Candidate { program: "sock_graft_kprobe", hook: Hook::Kprobe("security_sock_graft") },
            Candidate { program: "sys_exit", hook: Hook::Tracepoint("sys_exit") },
        ],
        second: None,
    },
    Wanted { name: "destroy", required: false, candidates: &[tracepoint("tcp_destroy_sock")], second: None },
    Wanted { name: "reset_sent", required: false, candidates: &[tracepoint("tcp_send_reset")], second: None },
    Wanted { name: "reset_received", required: false, candidates: &[tracepoint("tcp_receive_reset")], second: None },
    Wanted { name: "retransmit", required: false, candidates: &[tracepoint("tcp_retransmit_skb")], second: None },
    Wanted {
        name: "synack_retransmit",
        required: false,
        candidates: &[tracepoint("tcp_retransmit_synack")],
        second: None,
    },
    Wanted { name: "error", required: false, candidates: &[tracepoint("inet_sk_error_report")], second: None },
    Wanted {
        name: "state",
        required: true,
        candidates: &[tracepoint("inet_sock_set_state")],
        second: Some(Candidate {
            program: "inet_sock_set_state_nested",
            hook: Hook::Tracepoint("inet_sock_set_state"),
        }),
    },
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
    names
};

/// Attach the best candidate of every signal, none of a better tier than `tier`.
///
/// # Errors
/// A required signal without a working candidate.
pub(super) fn attach_all(ebpf: &mut Ebpf, btf: &Btf, tier: Tier) -> Result<Vec<Signal>, Error> {
    let mut signals = Vec::with_capacity(WANTED.len());
    for wanted in WANTED {
        let mut signal = Signal { name: wanted.name, hook: None, refused: Vec::new(), ..Signal::default() };
        let mut last = None;
        for candidate in wanted.candidates {
            if candidate.hook.tier() < tier {
                signal.refused.push((candidate.hook.to_string(), format!("passed over by --tier {tier}")));
                continue;
            }
            let program = ebpf.program_mut(candidate.program).ok_or_else(|| Error::missing(candidate.program))?;
            match attach(program, candidate.hook, btf) {
                Ok(()) => {
                    signal.hook = Some(candidate.hook.to_string());
                    signal.program = Some(candidate.program);
                    attach_second(ebpf, wanted.second, btf, &mut signal)?;
                    break;
                }
                Err(error) => {
                    signal.refused.push((candidate.hook.to_string(), reason(&error)));
                    last = Some(error);
                }
            }
        }
        if let (true, None, Some(error)) = (wanted.required, &signal.hook, last) {
            return Err(Error::Signal { signal: wanted.name, reason: reason(&error) });
        }
        signals.push(signal);
    }
    Ok(signals)
}

/// Without it more runs are missed, and counted as such; `doctor` says why.
fn attach_second(ebpf: &mut Ebpf, second: Option<Candidate>, btf: &Btf, signal: &mut Signal) -> Result<(), Error> {
    let Some(second) = second else { return Ok(()) };
    let program = ebpf.program_mut(second.program).ok_or_else(|| Error::missing(second.program))?;
    match attach(program, second.hook, btf) {
        Ok(()) => signal.second = Some(second.program),
        Err(error) => signal.refused.push((format!("a second {}", second.hook), reason(&error))),
    }
    Ok(())
}

fn attach(program: &mut Program, hook: Hook, btf: &Btf) -> Result<(), ProgramError> {
    match hook {
        Hook::Tracepoint(name) => {
            let p: &mut BtfTracePoint = program.try_into()?;
            p.load(name, btf)?;
            p.attach().map(drop)
        }
        Hook::Fentry(name) => {
            let p: &mut FEntry = program.try_into()?;
            p.load(name, btf)?;
            p.attach().map(drop)
        }
        Hook::Kprobe(name) => {
            let p: &mut KProbe = program.try_into()?;
            p.load()?;
            p.attach(name, 0).map(drop)
        }
    }
}

/// Why a candidate does not work, in a few words. The classes are those that were seen: a missing symbol is a BTF error, a
/// program type that the kernel refuses leaves the verifier's log empty, a kernel without kprobes has no device for them.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::Btf(_) => "this kernel has no such symbol".to_owned(),
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let footer = ["processed ", "stack depth ", "verification time "];
            match log.lines().rev().find(|line| !line.is_empty() && !footer.iter().any(|f| line.starts_with(f))) {
                Some(line) => format!("refused by the verifier: {line}"),
                None => format!("refused by this kernel: {}", plain(io_error)),
            }
        }
        ProgramError::KProbeError(error) => format!("cannot be attached: {}", root(error)),
        other => format!("cannot be attached: {}", root(other)),
    }
}

/// The innermost error.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    plain(inner)
}

/// The system's words without `(os error 2)`.
fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}
