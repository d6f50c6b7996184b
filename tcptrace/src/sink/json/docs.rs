//! docs/events.md, made from the objects' definitions.

use std::fmt::Write;

use super::{
    ExplainObject,
    findings::FindingObject,
    groups::GroupObject,
    object::{Doc, Kind, Reference},
    objects::{ConnectionObject, LossObject, OpenedObject, SocketObject, StartObject, SummaryObject, TransitionObject},
    queues::{ListenerObject, NetnsObject, RequestObject, TimeWaitObject},
    report::ReportObject,
};

const OBJECTS: [&Reference; 15] = [
    &StartObject::REFERENCE,
    &SocketObject::REFERENCE,
    &RequestObject::REFERENCE,
    &TransitionObject::REFERENCE,
    &OpenedObject::REFERENCE,
    &ConnectionObject::REFERENCE,
    &TimeWaitObject::REFERENCE,
    &GroupObject::REFERENCE,
    &NetnsObject::REFERENCE,
    &ListenerObject::REFERENCE,
    &FindingObject::REFERENCE,
    &LossObject::REFERENCE,
    &SummaryObject::REFERENCE,
    &ReportObject::REFERENCE,
    &ExplainObject::REFERENCE,
];

const INTRODUCTION: &str = "\
# JSON objects

<!-- Generated from tcptrace/src/sink/json by `tcptrace docs-events`; do not edit. -->

`--json` prints one object a line. Every object has

| field | type | meaning |
|---|---|---|
| `v` | integer | version of this format: 1 |
| `type` | string | which of the objects below it is |
| `ts` | string | wall-clock time: RFC 3339, UTC, nanoseconds |
| `mono_ns` | integer | the same moment on CLOCK_MONOTONIC, nanoseconds |

Durations are integers in microseconds and end in `_us`. States have the names that Linux and `ss` give them: CLOSE LISTEN SYN_SENT
NEW_SYN_RECV SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE_WAIT LAST_ACK CLOSING TIME_WAIT. A field that is not known is absent.
What was concluded and not seen is named in `inferred`. Names of processes are text from outside: control characters and bytes that
are not UTF-8 are escaped (`\\u00NN`). A `?` marks fields that can be absent. Readers must ignore fields and types that they do not know.
";

/// The event reference in Markdown: docs/events.md.
#[must_use]
pub fn events_markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let shared = OBJECTS.iter().flat_map(|o| o.fields).find_map(|f| match f.kind {
        Kind::Fields(fields) => Some(fields),
        Kind::Always(_) | Kind::Known(_) => None,
    });
    section(&mut out, "Fields of a socket", &["In every object that belongs to a socket, in this place."]);
    table(&mut out, shared.expect("most objects belong to a socket"));
    for object in OBJECTS {
        section(&mut out, &format!("`{}`", object.name), object.doc);
        table(&mut out, object.fields);
    }
    out
}

fn section(out: &mut String, title: &str, doc: &[&str]) {
    let text: Vec<_> = doc.iter().map(|line| line.trim()).collect();
    write!(out, "\n## {title}\n\n{}\n\n", text.join("\n")).expect("a String takes everything");
}

fn table(out: &mut String, fields: &[Doc]) {
    out.push_str("| field | type | meaning |\n|---|---|---|\n");
    for f in fields {
        let text: Vec<_> = f.doc.iter().map(|line| line.trim()).collect();
        let text = text.join(" ");
        match f.kind {
            Kind::Always(json) => writeln!(out, "| `{}` | {json} | {text} |", f.name),
            Kind::Known(json) => writeln!(out, "| `{}`? | {json} | {text} |", f.name),
            Kind::Fields(_) => writeln!(out, "| … | | the [fields of a socket](#fields-of-a-socket) |"),
        }
        .expect("a String takes everything");
    }
}
