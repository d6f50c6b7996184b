//! Why a state changed and how a connection ended, in a few words.

use std::fmt::Write;

use tcptrace_common::record::flag;

use super::{cells, row::Tone};
use crate::model::{
    ClosedBy, Connection, Detail, End, Final, Left, Outcome, Patterns, Payload, Request, Shape, State, Transition,
};

/// A wording for wide terminals and one for narrow ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    pub long: &'static str,
    pub short: &'static str,
}

const fn words(long: &'static str, short: &'static str) -> Words {
    Words { long, short }
}

const fn same(text: &'static str) -> Words {
    words(text, text)
}

/// What brought the transition about.
pub fn transition(c: &Connection, t: &Transition) -> Words {
    use State::{
        Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynRecv, SynSent,
        TimeWait,
    };
    let is = |bit| t.flags & bit != 0;
    if t.is_found() {
        return words("records lost, found so", "found so");
    }
    if let Some(end) = t.end
        && end != End::Fin
    {
        return ended(end);
    }
    match (t.from, t.to) {
        (FinWait2, FinWait2) if t.kernel.is_some() => words("no process left", "orphaned"),
        // close() behind shutdown(), or with nothing left to do, sets the state that it is in.
        (from, to) if from == to => same("close()"),
        (Close, SynSent) => same("connect()"),
        (Close, Listen) => same("listen()"),
        (Listen | NewSynRecv, SynRecv) => words("final ACK: new socket", "final ACK"),
        (SynSent, SynRecv) => words("SYN from peer", "peer SYN"),
        (SynSent, Established) => same("SYN+ACK"),
        (SynRecv, Established) if c.patterns.0 & Patterns::SIMULTANEOUS_OPEN != 0 => same("SYN+ACK"),
        (SynRecv, Established) => same("final ACK"),
        (Established | SynRecv, FinWait1) if is(flag::SEND_SHUTDOWN) && !is(flag::RCV_SHUTDOWN | flag::DEAD) => {
            words("shutdown(SHUT_WR)", "shutdown")
        }
        (Established | SynRecv, FinWait1) | (Listen | SynSent, Close) => same("close()"),
        // The peer's FIN has set both shutdown flags already: which call it was cannot be told.
        (CloseWait, LastAck) => words("close() or shutdown()", "close()"),
        (Established | SynRecv, CloseWait) | (FinWait1, Closing) => words("FIN from peer", "peer FIN"),
        (FinWait1, FinWait2) | (Closing, TimeWait) | (LastAck, Close) => words("ACK of FIN", "FIN acked"),
        (FinWait2, TimeWait) if is(flag::SAME_SEGMENT) => same("FIN+ACK"),
        (FinWait1, TimeWait) => same("FIN+ACK"),
        (FinWait2, TimeWait) => words("FIN from peer", "peer FIN"),
        (TimeWait, Close) => same("expired"),
        // Nobody reported an error, so the process did it: close() with unread data or SO_LINGER 0, disconnect. A RST follows.
        (Established | CloseWait | SynRecv | FinWait1 | FinWait2, Close) if t.errno == 0 => {
            words("abortive close", "abort")
        }
        _ => same(""),
    }
}

/// What happened to a SYN or a request, and why.
pub fn request(r: &Request) -> (&'static str, Words, Tone) {
    match (r.outcome, r.detail) {
        (Some(Outcome::Queued), Some(Detail::Migrated)) => {
            ("half-open", words("moved from another listener", "migrated"), Tone::Plain)
        }
        (Some(Outcome::Queued), _) => ("half-open", words("SYN: SYN+ACK sent", "SYN"), Tone::Opening),
        (Some(Outcome::Completed), Some(Detail::Migrated)) => {
            ("accept queue", words("moved from another listener", "migrated"), Tone::Plain)
        }
        (Some(Outcome::Completed), Some(Detail::FastOpen)) => ("accept queue", same("Fast Open"), Tone::Good),
        (Some(Outcome::Completed), _) => ("accept queue", same("final ACK"), Tone::Good),
        (Some(Outcome::CookieCompleted), _) => ("accept queue", words("returned cookie", "cookie"), Tone::Good),
        (Some(Outcome::CookieSent), _) => ("nothing kept", words("SYN: cookie sent", "cookie"), Tone::Warn),
        (Some(Outcome::SynQueueFull), _) => ("SYN dropped", words("SYN queue full", "SYN queue"), Tone::Bad),
        (Some(Outcome::AcceptQueueFullSyn), _) => ("SYN dropped", words("accept queue full", "acc. queue"), Tone::Bad),
        (Some(Outcome::AcceptQueueFullAck), Some(Detail::Aborted)) => {
            ("handshake reset", words("accept queue full", "acc. queue"), Tone::Bad)
        }
        (Some(Outcome::AcceptQueueFullAck), _) => {
            ("final ACK dropped", words("accept queue full", "acc. queue"), Tone::Bad)
        }
        (Some(Outcome::Rst), _) => ("half-open gone", words("RST from peer", "peer RST"), Tone::Bad),
        (Some(Outcome::SynAckTimeout), _) => ("half-open gone", words("SYN+ACK unanswered", "no ACK"), Tone::Bad),
        (Some(Outcome::Other), Some(Detail::ListenerClosed)) => {
            ("half-open gone", words("listener closed", "listener"), Tone::Bad)
        }
        (Some(Outcome::Other), Some(Detail::IcmpError)) => {
            ("half-open gone", words("ICMP: unreachable", "ICMP"), Tone::Bad)
        }
        (Some(Outcome::Other), _) if r.snt_isn.is_none() => {
            ("SYN dropped", words("no memory or route", "no memory"), Tone::Bad)
        }
        (Some(Outcome::Other), _) => ("half-open gone", same("other"), Tone::Bad),
        (None, _) => ("half-open gone", words("end not seen", "not seen"), Tone::Dim),
    }
}

/// How a TIME_WAIT remnant went.
pub fn left(how: Left) -> Words {
    match how {
        Left::Expired => same("expired"),
        Left::Reused => words("reused by a new connection", "reused"),
        Left::Killed => words("killed", "killed"),
    }
}

/// How it ended, without who did it.
pub fn ended(end: End) -> Words {
    match end {
        End::Fin => same("FIN"),
        End::RstSent => same("RST sent"),
        End::RstReceived => words("RST from peer", "peer RST"),
        End::Refused => same("refused"),
        End::Unreachable => words("unreachable", "unreach."),
        End::ConnectTimeout => same("no answer"),
        End::RetransmitTimeout => words("no ACK, gave up", "no ACK"),
        End::KeepaliveTimeout => words("keepalive unanswered", "keepalive"),
        End::UserTimeout => words("user timeout", "timeout"),
        End::ListenerClosed => words("listener closed", "listener"),
        End::Killed => same("killed"),
        End::Overflow => words("accept queue full", "overflow"),
        End::Aborted => same("aborted"),
        // A state follows.
        End::Open => words("still ", ""),
    }
}

/// `killed by ss[123]`: who did it, where it was another process.
pub fn by(out: &mut String, c: &Connection, end: Option<End>) {
    if end == Some(End::Killed)
        && let Some(actor) = c.actor.as_deref()
    {
        out.push_str(" by ");
        cells::process(out, actor);
    }
}

/// How a connection ended and by whom.
pub fn end(out: &mut String, c: &Connection, f: &Final, wide: bool) {
    let words = f.end.map_or(words("end not seen", "not seen"), ended);
    out.push_str(if wide { words.long } else { words.short });
    match (f.end, f.closed_by) {
        // What it is in is what matters of one that is not over. `ss` has the short word, too.
        (Some(End::Open), _) if c.state == State::Established && !wide => out.push_str("ESTAB"),
        (Some(End::Open), _) => out.push_str(c.state.name()),
        (Some(End::Fin), Some(ClosedBy::Local)) => out.push_str(if wide { " by local" } else { " local" }),
        (Some(End::Fin), Some(ClosedBy::Remote)) => out.push_str(if wide { " by remote" } else { " remote" }),
        (Some(End::Fin), Some(ClosedBy::Both)) => out.push_str(if wide { " by both" } else { " both" }),
        (Some(End::RstSent), _) => {
            let unread = f.counters.as_ref().map_or(0, |n| Payload::new(n, Shape::of(c)).unread);
            if unread > 0 {
                out.push_str(if wide { ": unread data " } else { ": unread" });
                if wide {
                    super::format::bytes(out, u64::from(unread));
                }
            }
        }
        _ => by(out, c, f.end),
    }
    let retrans = f.counters.map_or(0, |n| n.retrans);
    if retrans > 0 && !wide {
        write!(out, " {retrans}rtx").expect("a String takes everything");
    }
}

/// Colour of the end of a connection: of one that is not over, that of its state.
pub fn final_tone(c: &Connection, f: &Final) -> Tone {
    match f.end {
        None => Tone::Warn,
        Some(End::Open) => state_tone(c.state),
        Some(end) => end_tone(end),
    }
}

/// Colour of an end.
pub fn end_tone(end: End) -> Tone {
    match end {
        End::Fin => Tone::Plain,
        End::Open => Tone::Dim,
        End::Aborted | End::ListenerClosed => Tone::Warn,
        End::RstSent
        | End::RstReceived
        | End::Refused
        | End::Unreachable
        | End::ConnectTimeout
        | End::RetransmitTimeout
        | End::KeepaliveTimeout
        | End::UserTimeout
        | End::Killed
        | End::Overflow => Tone::Bad,
    }
}

/// Colour of a state.
pub fn state_tone(state: State) -> Tone {
    match state {
        State::Established => Tone::Good,
        State::SynSent | State::SynRecv | State::NewSynRecv | State::Listen => Tone::Opening,
        State::FinWait1 | State::FinWait2 | State::CloseWait | State::LastAck | State::Closing => Tone::Warn,
        State::TimeWait | State::Close => Tone::Dim,
    }
}
