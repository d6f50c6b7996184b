//! Which transitions there are: RFC 9293 section 3.3.2 (figure 5 and its notes) and what Linux adds to it.

use crate::model::State;

/// The states that may follow `from`, as a set of bits.
const fn after(from: State) -> u16 {
    match from {
        State::Close => set(&[State::SynSent, State::Listen]),
        // The child of a listener starts as LISTEN; a listener that connects is the RFC's, Linux refuses it.
        State::Listen => set(&[State::SynRecv, State::SynSent]),
        State::SynSent => set(&[State::Established, State::SynRecv]),
        // CLOSE_WAIT: Linux takes a FIN in SYN_RECV (`tcp_fin`), which a child that was opened by TFO can be in for long.
        // LISTEN: the RFC's answer to a RST; Linux has a request socket there.
        State::SynRecv => set(&[State::Established, State::FinWait1, State::CloseWait, State::Listen]),
        State::Established => set(&[State::FinWait1, State::CloseWait]),
        State::FinWait1 => set(&[State::FinWait2, State::Closing, State::TimeWait]),
        State::FinWait2 | State::Closing => set(&[State::TimeWait]),
        State::CloseWait => set(&[State::LastAck]),
        State::LastAck | State::TimeWait => 0,
        State::NewSynRecv => set(&[State::SynRecv]),
    }
}

const fn set(states: &[State]) -> u16 {
    let mut bits = 0;
    let mut i = 0;
    while i < states.len() {
        bits |= 1 << states[i] as u16;
        i += 1;
    }
    bits
}

/// States that close() after shutdown() enters again: `new_state` of the kernel leads each to itself.
const CLOSED_AGAIN: u16 = set(&[State::FinWait1, State::FinWait2, State::Closing, State::LastAck]);

/// Does RFC 9293 or Linux know this transition? Every state can end in CLOSE: by a RST, a timeout or an abort.
pub(super) const fn legal(from: State, to: State) -> bool {
    if from as u8 == to as u8 {
        return CLOSED_AGAIN & (1 << to as u16) != 0;
    }
    (after(from) | set(&[State::Close])) & (1 << to as u16) != 0
}

/// Can a connection in `from` be in `to` later in the same life?
pub(super) fn leads(from: State, to: State) -> bool {
    // A listener has children, but becomes none.
    let listen = set(&[State::Listen]);
    let mut reached = after(from) & !listen;
    loop {
        let next = State::ALL.iter().filter(|&&s| reached & (1 << s as u16) != 0).fold(reached, |r, &s| r | after(s));
        if next & !listen == reached {
            return reached & (1 << to as u16) != 0 && from != State::Listen;
        }
        reached = next & !listen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_goes_one_way() {
        let later = |from| State::ALL.into_iter().filter(|&to| leads(from, to)).map(State::name).collect::<Vec<_>>();
        assert_eq!(later(State::LastAck), [""; 0]);
        assert_eq!(later(State::Listen), [""; 0]);
        assert_eq!(later(State::CloseWait), ["LAST_ACK"]);
        assert_eq!(later(State::FinWait1), ["FIN_WAIT2", "TIME_WAIT", "CLOSING"]);
        let closing = ["FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "CLOSING"];
        assert_eq!(later(State::Established), closing);
        assert_eq!(later(State::SynRecv), [&["ESTABLISHED"], &closing[..]].concat());
        assert_eq!(later(State::SynSent), [&["ESTABLISHED", "SYN_RECV"], &closing[..]].concat());
    }

    #[test]
    fn figure_5_and_linux() {
        let legal_arcs: Vec<String> = State::ALL
            .iter()
            .flat_map(|&from| State::ALL.iter().map(move |&to| (from, to)))
            .filter(|&(from, to)| to != State::Close && legal(from, to))
            .map(|(from, to)| format!("{from}>{to}"))
            .collect();
        assert_eq!(
            legal_arcs.join(" "),
            "ESTABLISHED>FIN_WAIT1 ESTABLISHED>CLOSE_WAIT SYN_SENT>ESTABLISHED SYN_SENT>SYN_RECV \
             SYN_RECV>ESTABLISHED SYN_RECV>FIN_WAIT1 SYN_RECV>CLOSE_WAIT SYN_RECV>LISTEN FIN_WAIT1>FIN_WAIT1 \
             FIN_WAIT1>FIN_WAIT2 FIN_WAIT1>TIME_WAIT FIN_WAIT1>CLOSING FIN_WAIT2>FIN_WAIT2 FIN_WAIT2>TIME_WAIT \
             CLOSE>SYN_SENT CLOSE>LISTEN CLOSE_WAIT>LAST_ACK LAST_ACK>LAST_ACK LISTEN>SYN_SENT LISTEN>SYN_RECV \
             CLOSING>TIME_WAIT CLOSING>CLOSING NEW_SYN_RECV>SYN_RECV"
        );
        assert!(State::ALL.iter().all(|&from| from == State::Close || legal(from, State::Close)));
    }
}
