//! Steps of a ladder → JSON.

use super::encode::{Inner, Out, Value};
use crate::model::ladder::{Direction, Note, Segment, Step, Torn};

/// A connection's ladder, as its own end sees it.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    /// Its own side is the left one.
    pub steps: &'a [Step],
    /// The start of its timeline, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
}

impl Value for Steps<'_> {
    const JSON: &'static str = "array of objects";
    fn write(&self, out: &mut Out) {
        out.raw(b"[");
        for (i, step) in self.steps.iter().enumerate() {
            if i > 0 {
                out.raw(b",");
            }
            self.step(step, out);
        }
        out.raw(b"]");
    }
}

impl Steps<'_> {
    fn step(&self, step: &Step, out: &mut Out) {
        let at = |ts: u64| (ts as i64).wrapping_sub(self.start_ns as i64) / 1000;
        let [own, peer] = step.states;
        let mut inner = Inner::new(out);
        inner.field("torn", step.torn.map(Name));
        inner.field("at_us", step.times[0].map(at));
        inner.field("peer_at_us", step.times[1].map(at));
        if let Some(s) = step.segment {
            inner.field("direction", Some(Name(s.direction)));
            inner.field("flags", Some(Names(s.part.flags())).filter(|f| !f.0.is_empty()));
            inner.field("seq", s.seq);
            inner.field("ack", s.ack);
            inner.field("again", s.again.then_some(true));
            let (behind, times) = counts(&s);
            inner.field("behind", behind);
            inner.field("sent_again", times);
        }
        inner.field("state", own.map(|b| b.state));
        inner.field("peer_state", peer.map(|b| b.state));
        let concluded = [
            ("segment", step.segment.is_some_and(|s| s.dashed)),
            ("state", own.is_some_and(|b| b.concluded)),
            ("peer_state", peer.is_some_and(|b| b.concluded)),
        ];
        let [a, b, c] = concluded.map(|(name, is)| is.then_some(name));
        let names: Vec<&str> = [a, b, c].into_iter().flatten().collect();
        inner.field("inferred", (!names.is_empty()).then_some(Names(&names)));
        inner.end();
    }
}

fn counts(s: &Segment) -> (Option<u32>, Option<u32>) {
    match s.note {
        Some(Note::Behind(n)) => (Some(n), None),
        Some(Note::SentAgain(n)) => (None, Some(n)),
        // `options` of the connection has them.
        Some(Note::Cookie | Note::FastOpen) | None => (None, None),
    }
}

/// One of a few names.
struct Name<T>(T);

impl Value for Name<Direction> {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        out.raw(match self.0 {
            Direction::Out => b"\"out\"".as_slice(),
            Direction::In => b"\"in\"",
        });
    }
}

impl Value for Name<Torn> {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        out.raw(match self.0 {
            Torn::Preexisting => b"\"preexisting\"".as_slice(),
            Torn::Lost => b"\"lost\"",
        });
    }
}

/// A list of names.
struct Names<'a>(&'a [&'a str]);

impl Value for Names<'_> {
    const JSON: &'static str = "array of strings";
    fn write(&self, out: &mut Out) {
        for (i, name) in self.0.iter().enumerate() {
            out.raw(if i == 0 { b"[\"".as_slice() } else { b",\"" });
            out.raw(name.as_bytes());
            out.raw(b"\"");
        }
        out.raw(b"]");
    }
}
