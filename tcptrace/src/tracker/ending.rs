//! How a connection ended and who closed it, judged by its last transition and what came before.

use tcptrace_common::record::{Closed, Counters, Head, flag, option};

use crate::model::{CloseSegments, ClosedBy, Connection, End, Final, Inferred, Patterns, Role, State};

/// Error numbers of Linux that end connections.
mod errno {
    pub const EACCES: u8 = 13;
    pub const EPIPE: u8 = 32;
    pub const ENONET: u8 = 64;
    pub const EPROTO: u8 = 71;
    pub const EMSGSIZE: u8 = 90;
    pub const ENOPROTOOPT: u8 = 92;
    pub const EOPNOTSUPP: u8 = 95;
    pub const ENETUNREACH: u8 = 101;
    pub const ECONNABORTED: u8 = 103;
    pub const ECONNRESET: u8 = 104;
    pub const ETIMEDOUT: u8 = 110;
    pub const ECONNREFUSED: u8 = 111;
    pub const EHOSTDOWN: u8 = 112;
    pub const EHOSTUNREACH: u8 = 113;
}

/// What a transition to CLOSE means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The socket went and a TIME_WAIT remnant stays: the tracepoint never says so.
    TimeWait,
    /// The socket went and a remnant in FIN_WAIT2 stays (`tcp_time_wait(FIN_WAIT2)`): the peer's FIN is still to come.
    Orphan,
    /// It is over.
    Over(End),
    /// A RST may still follow, which would explain it.
    Undecided { otherwise: End, past_destroy: bool },
    /// A child that lost the race for its request or could not be set up: no connection.
    Phantom,
}

/// Judge `from`→CLOSE of a connection. `c` is as it was in `from`.
pub(super) fn judge(c: &Connection, from: State, closed: &Closed) -> Verdict {
    let (err, flags) = (closed.head.err, closed.head.flags);
    let has = |bits: u16| flags & bits == bits;
    let received = c.notes.rst_received || err == errno::ECONNRESET || err == errno::EPIPE;
    let sent = c.notes.rst_sent;
    if err == errno::ECONNABORTED {
        return Verdict::Over(End::Killed);
    }
    if from == State::SynSent {
        return Verdict::Over(match err {
            0 => End::Aborted,
            errno::ECONNREFUSED | errno::ENOPROTOOPT => End::Refused,
            errno::ETIMEDOUT => End::ConnectTimeout,
            errno::ECONNRESET => End::RstReceived,
            _ if unreachable(err) => End::Unreachable,
            _ => End::Aborted,
        });
    }
    if err == 0 && !received && !sent {
        let room = flags & flag::TW_FULL == 0;
        match from {
            State::FinWait1 | State::FinWait2 | State::Closing if has(flag::RCV_SHUTDOWN | flag::DONE) => {
                return if room { Verdict::TimeWait } else { Verdict::Over(End::Fin) };
            }
            State::FinWait2 if room && has(flag::DEAD) && flags & (flag::DONE | flag::LINGER2) == 0 => {
                return Verdict::Orphan;
            }
            State::LastAck => return Verdict::Over(End::Fin),
            State::SynRecv if c.role != Some(Role::Client) && !c.notes.accepted && has(flag::NO_SOCKET) => {
                return Verdict::Phantom;
            }
            _ => {}
        }
    }
    if received {
        // Data for a receiver that is gone: `tcp_rcv_state_process` runs `tcp_reset` as if a RST had come and answers with
        // one. One that did come would not be answered.
        let data_after_close =
            matches!(from, State::FinWait1 | State::FinWait2) && has(flag::RCV_SHUTDOWN) && !has(flag::DONE);
        return if data_after_close {
            Verdict::Undecided { otherwise: End::RstReceived, past_destroy: true }
        } else {
            Verdict::Over(End::RstReceived)
        };
    }
    if err == errno::ETIMEDOUT {
        return Verdict::Over(timeout(sent, &closed.counters));
    }
    if unreachable(err) {
        return Verdict::Over(End::Unreachable);
    }
    let queued = has(flag::NO_SOCKET) && !has(flag::DEAD) && !c.notes.accepted && c.role != Some(Role::Client);
    if err == 0 && queued && matches!(from, State::Established | State::CloseWait) {
        return Verdict::Over(End::ListenerClosed);
    }
    if sent {
        return Verdict::Over(End::RstSent);
    }
    if err == 0 {
        return Verdict::Undecided { otherwise: End::Aborted, past_destroy: false };
    }
    Verdict::Over(End::Aborted)
}

/// `icmp_err_convert` and its IPv6 sister, without what the peer's own host says (port and protocol unreachable).
const fn unreachable(err: u8) -> bool {
    matches!(
        err,
        errno::EHOSTUNREACH
            | errno::ENETUNREACH
            | errno::EHOSTDOWN
            | errno::ENONET
            | errno::EOPNOTSUPP
            | errno::EMSGSIZE
            | errno::EPROTO
            | errno::EACCES
    )
}

/// The keepalive timer sends a RST before it gives up (`tcp_keepalive_timer`), the retransmission timer none.
const fn timeout(rst_sent: bool, c: &Counters) -> End {
    if rst_sent && c.packets_out == 0 {
        End::KeepaliveTimeout
    } else if c.options & option::USER_TIMEOUT != 0 {
        End::UserTimeout
    } else {
        End::RetransmitTimeout
    }
}

/// Note what a transition says of the close. `seen`: the entry into `from` was seen, so what the kernel kept there holds.
pub(super) fn note(c: &mut Connection, from: State, to: State, head: &Head, seen: bool) {
    let has = |bits: u16| head.flags & bits == bits;
    let compared = seen && !has(flag::SEQ_ABSENT);
    match (from, to) {
        (_, State::FinWait1) => {
            c.notes.closed_by.get_or_insert(ClosedBy::Local);
            c.notes.half_closed = !has(flag::RCV_SHUTDOWN);
        }
        (_, State::FinWait2) => {
            c.notes.closed_by.get_or_insert(ClosedBy::Local);
            if c.notes.half_closed {
                c.patterns.0 |= Patterns::HALF_CLOSE;
            }
        }
        (_, State::Closing) => {
            c.notes.closed_by = Some(ClosedBy::Both);
            c.patterns.0 |= Patterns::SIMULTANEOUS_CLOSE;
        }
        (_, State::CloseWait) => {
            c.notes.closed_by.get_or_insert(ClosedBy::Remote);
        }
        (State::CloseWait, State::LastAck) => {
            c.notes.closed_by.get_or_insert(ClosedBy::Remote);
            if compared && has(flag::DATA_AFTER_FIN) {
                c.patterns.0 |= Patterns::HALF_CLOSE;
            }
            let three = has(flag::SAME_SEGMENT) && !has(flag::DATA_AFTER_FIN);
            c.notes.segments = compared.then_some(if three { CloseSegments::Three } else { CloseSegments::Four });
        }
        (State::FinWait2, State::Close | State::TimeWait) if has(flag::DONE) => {
            let three = has(flag::SAME_SEGMENT);
            if three {
                // Our FIN's ACK brought the peer's FIN: nothing was received in between.
                c.patterns.0 &= !Patterns::HALF_CLOSE;
            }
            c.notes.segments = compared.then_some(if three { CloseSegments::Three } else { CloseSegments::Four });
        }
        (State::SynSent, State::SynRecv) => {
            c.patterns.0 |= Patterns::SIMULTANEOUS_OPEN;
            note_self_connect(c);
        }
        _ => {}
    }
}

/// A socket that is connected to itself opens simultaneously with itself.
pub(super) fn note_self_connect(c: &mut Connection) {
    let t = &c.tuple;
    if c.patterns.0 & Patterns::SIMULTANEOUS_OPEN != 0 && t.lport != 0 && t.lport == t.rport && t.laddr == t.raddr {
        c.patterns.0 |= Patterns::SELF_CONNECT;
    }
}

/// What being in `state` says of a connection whose way there was not seen.
pub(super) fn note_state(c: &mut Connection, state: State) {
    let by = match state {
        State::FinWait1 | State::FinWait2 => ClosedBy::Local,
        State::CloseWait | State::LastAck => ClosedBy::Remote,
        State::Closing => {
            c.patterns.0 |= Patterns::SIMULTANEOUS_CLOSE;
            c.notes.closed_by = Some(ClosedBy::Both);
            return;
        }
        State::Established
        | State::SynSent
        | State::SynRecv
        | State::TimeWait
        | State::Close
        | State::Listen
        | State::NewSynRecv => return,
    };
    c.notes.closed_by.get_or_insert(by);
}

/// The end of a connection whose transition to CLOSE was lost, and after which its socket was used again or destroyed.
pub(super) fn unseen(c: &mut Connection) -> End {
    c.inferred.0 |= Inferred::END;
    lost(c).unwrap_or(End::Aborted)
}

/// How a connection ended that is not there any more and whose last records were lost, as far as what came before them tells.
pub(super) fn lost(c: &Connection) -> Option<End> {
    match c.state {
        _ if c.notes.rst_sent => Some(End::RstSent),
        _ if c.notes.rst_received => Some(End::RstReceived),
        State::FinWait2 | State::Closing | State::LastAck | State::TimeWait => Some(End::Fin),
        State::Established
        | State::SynSent
        | State::SynRecv
        | State::FinWait1
        | State::Close
        | State::CloseWait
        | State::Listen
        | State::NewSynRecv => None,
    }
}

/// Who closed, where the way it ended says so.
fn closed_by(c: &Connection, end: End) -> Option<ClosedBy> {
    match end {
        End::RstSent | End::Killed | End::ListenerClosed | End::Overflow => Some(ClosedBy::Local),
        End::Aborted => (c.inferred.0 & Inferred::END == 0).then_some(ClosedBy::Local),
        End::RstReceived | End::Refused => Some(ClosedBy::Remote),
        End::Unreachable | End::ConnectTimeout | End::RetransmitTimeout | End::KeepaliveTimeout | End::UserTimeout => {
            Some(ClosedBy::None)
        }
        End::Fin | End::Open => None,
    }
}

/// All that is known only at the end, which is not before the latest state.
pub(super) fn conclude(c: &Connection, ts: u64, end: Option<End>, errno: u8, counters: Option<Counters>) -> Final {
    let by_end = end.and_then(|end| closed_by(c, end));
    let established = c.states.entered(State::Established);
    let opened = match c.role {
        Some(Role::Client) => c.states.entered(State::SynSent),
        Some(Role::Server) if c.states.iter().any(|(state, _)| state == State::NewSynRecv) => {
            c.states.entered(State::NewSynRecv)
        }
        Some(Role::Server) => c.states.entered(State::SynRecv),
        Some(Role::Listener) | None => None,
    };
    // Of a client that got no further the kernel's own count is of SYNs alone, and has what no record told of.
    let further = |(state, _)| matches!(state, State::SynRecv | State::Established);
    let syns = counters
        .filter(|_| c.role == Some(Role::Client) && opened.is_some() && !c.states.iter().any(further))
        .map(|counters| counters.retrans);
    let told = (c.notes.syn_retrans != u16::MAX && c.role != Some(Role::Server)).then_some(c.notes.syn_retrans.into());
    let known = |v: u64| (v != u64::MAX).then_some(v);
    let latest = c.start_ns.saturating_add(c.states.last().map_or(0, |e| e.at));
    Final {
        ts: ts.max(latest),
        late: false,
        end,
        closed_by: c.notes.closed_by.or(by_end),
        close_segments: c.notes.segments.filter(|_| end == Some(End::Fin)),
        errno,
        counters,
        syn_retrans: told.max(syns),
        handshake_ns: opened.zip(established).and_then(|(opened, established)| established.checked_sub(opened)),
        accept_wait_ns: known(c.notes.accept_wait).filter(|_| !c.notes.in_queue),
        stack: None,
    }
}
