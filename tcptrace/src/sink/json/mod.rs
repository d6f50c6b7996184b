//! One JSON object a line, as docs/events.md describes them (which is made from the same definitions).

use std::{io::Write, sync::Arc};

use super::{Output, Sink, Summary};
use crate::{
    error::Result,
    frame::fact,
    group::Groups,
    model::{
        Connection, Final, Finding, Found, Listening, Mini, NetnsCounters, Observer, Remnant, Request, Stack, State,
        Transition,
        ladder::{Ladder, Side, Step},
    },
};

mod docs;
pub mod encode;
mod explain;
mod findings;
pub mod groups;
pub mod ladder;
pub mod object;
pub mod objects;
pub mod queues;
mod report;
pub mod stack;
#[cfg(test)]
mod tests;

pub use docs::events_markdown;
use encode::Encoder;
pub use explain::ExplainObject;
pub use findings::finding_line;
use groups::GroupObject;
use ladder::Steps;
use objects::{ConnectionObject, LossObject, OpenedObject, SocketObject, StartObject, SummaryObject, TransitionObject};
use queues::{ListenerObject, NetnsObject, RequestObject, TimeWaitObject};
pub use report::report_line;

/// Writes JSON lines.
#[derive(Debug)]
pub struct Json<W> {
    out: Output<W>,
    encoder: Encoder,
}

impl<W: Write> Json<W> {
    /// Nothing is written before the first object.
    pub fn new(out: Output<W>) -> Self {
        Self { out, encoder: Encoder::default() }
    }

    /// What was written to, for tests.
    pub fn into_inner(self) -> W {
        self.out.into_inner()
    }
}

impl<W: Write> Json<W> {
    /// A connection with its side of a ladder.
    fn rungs(&mut self, side: &Side, steps: &[Step]) {
        let (c, f) = (&side.connection, &side.last);
        let steps = Steps { steps, start_ns: c.start_ns };
        ConnectionObject::new(c, f).with_ladder(steps).encode(f.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }
}

impl<W: Write> Observer for Json<W> {
    #[inline]
    fn transition(&mut self, c: &Connection, t: &Transition) {
        TransitionObject::new(c, t).encode(t.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    #[inline]
    fn connection(&mut self, c: &Connection, f: &Final) {
        ConnectionObject::new(c, f).encode(f.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn opened_at(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {
        OpenedObject::new(c, stack).encode(ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn socket(&mut self, c: &Connection, f: &Found) {
        SocketObject::new(c, f).encode(f.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn mini_socket(&mut self, m: &Mini) {
        if m.state == State::NewSynRecv {
            RequestObject::found(m).encode(m.ts, &mut self.out.buffer, &mut self.encoder);
        } else {
            SocketObject::remnant(m).encode(m.ts, &mut self.out.buffer, &mut self.encoder);
        }
        self.out.line();
    }

    fn request(&mut self, r: &Request) {
        RequestObject::new(r).encode(r.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn time_wait(&mut self, r: &Remnant) {
        TimeWaitObject::new(r).encode(r.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn netns(&mut self, n: &NetnsCounters) {
        NetnsObject::new(n).encode(n.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        ListenerObject::new(c, l).encode(l.ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }
}

impl<W: Write> Sink for Json<W> {
    fn clock(&mut self, offset_ns: i64) {
        self.encoder.offset_ns = Some(offset_ns);
    }

    fn start(&mut self, ts: u64, start: &fact::Start, filters: &[(String, String)]) {
        StartObject::new(start, filters).encode(ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn loss(&mut self, ts: u64, loss: &fact::Loss) {
        LossObject::new(loss).encode(ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn groups(&mut self, ts: u64, elapsed_us: u64, groups: &Groups, last: bool) {
        if last {
            for group in GroupObject::all(elapsed_us, groups) {
                group.encode(ts, &mut self.out.buffer, &mut self.encoder);
                self.out.line();
            }
        }
    }

    fn finding(&mut self, finding: &Finding) {
        finding_line(finding, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn ladder(&mut self, ladder: &Ladder) {
        self.rungs(&ladder.left, &ladder.steps);
        if let Some(right) = &ladder.right {
            self.rungs(right, &ladder.mirrored().collect::<Vec<_>>());
        }
    }

    fn summary(&mut self, ts: u64, summary: &Summary) {
        SummaryObject::new(summary).encode(ts, &mut self.out.buffer, &mut self.encoder);
        self.out.line();
    }

    fn flush(&mut self, last: bool) -> Result<()> {
        self.out.flush(last)
    }
}
