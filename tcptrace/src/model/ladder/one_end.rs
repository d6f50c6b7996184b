//! What one end tells: its moments → steps, itself at the left.
//!
//! A segment is drawn through where a record was made as it was sent or as it came: nothing else makes that change of state. It is
//! dashed where it follows from the state alone. That is the SYN-ACK that a client received, too: a socket in repair mode gets to
//! ESTABLISHED without one (`tcp_connect`).

use tcptrace_common::record::option;

use super::{
    Beside, Direction, Moments, Note, Part, Segment, Side, Step, Torn,
    moments::{Change, Moment},
};
use crate::model::{Connection, End, Final, Inferred, Mark, Marked, Role, State};

/// All steps, in order.
pub(super) fn steps(side: &Side, moments: &Moments) -> Vec<Step> {
    let mut end = OneEnd::new(&side.connection, &side.last, moments);
    for moment in &moments.list {
        match moment {
            Moment::Change(change) => {
                if change.found {
                    end.bare(change.ts, change.to, Some(Torn::Lost));
                } else {
                    end.reach(change.from);
                    end.change(change);
                }
                end.state = Some(change.to);
            }
            Moment::Mark(mark) => {
                end.reach(mark.state);
                end.mark(mark);
            }
        }
    }
    end.steps
}

struct OneEnd<'a> {
    c: &'a Connection,
    last: &'a Final,
    steps: Vec<Step>,
    /// As far as the moments told.
    state: Option<State>,
    /// Initial sequence numbers.
    isn: Option<u32>,
    peer_isn: Option<u32>,
    /// TCP Fast Open served it.
    fast_open: bool,
    /// The own FIN's number, once it was sent.
    fin: Option<u32>,
    /// Nothing but the FIN was left to be acknowledged.
    fin_alone: bool,
    /// The SYN and the SYN-ACK of a passive open are there.
    answered: bool,
}

impl<'a> OneEnd<'a> {
    fn new(c: &'a Connection, last: &'a Final, moments: &Moments) -> Self {
        // A client learns whether Fast Open served it only when it is established.
        let options = c.handshake.map_or(0, |h| h.options) | last.counters.map_or(0, |n| n.options);
        Self {
            c,
            last,
            steps: Vec::new(),
            state: None,
            isn: c.isn_local().or_else(|| never_established(last, moments)),
            peer_isn: c.handshake.map(|h| h.isn_remote),
            fast_open: options & option::TFO != 0,
            fin: None,
            fin_alone: false,
            answered: false,
        }
    }

    /// The next moment is one in `state`. If the last one led elsewhere, something is missing.
    fn reach(&mut self, state: State) {
        let missing = match self.state {
            Some(before) => before != state && before != State::Close,
            None => !matches!(state, State::Close | State::Listen | State::NewSynRecv),
        };
        if missing {
            let preexisting = self.state.is_none() && self.c.preexisting;
            let torn = Some(if preexisting { Torn::Preexisting } else { Torn::Lost });
            let states = [Some(Beside::seen(state)), None];
            self.steps.push(Step { times: [None; 2], segment: None, states, torn });
            self.state = Some(state);
        }
    }

    fn change(&mut self, t: &Change) {
        use State::{
            Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynRecv, SynSent,
            TimeWait,
        };
        let fins = self.last.end == Some(End::Fin);
        match (t.from, t.to) {
            (Close, SynSent) if never_left(self.last) => self.bare(t.ts, t.to, None),
            (Close, SynSent) => self.syn(t),
            (SynSent, SynRecv) => self.crossed(t),
            (SynSent, Established) => self.answer(t),
            (Listen | NewSynRecv, SynRecv) if self.fast_open => self.data_in_syn(t),
            (Listen | NewSynRecv, SynRecv) => self.final_ack(t),
            (SynRecv, Established) => self.established(t),
            (_, FinWait1) | (CloseWait, LastAck) => self.own_fin(t),
            (Established | SynRecv, CloseWait) => self.peer_fin(t, FinWait1),
            (FinWait1, FinWait2) => self.ack_of_fin(t, CloseWait),
            (FinWait1, Closing) => self.peer_fin(t, FinWait1),
            (FinWait2 | FinWait1, TimeWait | Close) if fins && t.done => self.last_fin(t),
            (Closing | LastAck, TimeWait | Close) if fins => self.ack_of_fin(t, TimeWait),
            (_, Close) => self.closed(t),
            _ => self.bare(t.ts, t.to, None),
        }
    }

    fn mark(&mut self, mark: &Mark) {
        let again = |part| Segment { again: true, ..segment(Direction::Out, part) };
        let (sent, received) = ([Some(mark.ts), None], segment(Direction::In, Part::Rst));
        let s = match (mark.what, mark.state) {
            (Marked::Retransmit, State::SynSent) => Segment { seq: self.isn, ..again(Part::Syn) },
            // A SYN-ACK of its own is told of with its request; what Fast Open sent behind it is data.
            (Marked::Retransmit, State::SynRecv) if self.c.role == Some(Role::Server) => return,
            (Marked::Retransmit, State::SynRecv) => {
                Segment { seq: self.isn, ack: behind(self.peer_isn), ..again(Part::SynAck) }
            }
            (Marked::Retransmit, _) if self.fin_alone => Segment { seq: self.fin, ..again(Part::Fin) },
            (Marked::Retransmit, _) => again(Part::DataOrFin),
            (Marked::ResetReceived, _) => return self.push(sent, received, [None; 2]),
            (Marked::ResetSent, _) => {
                let rst = segment(Direction::Out, Part::Rst);
                // The kernel sets CLOSE first and sends the RST that belongs to it after.
                if let Some(step) = self.steps.last_mut().filter(|s| s.segment.is_none() && is(s, State::Close)) {
                    step.segment = Some(rst);
                    step.times = sent;
                    return;
                }
                rst
            }
        };
        self.push(sent, s, [None; 2]);
    }

    /// connect().
    fn syn(&mut self, t: &Change) {
        let note = self.fast_open.then_some(Note::FastOpen);
        let s = Segment { seq: self.isn, note, ..segment(Direction::Out, Part::Syn) };
        self.push([Some(t.ts), None], s, [Some(Beside::seen(t.to)), None]);
    }

    /// A SYN for an answer: both ends opened.
    fn crossed(&mut self, t: &Change) {
        let syn = Segment { seq: self.peer_isn, ..segment(Direction::In, Part::Syn) };
        self.push([Some(t.ts), None], syn, [Some(Beside::seen(t.to)), Some(Beside::concluded(State::SynSent))]);
        let ack = behind(self.peer_isn);
        let answer = Segment { seq: self.isn, ack, ..dashed(Direction::Out, Part::SynAck) };
        self.push([None; 2], answer, [None; 2]);
    }

    /// A client is established.
    fn answer(&mut self, t: &Change) {
        let seq = self.peer_isn;
        // What Fast Open sent in the SYN may have been acknowledged with it.
        let known = !self.fast_open;
        let next = behind(self.isn).filter(|_| known);
        let s = Segment { seq, ack: next, ..dashed(Direction::In, Part::SynAck) };
        self.push([Some(t.ts), None], s, [Some(Beside::seen(t.to)), Some(Beside::concluded(State::SynRecv))]);
        let ack = behind(seq);
        self.push([None; 2], Segment { seq: next, ack, ..dashed(Direction::Out, Part::Ack) }, [None; 2]);
    }

    /// The SYN that a listener received and its answer, before there was a socket.
    fn request(&mut self) {
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        let c = self.c;
        let half_open = c.states.entries().find(|e| e.state == State::NewSynRecv);
        let at = half_open.filter(|e| e.seen).map(|e| c.start_ns.saturating_add(e.at));
        // Otherwise it was concluded from the time of the SYN-ACK.
        let seen = at.is_some() && c.inferred.0 & Inferred::START == 0;
        let syn = Segment { seq: self.peer_isn, dashed: !seen, ..segment(Direction::In, Part::Syn) };
        let state = half_open.map(|e| Beside { state: e.state, concluded: !seen });
        self.push([at, None], syn, [state, Some(Beside::concluded(State::SynSent))]);
        let again = u32::from(c.synack_retrans);
        let cookie = c.handshake.is_some_and(|h| h.options & option::SYNCOOKIE != 0).then_some(Note::Cookie);
        let answer = Segment {
            seq: self.isn,
            ack: behind(self.peer_isn),
            note: (again > 0).then_some(Note::SentAgain(again)).or(cookie),
            ..dashed(Direction::Out, Part::SynAck)
        };
        self.push([None; 2], answer, [None; 2]);
    }

    /// LISTEN→SYN_RECV is reported when the handshake ends.
    fn final_ack(&mut self, t: &Change) {
        self.request();
        let s = Segment { seq: behind(self.peer_isn), ack: behind(self.isn), ..segment(Direction::In, Part::Ack) };
        self.push([Some(t.ts), None], s, [Some(Beside::seen(t.to)), Some(Beside::concluded(State::Established))]);
    }

    /// But with TCP Fast Open when it begins.
    fn data_in_syn(&mut self, t: &Change) {
        self.answered = true;
        let syn = Segment { seq: self.peer_isn, note: Some(Note::FastOpen), ..segment(Direction::In, Part::Syn) };
        self.push([Some(t.ts), None], syn, [Some(Beside::seen(t.to)), Some(Beside::concluded(State::SynSent))]);
        let again = u32::from(self.c.synack_retrans);
        let note = (again > 0).then_some(Note::SentAgain(again));
        // It acknowledges data, too: how much is not known.
        self.push([None; 2], Segment { seq: self.isn, note, ..dashed(Direction::Out, Part::SynAck) }, [None; 2]);
    }

    /// SYN_RECV→ESTABLISHED.
    fn established(&mut self, t: &Change) {
        let state = Some(Beside::seen(t.to));
        if self.c.role == Some(Role::Server) && !self.fast_open {
            self.request();
            // The same segment as LISTEN→SYN_RECV.
            let same = |s: &&mut Step| s.segment.is_some_and(|s| (s.direction, s.part) == (Direction::In, Part::Ack));
            if let Some(step) = self.steps.last_mut().filter(same) {
                step.states[0] = state;
                return;
            }
        }
        let ack = behind(self.isn).filter(|_| !self.fast_open);
        let s = Segment { ack, ..segment(Direction::In, Part::Ack) };
        self.push([Some(t.ts), None], s, [state, Some(Beside::concluded(State::Established))]);
    }

    fn own_fin(&mut self, t: &Change) {
        let mut part = Part::Fin;
        let acks = |s: &Step| s.segment.is_some_and(|s| (s.direction, s.part) == (Direction::Out, Part::AckOfFin));
        if t.to == State::LastAck && t.same_segment && self.steps.last().is_some_and(acks) {
            // No segment was sent in between.
            self.steps.pop();
            part = Part::FinAck;
        }
        self.fin = t.sequence.map(|n| n.write_seq);
        self.fin_alone = t.sequence.is_some_and(|n| n.snd_una == n.write_seq);
        let unsent = t.sequence.and_then(|n| Some(n.write_seq.wrapping_sub(n.snd_nxt?))).filter(|&n| n > 0);
        let s = Segment {
            seq: self.fin,
            ack: t.sequence.and_then(|n| n.rcv_nxt),
            dashed: unsent.is_some(),
            note: unsent.map(Note::Behind),
            ..segment(Direction::Out, part)
        };
        self.push([Some(t.ts), None], s, [Some(Beside::seen(t.to)), None]);
    }

    /// The peer's FIN while this end had not closed, or had and its FIN was not acknowledged.
    fn peer_fin(&mut self, t: &Change, peer: State) {
        let n = t.sequence;
        let next = n.and_then(|n| n.rcv_nxt);
        if self.fin.is_some() && n.and_then(|n| n.snd_nxt) == self.fin {
            self.fin_waits();
        }
        let s = Segment {
            seq: next.map(|n| n.wrapping_sub(1)),
            ack: n.map(|n| n.snd_una),
            ..segment(Direction::In, Part::Fin)
        };
        self.push([Some(t.ts), None], s, [Some(Beside::seen(t.to)), Some(Beside::concluded(peer))]);
        let s = Segment { seq: n.and_then(|n| n.snd_nxt), ack: next, ..dashed(Direction::Out, Part::AckOfFin) };
        self.push([None; 2], s, [None; 2]);
    }

    /// The own FIN was not sent yet: it waited for an ACK or for the peer's window, and acknowledges what came meanwhile.
    fn fin_waits(&mut self) {
        let own = |s: &&mut Segment| s.direction == Direction::Out && matches!(s.part, Part::Fin | Part::FinAck);
        if let Some(fin) = self.steps.iter_mut().rev().filter_map(|s| s.segment.as_mut()).find(own) {
            fin.dashed = true;
            fin.ack = None;
        }
    }

    /// The peer's FIN, behind which TIME_WAIT comes.
    fn last_fin(&mut self, t: &Change) {
        let states = [Some(Beside::seen(t.to)), Some(Beside::concluded(State::LastAck))];
        // The FIN is the last byte that was received.
        let received = self.last.counters.map(|n| n.bytes_received as u32);
        let seq = self.peer_isn.zip(received).map(|(isn, n)| isn.wrapping_add(n));
        let next = behind(self.fin);
        let acks = |s: &&mut Step| s.segment.is_some_and(|s| (s.direction, s.part) == (Direction::In, Part::AckOfFin));
        if let Some(step) = self.steps.last_mut().filter(|s| t.same_segment && acks(s)) {
            step.segment = Some(Segment { seq, ack: next, ..segment(Direction::In, Part::FinAck) });
            step.times[0] = Some(t.ts);
            step.states = states;
        } else {
            let s = Segment { seq, ack: next, ..segment(Direction::In, Part::Fin) };
            self.push([Some(t.ts), None], s, states);
        }
        let ack = behind(seq);
        self.push([None; 2], Segment { seq: next, ack, ..dashed(Direction::Out, Part::AckOfFin) }, [None; 2]);
    }

    fn ack_of_fin(&mut self, t: &Change, peer: State) {
        let ack = behind(self.fin);
        let s = Segment { ack, ..segment(Direction::In, Part::AckOfFin) };
        self.push([Some(t.ts), None], s, [Some(Beside::seen(t.to)), Some(Beside::concluded(peer))]);
    }

    /// CLOSE for another reason than FINs: a RST that has just been drawn, or none.
    fn closed(&mut self, t: &Change) {
        let rst = |s: &&mut Step| s.states[0].is_none() && s.segment.is_some_and(|s| s.part == Part::Rst);
        match self.steps.last_mut().filter(rst) {
            Some(step) => step.states[0] = Some(Beside::seen(t.to)),
            // `tcp_disconnect` resets each that was still queued, once the connection is over.
            None if self.last.end == Some(End::ListenerClosed) => {
                self.push([Some(t.ts), None], dashed(Direction::Out, Part::Rst), [Some(Beside::seen(t.to)), None]);
            }
            None => self.bare(t.ts, t.to, None),
        }
    }

    /// A state that no segment led to.
    fn bare(&mut self, ts: u64, state: State, torn: Option<Torn>) {
        let states = [Some(Beside::seen(state)), None];
        self.steps.push(Step { times: [Some(ts), None], segment: None, states, torn });
    }

    fn push(&mut self, times: [Option<u64>; 2], segment: Segment, states: [Option<Beside>; 2]) {
        self.steps.push(Step { times, segment: Some(segment), states, torn: None });
    }
}

/// The number behind a SYN or a FIN.
fn behind(isn: Option<u32>) -> Option<u32> {
    isn.map(|isn| isn.wrapping_add(1))
}

fn segment(direction: Direction, part: Part) -> Segment {
    Segment { direction, part, again: false, seq: None, ack: None, dashed: false, note: None }
}

fn dashed(direction: Direction, part: Part) -> Segment {
    Segment { dashed: true, ..segment(direction, part) }
}

fn is(step: &Step, state: State) -> bool {
    step.states[0].is_some_and(|b| b.state == state)
}

/// connect() failed before it had sent anything.
fn never_left(last: &Final) -> bool {
    matches!(last.end, Some(End::Aborted | End::Unreachable)) && last.counters.is_some_and(|n| n.segs_out == 0)
}

/// The initial sequence number of a connection that was never established: nothing was acknowledged.
fn never_established(last: &Final, moments: &Moments) -> Option<u32> {
    if last.counters?.segs_out == 0 {
        return None;
    }
    moments.list.iter().find_map(|m| match m {
        Moment::Change(Change { from: State::SynSent, to: State::Close, sequence, .. }) => sequence.map(|n| n.snd_una),
        Moment::Change(_) | Moment::Mark(_) => None,
    })
}
