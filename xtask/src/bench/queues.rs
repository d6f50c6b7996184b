//! What watching listeners' queues costs: the SYN-ACKs that a flooded victim still sends, and kernel timers that are none of ours.

use std::{collections::BTreeMap, env, fmt::Write as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    interrupted, number, proc,
    report::median,
    tracer::{Program, Subject, Tracer},
};
use crate::{netns::Netns, sh};

/// Share of the SYN-ACKs per second that must be left.
const KEEPS: f64 = 0.90;
/// Most of one core that `queues` may take beside [`TIMERS`] timers a second of other work.
const MAX_SHARE: f64 = 0.03;
const TIMERS: &str = "100000";
const SECONDS: &str = "3";

/// What is attached during a flood; the first is what the others are compared with.
const FLOODED: [Subject; 3] = [
    Subject { name: "nothing", program: Program::Nothing, keeps: None },
    Subject { name: "tcptrace queues", program: Program::Tcptrace(&["queues", "--json"]), keeps: Some(KEEPS) },
    Subject {
        name: "tcptrace record --queues",
        program: Program::Tcptrace(&["record", "--queues", "{out}"]),
        keeps: Some(KEEPS),
    },
];
/// What is attached while timers run: on the tier that sees them.
const TIMED: [Subject; 2] = [
    Subject { name: "nothing", program: Program::Nothing, keeps: None },
    Subject {
        name: "tcptrace queues --tier tracepoint",
        program: Program::Tcptrace(&["queues", "--json", "--tier", "tracepoint"]),
        keeps: None,
    },
];

/// Why the victim answers: (name, `tcp_syncookies`, listen()'s argument).
const ANSWERS: [(&str, &str, &str); 2] = [("queued", "0", "1000000"), ("cookies", "1", "128")];

#[derive(Clone, Copy)]
struct Flooded {
    rate: f64,
    cpu_us: f64,
    rss: u64,
}

#[derive(Clone, Copy)]
struct Timed {
    rate: f64,
    load: f64,
    programs: f64,
    collector: f64,
}

/// All runs so far.
#[derive(Default)]
pub struct Queues {
    /// By (index into [`ANSWERS`], index into [`FLOODED`]), one a round.
    floods: BTreeMap<(usize, usize), Vec<Flooded>>,
    /// By index into [`TIMED`], one a round.
    timers: BTreeMap<usize, Vec<Timed>>,
}

/// Subject, figure, as shown, its value, and what is required of it.
type Figure = (String, &'static str, String, f64, Option<(String, bool)>);

impl Queues {
    /// One round of floods, each of `count` SYNs.
    ///
    /// # Errors
    /// A tool or the tracer fails.
    pub fn flood(&mut self, round: u32, count: u32, out: &Path) -> Result<()> {
        for (a, (answer, cookies, backlog)) in ANSWERS.iter().enumerate() {
            for s in order(round, FLOODED.len()) {
                interrupted()?;
                eprintln!("flood ({answer}) {}: {}", round + 1, FLOODED[s].name);
                let (victim, peer) = Netns::flooded(cookies)?;
                let tracer = Tracer::start(&FLOODED[s], victim.inode(), out)?;
                let args = ["flood", "--peer", peer.name(), "--backlog", backlog, "--count", &count.to_string()];
                let load = inside(&victim, &args)?;
                let arrived = number(&load, "arrived")?;
                ensure!(arrived >= f64::from(count) * 0.999, "of {count} SYNs {arrived} arrived");
                let rss = tracer.map(|tracer| tracer.end(true)).transpose()?.map_or(0, |ended| ended.rss);
                let cpu_us = number(&load, "cpu_ns")? / 1e3 / number(&load, "answered")?;
                let run = Flooded { rate: number(&load, "per_second")?, cpu_us, rss };
                self.floods.entry((a, s)).or_default().push(run);
            }
        }
        Ok(())
    }

    /// One round beside timers; the kernel counts the programs' time.
    ///
    /// # Errors
    /// A tool or the tracer fails.
    pub fn timers(&mut self, round: u32, out: &Path) -> Result<()> {
        for s in order(round, TIMED.len()) {
            interrupted()?;
            eprintln!("timers {}: {}", round + 1, TIMED[s].name);
            let netns = Netns::new()?;
            let tracer = Tracer::start(&TIMED[s], netns.inode(), out)?;
            let before = tracer.as_ref().map(used).transpose()?.unwrap_or_default();
            let load = inside(&netns, &["timers", "--rate", TIMERS, "--seconds", SECONDS])?;
            let after = tracer.as_ref().map(used).transpose()?.unwrap_or_default();
            if let Some(tracer) = tracer {
                tracer.end(true)?;
            }
            let seconds = number(&load, "seconds")?;
            self.timers.entry(s).or_default().push(Timed {
                rate: number(&load, "per_second")?,
                load: number(&load, "cpu_ns")? / 1e9 / seconds,
                programs: (after.0 - before.0) / seconds,
                collector: (after.1 - before.1) / seconds,
            });
        }
        Ok(())
    }

    /// Whether every requirement that was measured is met.
    pub fn met(&self) -> bool {
        self.figures().iter().all(|(.., required)| required.as_ref().is_none_or(|(_, met)| *met))
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (&(a, s), runs) in &self.floods {
            let name = format!("{}, flood ({})", FLOODED[s].name, ANSWERS[a].0);
            let mut add = |figure, digits: usize, value: Option<f64>, required| {
                figures.extend(value.map(|v| (name.clone(), figure, format!("{v:.digits$}"), v, required)));
            };
            add("SYN-ACKs/s", 0, median(runs.iter().map(|run| run.rate)), None);
            add("CPU of the load, us/SYN-ACK", 2, median(runs.iter().map(|run| run.cpu_us)), None);
            let (Some(base), Some(keeps)) = (self.floods.get(&(a, 0)), FLOODED[s].keeps) else { continue };
            let ratio = median(runs.iter().zip(base).map(|(run, base)| run.rate / base.rate));
            let required = ratio.map(|r| (format!(">= {:.0}", keeps * 100.0), r >= keeps));
            add("% of nothing", 1, ratio.map(|r| r * 100.0), required);
            let ratio = median(runs.iter().zip(base).map(|(run, base)| base.cpu_us / run.cpu_us * 100.0));
            add("  by CPU time of the load", 1, ratio, None);
            add("RSS after the flood, MB", 1, runs.iter().map(|run| run.rss as f64 / 1e6).reduce(f64::max), None);
        }
        for (&s, runs) in &self.timers {
            let name = format!("{}, {TIMERS} timers/s", TIMED[s].name);
            let mut add = |figure, digits: usize, value: Option<f64>, required| {
                figures.extend(value.map(|v| (name.clone(), figure, format!("{v:.digits$}"), v, required)));
            };
            add("timers/s", 0, median(runs.iter().map(|run| run.rate)), None);
            add("CPU of the load, % of a core", 2, median(runs.iter().map(|run| run.load * 100.0)), None);
            if s == 0 {
                continue;
            }
            let share = median(runs.iter().map(|run| run.programs + run.collector));
            let required = share.map(|share| (format!("< {:.0}", MAX_SHARE * 100.0), share < MAX_SHARE));
            add("tcptrace, % of a core", 2, share.map(|share| share * 100.0), required);
            add("  programs", 2, median(runs.iter().map(|run| run.programs * 100.0)), None);
            add("  collector", 2, median(runs.iter().map(|run| run.collector * 100.0)), None);
            add("  programs, ns/timer", 0, median(runs.iter().map(|run| run.programs * 1e9 / run.rate)), None);
        }
        figures
    }

    /// Figures by subject, one a line.
    pub fn to_text(&self) -> String {
        let (mut text, mut last) = (String::new(), String::new());
        for (name, figure, shown, _, required) in self.figures() {
            if name != last {
                writeln!(text, "\n{name}").expect("a String takes everything");
                last = name;
            }
            let verdict = required.map_or_else(String::new, |(required, met)| {
                format!("  {required:>10}  {}", if met { "ok" } else { "MISSED" })
            });
            writeln!(text, "  {figure:<30}{shown:>10}{verdict}").expect("a String takes everything");
        }
        text
    }

    /// The same as objects.
    pub fn to_json(&self) -> Value {
        let entry = |(name, figure, _, value, required): Figure| {
            let mut entry = json!({"subject": name, "figure": figure.trim(), "value": value});
            if let Some((required, met)) = required {
                entry["required"] = json!(required);
                entry["met"] = json!(met);
            }
            entry
        };
        self.figures().into_iter().map(entry).collect()
    }
}

/// Indexes, each round starting with another one.
fn order(round: u32, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |i| (i + round as usize) % count)
}

/// This binary, in a namespace; the JSON line that it prints.
fn inside(netns: &Netns, args: &[&str]) -> Result<Value> {
    let xtask = env::current_exe().context("where this binary is")?;
    let printed = sh::read(netns.command(xtask).args(args))?;
    serde_json::from_str(&printed).context("the load's result")
}

/// Seconds that its programs and it took so far.
fn used(tracer: &Tracer) -> Result<(f64, f64)> {
    let mut ns = 0;
    for id in tracer.programs() {
        ns += proc::program_cost(id)?.ns;
    }
    Ok((ns as f64 / 1e9, tracer.cpu()?.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_compared_within_their_round() {
        let mut queues = Queues::default();
        let run = |rate| Flooded { rate, cpu_us: 1e6 / rate, rss: 1_000_000 };
        queues.floods.insert((0, 0), [100.0, 50.0, 60.0].map(run).to_vec());
        queues.floods.insert((0, 1), [91.0, 45.5, 54.6].map(run).to_vec());
        let text = queues.to_text();
        assert!(text.contains("% of nothing                        91.0       >= 90  ok"), "{text}");
        assert!(queues.met(), "{text}");
        queues.floods.insert((0, 2), [89.0, 44.0, 50.0].map(run).to_vec());
        assert!(!queues.met());
        assert!(queues.to_text().contains("MISSED"));
    }

    #[test]
    fn timers_cost_what_programs_and_collector_take() {
        let mut queues = Queues::default();
        let run = |programs, collector| Timed { rate: 1e5, load: 0.1, programs, collector };
        queues.timers.insert(1, vec![run(0.02, 0.009)]);
        assert!(queues.met(), "{}", queues.to_text());
        queues.timers.insert(1, vec![run(0.02, 0.011)]);
        assert!(!queues.met(), "{}", queues.to_text());
    }
}
