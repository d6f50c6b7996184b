//! The sink of `report`: prints nothing, all of it goes into a [`Report`].

use crate::{
    error::Result,
    frame::fact,
    model::{
        Connection, Final, Finding, Listening, NetnsCounters, Observer, Remnant, Request, Summary, ladder::Ladder,
    },
    report::Report,
    sink::Sink,
};

/// See the module.
#[derive(Debug)]
pub struct Gather<'a>(pub &'a mut Report);

impl Observer for Gather<'_> {
    fn connection(&mut self, c: &Connection, f: &Final) {
        self.0.connection(c, f);
    }

    fn request(&mut self, r: &Request) {
        self.0.request(r);
    }

    fn time_wait(&mut self, r: &Remnant) {
        self.0.time_wait(r);
    }

    fn netns(&mut self, n: &NetnsCounters) {
        self.0.netns(n);
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        self.0.listener(c, l);
    }
}

impl Sink for Gather<'_> {
    fn clock(&mut self, offset_ns: i64) {
        self.0.clock(offset_ns);
    }

    fn start(&mut self, ts: u64, start: &fact::Start, filters: &[(String, String)]) {
        self.0.start(ts, start, filters);
    }

    fn loss(&mut self, _: u64, loss: &fact::Loss) {
        self.0.loss(loss);
    }

    fn finding(&mut self, finding: &Finding) {
        self.0.finding(finding);
    }

    fn ladder(&mut self, ladder: &Ladder) {
        self.0.ladder(ladder);
    }

    fn ended(&mut self, ts: u64) {
        self.0.ended(ts);
    }

    fn summary(&mut self, _: u64, summary: &Summary) {
        self.0.summary = Some(summary.clone());
    }

    fn flush(&mut self, _: bool) -> Result<()> {
        Ok(())
    }
}
