//! The object of `explain`: a page, and the values of its settings on this host.

use super::{
    encode::{Out, Text, Value},
    object::object,
    queues::Names,
};
use crate::explain::{Arc, Draw, Page, sysctl};

/// Columns of a ladder.
const WIDTH: usize = 80;

object! {
    /// What a state, a term or a rule means (`explain`): one object for the page that was asked for, or one for each. Texts are English, ASCII,
    /// and may change their wording.
    pub struct ExplainObject<'a> = "explain" {
        /// `state`, `term` or `rule`.
        kind: Text<'a>,
        /// `CLOSE_WAIT`, `half-open` …
        name: Text<'a>,
        /// Other names that lead to it.
        aliases: Names<'a>,
        /// One line.
        summary: Text<'a>,
        /// Paragraphs.
        text: Names<'a>,
        /// What it means on each side: `side`, `text`.
        sides: Objects,
        /// Of a state, where it is entered from: `state`, `cause`.
        enters: Objects,
        /// Of a state, where it leads: `state`, `cause`.
        leaves: Objects,
        /// Ladders of recorded connections: `recording`, `shows`, `ladder` (lines of 80 columns at most, in UTF-8).
        examples: Objects,
        /// What a healthy host shows.
        healthy: Text<'a>,
        /// What too many of it, or something else, mean, and what to do.
        trouble: Names<'a>,
        /// Of a rule, what it depends on: `limit` (name and default), `about`.
        limits: Objects,
        /// Commands that show it: `command`, `shows`.
        look: Objects,
        /// Settings that govern it and that this host has: `name`, `value`, `decides`.
        sysctls: Objects,
        /// Socket options and calls that govern it: `name`, `decides`.
        options: Objects,
        /// Standards: `rfc`, `section` (absent where the whole document is meant), `about`.
        rfcs: Objects,
        /// Names of pages that belong to it.
        see: Names<'a>,
    }
}

impl ExplainObject<'_> {
    /// `value` gives the value of a sysctl on this host.
    pub fn new(page: &'static Page, value: &dyn Fn(&str) -> Option<String>, draw: Draw) -> Self {
        let pairs = |names: [&'static str; 2], pairs: &[(&str, &str)]| {
            let objects = pairs.iter().map(|&(a, b)| vec![(names[0], a.to_owned()), (names[1], b.to_owned())]);
            Objects(objects.collect())
        };
        let arcs = |arcs: &[Arc]| {
            let object =
                |&Arc(state, cause): &Arc| vec![("state", state.name().to_owned()), ("cause", cause.to_owned())];
            Objects(arcs.iter().map(object).collect())
        };
        let examples = page.examples.iter().map(|example| {
            let ladder = draw(example.recording, WIDTH).trim_end().to_owned();
            vec![("recording", example.recording.to_owned()), ("shows", example.shows.to_owned()), ("ladder", ladder)]
        });
        let sysctls = page.sysctls.iter().filter_map(|name| {
            let sysctl = sysctl(name)?;
            let value = value(name)?;
            Some(vec![("name", (*name).to_owned()), ("value", value), ("decides", sysctl.decides.to_owned())])
        });
        let rfcs = page.rfcs.iter().map(|rfc| {
            let mut object = vec![("rfc", rfc.number.to_string())];
            object.extend((!rfc.section.is_empty()).then(|| ("section", rfc.section.to_owned())));
            object.push(("about", rfc.about.to_owned()));
            object
        });
        Self {
            kind: Text(page.kind.name().as_bytes()),
            name: Text(page.name.as_bytes()),
            aliases: Names(page.aliases),
            summary: Text(page.summary.as_bytes()),
            text: Names(page.text),
            sides: pairs(["side", "text"], page.sides),
            enters: arcs(page.enters),
            leaves: arcs(page.leaves),
            examples: Objects(examples.collect()),
            healthy: Text(page.healthy.as_bytes()),
            trouble: Names(page.trouble),
            limits: Objects(
                page.limits().map(|(limit, about)| vec![("limit", limit), ("about", about.to_owned())]).collect(),
            ),
            look: pairs(["command", "shows"], page.look),
            sysctls: Objects(sysctls.collect()),
            options: pairs(["name", "decides"], page.options),
            rfcs: Objects(rfcs.collect()),
            see: Names(page.see),
        }
    }
}

/// Objects of strings.
#[derive(Clone, Debug)]
pub struct Objects(Vec<Vec<(&'static str, String)>>);

impl Value for Objects {
    const JSON: &'static str = "array of objects";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
    fn write(&self, out: &mut Out) {
        for (i, object) in self.0.iter().enumerate() {
            out.raw(if i == 0 { b"[" } else { b"," });
            for (i, (name, value)) in object.iter().enumerate() {
                out.raw(if i == 0 { b"{" } else { b"," });
                Text(name.as_bytes()).write(out);
                out.raw(b":");
                Text(value.as_bytes()).write(out);
            }
            out.raw(b"}");
        }
        out.raw(b"]");
    }
}
