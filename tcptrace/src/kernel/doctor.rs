//! What this kernel offers, what is degraded, what to change: facts in, a page of text or one JSON object out. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    Error,
    advice::{Advice, advice},
    facts::{CAPABILITIES, Facts, Lockdown, check},
    offsets::Absent,
    signal::{Cost, Signal, Tier},
};
use crate::wrap::wrap;

/// Columns of the text.
const WIDTH: usize = 80;
/// Where the second column starts.
const INDENT: usize = 22;

/// Everything that `doctor` knows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The host.
    pub facts: Facts,
    /// What the loader found; empty if it was not asked because [`check`] failed.
    pub signals: Vec<Signal>,
    /// Fields that this kernel lacks.
    pub absent: Vec<Absent>,
    /// Why loading failed although [`check`] passed, with the exit status.
    pub failure: Option<(String, u8)>,
}

/// The answer in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that a trace shows is exact.
    Ready,
    /// It works; what is missing or not exact.
    Degraded(Vec<String>),
    /// It does not work: why and what to do, exit status.
    CannotRun(String, u8),
}

impl Report {
    /// Look at this host: gather its facts, then load and attach everything as a trace with `tier` would, and let go of it again.
    /// Needs a few tenths of a second.
    #[must_use]
    pub fn examine(tier: Tier) -> Self {
        let mut report = Self { facts: Facts::gather(), ..Self::default() };
        if check(&report.facts).is_err() {
            return report;
        }
        match super::load::try_out(&report.facts, tier) {
            Ok((signals, absent)) => (report.signals, report.absent) = (signals, absent),
            Err(error) => report.failure = Some((error.to_string(), error.exit_status())),
        }
        report
    }

    /// Settings of this network namespace that should be others.
    #[must_use]
    pub fn advice(&self) -> Vec<Advice> {
        advice(&|name| self.facts.sysctls.iter().find(|s| s.name == name).map(|s| s.value.clone()))
    }

    /// The answer.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if let Err(error) = check(&self.facts) {
            let (Error::NotPermitted { what, remedy } | Error::KernelUnsupported { what, remedy }) = &error else {
                return Verdict::CannotRun(error.to_string(), error.exit_status());
            };
            return Verdict::CannotRun(format!("{what}: {remedy}"), error.exit_status());
        }
        if let Some((why, status)) = &self.failure {
            return Verdict::CannotRun(why.clone(), *status);
        }
        let facts = &self.facts;
        let names = |wanted: fn(&Signal) -> bool| {
            let names: Vec<_> = self.signals.iter().filter(|s| wanted(s)).map(|s| s.name).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let mut defects = Vec::new();
        defects.extend(names(|s| s.hook.is_none()).map(|names| format!("no hook for {names}")));
        defects
            .extend(names(|s| s.hook.is_some() && !s.exact).map(|names| format!("not every event is seen of {names}")));
        defects.extend(facts.capabilities.missing().map(|c| format!("without {} {}", c.name, c.without)));
        if facts.lockdown == Lockdown::Confidentiality {
            defects.push("lockdown=confidentiality hides who accepted a connection".to_owned());
        }
        if facts.bpf_jit_enable == Some(0) {
            defects.push("kernel programs are interpreted and slow: sysctl -w net.core.bpf_jit_enable=1".to_owned());
        }
        if !self.absent.is_empty() {
            let names: Vec<_> = self.absent.iter().map(|a| a.field.as_str()).collect();
            defects.push(format!("this kernel lacks {}", names.join(", ")));
        }
        if defects.is_empty() { Verdict::Ready } else { Verdict::Degraded(defects) }
    }

    /// A page of text, 80 columns wide as far as values allow, in colour if wanted.
    #[must_use]
    pub fn text(&self, colour: bool) -> String {
        let mut page = Page { text: String::new(), colour };
        let facts = &self.facts;
        match self.verdict() {
            Verdict::Ready => page.headline(GOOD, "ready", &["every signal has a hook"]),
            Verdict::Degraded(defects) => {
                page.headline(WARN, "degraded", &defects.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Verdict::CannotRun(why, _) => page.headline(BAD, "cannot run", &[&why]),
        }
        page.title("Kernel");
        page.row("release", if facts.release.is_empty() { "unknown" } else { &facts.release });
        page.row("BTF", &facts.btf_bytes.map_or("none".to_owned(), |b| format!("{} KB", b.div_ceil(1024))));
        page.row("lockdown", lockdown(facts.lockdown));
        page.row("BPF JIT", on_off(facts.bpf_jit_enable.map(|v| v != 0)));
        page.row("unprivileged BPF", on_off(facts.unprivileged_bpf_disabled.map(|v| v == 0)));
        page.row("tracefs", if facts.tracefs { "mounted" } else { "not mounted" });
        page.row("kprobes", if facts.kprobes { "built in" } else { "not built in" });
        page.row("kallsyms", if facts.kallsyms { "readable" } else { "without addresses" });
        page.title("Capabilities");
        for capability in CAPABILITIES {
            match (facts.capabilities.has(capability), capability.required) {
                (true, _) => page.state(capability.name, GOOD, "have", ""),
                (false, true) => page.state(capability.name, BAD, "missing", capability.without),
                (false, false) => page.state(capability.name, WARN, "missing", capability.without),
            }
        }
        if !self.signals.is_empty() {
            page.title("Signals");
        }
        for signal in &self.signals {
            match &signal.hook {
                Some(hook) => page.state(signal.name, if signal.exact { GOOD } else { WARN }, &spaced(hook), ""),
                None => page.state(signal.name, WARN, "none", ""),
            }
            for cost in &signal.costs {
                page.row("", &cost_line(cost));
            }
            for (hook, reason) in &signal.refused {
                page.row("", &format!("not {}: {reason}", spaced(hook)));
            }
        }
        if !self.absent.is_empty() {
            page.title("Fields that this kernel lacks");
            self.absent.iter().for_each(|a| page.row(a.name, &format!("{} ({})", a.field, a.reason)));
        }
        if !facts.sysctls.is_empty() {
            page.title("TCP settings of this network namespace");
        }
        for s in &facts.sysctls {
            page.setting(s.name.rsplit('.').next().unwrap_or(&s.name), &s.value, s.decides);
        }
        let advice = self.advice();
        if !advice.is_empty() {
            page.title("Settings that ask for trouble");
        }
        for Advice { setting, value, means, advice, rule } in advice {
            page.paragraph(2, &format!("{setting} = {value}: {means}"));
            page.paragraph(4, &format!("{advice} (`tcptrace explain {rule}`)"));
        }
        page.text
    }

    /// One JSON object without a line end. `ts` is the wall clock as RFC 3339, `mono_ns` `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn json(&self, ts: &str, mono_ns: u64) -> String {
        let (verdict, reasons, exit_status) = match self.verdict() {
            Verdict::Ready => ("ready", vec![], 0),
            Verdict::Degraded(defects) => ("degraded", defects, 0),
            Verdict::CannotRun(why, status) => ("cannot_run", vec![why], status),
        };
        let object = Object {
            v: 1,
            r#type: "doctor",
            ts,
            mono_ns,
            verdict,
            reasons,
            exit_status,
            facts: &self.facts,
            advice: self.advice(),
            missing_capabilities: self.facts.capabilities.missing().map(|c| c.name).collect(),
            signals: self.signals.iter().map(Line::from).collect(),
            absent: self.absent.iter().map(|a| Missing { field: &a.field, reason: &a.reason }).collect(),
        };
        serde_json::to_string(&object).expect("plain data with string keys")
    }
}

#[derive(Serialize)]
struct Object<'a> {
    v: u32,
    r#type: &'static str,
    ts: &'a str,
    mono_ns: u64,
    verdict: &'static str,
    reasons: Vec<String>,
    exit_status: u8,
    #[serde(flatten)]
    facts: &'a Facts,
    advice: Vec<Advice>,
    missing_capabilities: Vec<&'static str>,
    signals: Vec<Line<'a>>,
    absent: Vec<Missing<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    exact: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    costs: Vec<CostLine<'a>>,
    refused: Vec<Refused<'a>>,
}

impl<'a> From<&'a Signal> for Line<'a> {
    fn from(s: &'a Signal) -> Self {
        let refused = s.refused.iter().map(|(hook, reason)| Refused { hook, reason }).collect();
        let costs = s.costs.iter().map(|c| CostLine {
            program: c.program,
            hits_per_second: c.hits_per_second.round(),
            ns_per_hit: c.ns_per_hit.map(f64::round),
        });
        Self {
            name: s.name,
            hook: s.hook.as_deref(),
            tier: s.tier.map(|tier| tier.to_string()),
            exact: s.exact,
            costs: costs.collect(),
            refused,
        }
    }
}

#[derive(Serialize)]
struct CostLine<'a> {
    program: &'a str,
    hits_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ns_per_hit: Option<f64>,
}

/// Several hooks, so that a line can end between them.
fn spaced(hook: &str) -> String {
    hook.replace('+', " + ")
}

/// What a hook that other work passes, too, was seen to cost.
fn cost_line(cost: &Cost) -> String {
    let Cost { program, hits_per_second, ns_per_hit } = cost;
    match ns_per_hit {
        Some(ns) => format!("{program}: {hits_per_second:.0} hits/s, {ns:.0} ns each"),
        None => format!("{program}: no hits"),
    }
}

#[derive(Serialize)]
struct Refused<'a> {
    hook: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Missing<'a> {
    field: &'a str,
    reason: &'a str,
}

/// Colours of words, for dark and light ground and every eye: as those of the sinks' tables.
const GOOD: &str = "";
const WARN: &str = "35";
const BAD: &str = "1;31";

/// Text in two columns.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// `text` in a colour (SGR numbers; empty: none), or as it is.
    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour && !colour.is_empty() && !text.is_empty() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The verdict and its reasons, each reason on lines of its own.
    fn headline(&mut self, colour: &str, verdict: &str, reasons: &[&str]) {
        let (mut start, indent) = (self.paint(colour, verdict) + ": ", verdict.len() + 2);
        for line in reasons.iter().flat_map(|r| wrap(r, WIDTH - indent)) {
            writeln!(self.text, "{start}{line}").expect("a String takes everything");
            start = " ".repeat(indent);
        }
    }

    fn title(&mut self, title: &str) {
        let painted = self.paint("1", title);
        writeln!(self.text, "\n{painted}").expect("a String takes everything");
    }

    /// Lines of a text.
    fn paragraph(&mut self, indent: usize, text: &str) {
        for line in wrap(text, WIDTH - indent) {
            writeln!(self.text, "{:indent$}{line}", "").expect("a String takes everything");
        }
    }

    /// Name, value and what it decides: on the next line if it does not fit.
    fn setting(&mut self, name: &str, value: &str, decides: &str) {
        let line = format!("  {name:<22} {value:<11} ");
        if line.len() + decides.len() <= WIDTH {
            writeln!(self.text, "{line}{decides}").expect("a String takes everything");
        } else {
            writeln!(self.text, "{}\n{:25}{decides}", line.trim_end(), "").expect("a String takes everything");
        }
    }

    fn row(&mut self, name: &str, value: &str) {
        self.state(name, GOOD, "", value);
    }

    /// A row whose value begins with a coloured word.
    fn state(&mut self, name: &str, colour: &str, word: &str, rest: &str) {
        let joined =
            if word.is_empty() || rest.is_empty() { format!("{word}{rest}") } else { format!("{word}: {rest}") };
        // Names that are too long for their column get a line of their own.
        let (mut start, indent) = (format!("  {name:<0$} ", INDENT - 3), INDENT);
        if start.len() > indent {
            writeln!(self.text, "{}", start.trim_end()).expect("a String takes everything");
            start = " ".repeat(indent);
        }
        for (i, line) in wrap(&joined, WIDTH - indent).iter().enumerate() {
            let line = match line.strip_prefix(word) {
                Some(more) if i == 0 => self.paint(colour, word) + more,
                _ => line.clone(),
            };
            writeln!(self.text, "{start}{line}").expect("a String takes everything");
            start = " ".repeat(indent);
        }
    }
}

fn lockdown(mode: Lockdown) -> &'static str {
    match mode {
        Lockdown::None => "off",
        Lockdown::Integrity => "integrity",
        Lockdown::Confidentiality => "confidentiality",
    }
}

fn on_off(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests;
