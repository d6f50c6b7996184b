//! The object about trouble.

use super::{
    encode::{Inner, Out, Text, Value, When},
    object::object,
};
use crate::{
    model::{Finding, Measure, Severity, Status, Subject, comm_str},
    sink::text::sentence,
};

object! {
    /// Trouble that a rule found: once when it begins to fire, again when it grows worse, and once when it is resolved
    /// (`tcptrace watch`). `tcptrace explain RULE` says what each rule measures.
    pub struct FindingObject<'a> = "finding" {
        /// Number of the finding, the same from its beginning to its end.
        id: u64,
        /// Name of the rule.
        rule: Text<'a>,
        /// `info`, `warning` or `critical`: the worst so far.
        severity: Severity,
        /// `firing` or `resolved`.
        status: Status,
        /// When the trouble began: RFC 3339, UTC, nanoseconds.
        since: When,
        /// The same moment on CLOCK_MONOTONIC, nanoseconds.
        since_mono_ns: u64,
        /// What it is about, as far as that has them: `id` of a listener's timeline, `netns`, `laddr`, `lport`, `raddr`, `rport`, and whose sockets they are: `pid`, `comm`, `uid`, `container`, `pod`, `unit`.
        subject: &'a Subject,
        /// One sentence.
        summary: Text<'a>,
        /// What was measured, by name: numbers; `*_us` are microseconds, `*_per_s` rates, `*_percent` shares of a hundred.
        evidence: Evidence<'a>,
        /// What to change: the knob, the file or the call.
        advice: Text<'a>,
        /// A command that looks closer.
        look: Option<Text<'a>>,
    }
}

/// Append a finding as a line.
pub fn finding_line(f: &Finding, buffer: &mut Vec<u8>, encoder: &mut super::Encoder) {
    let summary = sentence(&f.summary.0);
    let object = FindingObject {
        id: f.id,
        rule: Text(f.rule.as_bytes()),
        severity: f.severity,
        status: f.status,
        since: When(f.since),
        since_mono_ns: f.since,
        subject: &f.subject,
        summary: Text(summary.as_bytes()),
        evidence: Evidence(&f.evidence),
        advice: Text(f.advice.as_bytes()),
        look: (!f.look.is_empty()).then_some(Text(f.look.as_bytes())),
    };
    object.encode(f.ts, buffer, encoder);
}

impl Value for Severity {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        Text(self.name().as_bytes()).write(out);
    }
}

impl Value for Status {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        Text(self.name().as_bytes()).write(out);
    }
}

impl Value for &Subject {
    const JSON: &'static str = "object";
    fn write(&self, out: &mut Out) {
        let (laddr, raddr) = (self.laddr.map(|a| a.to_string()), self.raddr.map(|a| a.to_string()));
        let owner = self.owner.as_deref();
        let cgroup = owner.and_then(|o| o.cgroup.as_deref());
        let container = cgroup.and_then(|c| c.container.as_ref());
        let mut fields = Inner::new(out);
        fields.field("id", self.id);
        fields.field("netns", self.netns);
        fields.field("laddr", laddr.as_deref().map(|a| Text(a.as_bytes())));
        fields.field("lport", self.lport);
        fields.field("raddr", raddr.as_deref().map(|a| Text(a.as_bytes())));
        fields.field("rport", self.rport);
        fields.field("pid", owner.map(|o| o.pid));
        fields.field("comm", owner.map(|o| Text(comm_str(&o.comm))));
        fields.field("uid", owner.map(|o| o.uid));
        fields.field("container", container.map(|c| Text(c.label().as_bytes())));
        fields.field("pod", cgroup.and_then(|c| c.pod.as_deref()).map(|s| Text(s.as_bytes())));
        fields.field("unit", cgroup.and_then(|c| c.unit.as_deref()).map(|s| Text(s.as_bytes())));
        fields.end();
    }
}

/// Name → what was measured.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a>(pub &'a [(&'static str, Measure)]);

impl Value for Evidence<'_> {
    const JSON: &'static str = "object";
    fn write(&self, out: &mut Out) {
        let mut fields = Inner::new(out);
        for (name, measure) in self.0 {
            fields.field(name, Some(measure));
        }
        fields.end();
    }
}

impl Value for &Measure {
    const JSON: &'static str = "any";
    fn write(&self, out: &mut Out) {
        match self {
            Measure::Count(n) | Measure::Us(n) => n.write(out),
            // Three digits behind the point are more than is known.
            Measure::PerSecond(n) | Measure::Percent(n) => {
                let rounded = (n * 1000.0).round() / 1000.0;
                out.raw(rounded.to_string().as_bytes());
            }
            Measure::Text(text) => Text(text.as_bytes()).write(out),
            Measure::Name(name) => Text(name).write(out),
            Measure::List(list) => {
                out.raw(b"[");
                for (i, measure) in list.iter().enumerate() {
                    if i > 0 {
                        out.raw(b",");
                    }
                    measure.write(out);
                }
                out.raw(b"]");
            }
            Measure::Fields(fields) => Evidence(fields).write(out),
        }
    }
}
