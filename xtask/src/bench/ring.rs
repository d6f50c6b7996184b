//! What a flight recorder's ring takes: an hour of a storm through it, as fast as it goes; its dump, and that dump's replay.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{interrupted, number};
use crate::sh;

/// Megabytes of the ring.
const RING: &str = "64";
/// Seconds that are simulated, and connections in each of them.
const STORM: [&str; 2] = ["3600", "5000"];
/// Most bytes that the resident memory may grow by: 70 MB as the ring's size is counted.
const MAX_GROWN: f64 = (70 << 20) as f64;

/// What was measured; the rounds do not differ.
#[derive(Default)]
pub struct Ring(Option<Value>);

impl Ring {
    /// Measure.
    ///
    /// # Errors
    /// It cannot be built or fails.
    pub fn run(&mut self) -> Result<()> {
        interrupted()?;
        eprintln!("ring: {RING} MB under a storm of {} s", STORM[0]);
        let mut command = sh::cargo();
        command.args(["run", "--quiet", "--release", "--package", "tcptrace", "--example", "ring_storm", "--", RING]);
        let printed = sh::read(command.args(STORM))?;
        let result: Value = serde_json::from_str(&printed).context("the ring's result")?;
        ensure!(number(&result, "told")? > 0.0 && number(&result, "gaps")? == 0.0, "the dump tells: {result}");
        self.0 = Some(result);
        Ok(())
    }

    /// Whether every requirement that was measured is met.
    pub fn met(&self) -> bool {
        self.figure("grown_bytes").is_none_or(|grown| grown <= MAX_GROWN)
    }

    fn figure(&self, name: &str) -> Option<f64> {
        self.0.as_ref()?.get(name)?.as_f64()
    }

    /// Figures, one a line.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let Some(grown) = self.figure("grown_bytes") else { return text };
        let verdict = if self.met() { "ok" } else { "MISSED" };
        writeln!(text, "\nrecord --ring {RING}M, an hour at {} connections/s", STORM[1])
            .expect("a String takes everything");
        let required = format!("<= {:.0}", MAX_GROWN / 1e6);
        writeln!(text, "  {:<30}{:>10.1}  {required:>10}  {verdict}", "resident memory grown, MB", grown / 1e6)
            .expect("a String takes everything");
        for (name, figure, per) in [
            ("CPU, ns/connection", "ns_per_connection", 1.0),
            ("dump, MB", "dump_bytes", 1e6),
            ("  stops the recorder for, ms", "dump_stops_ms", 1.0),
            ("  is written in, ms", "dump_ms", 1.0),
            ("  ends of connections", "told", 1.0),
        ] {
            if let Some(value) = self.figure(figure) {
                let digits = usize::from(per > 1.0 || figure.ends_with("ms"));
                writeln!(text, "  {name:<30}{:>10.digits$}", value / per).expect("a String takes everything");
            }
        }
        text
    }

    /// The same as an object; null where it was not measured.
    pub fn to_json(&self) -> Value {
        let mut object = self.0.clone().unwrap_or(Value::Null);
        if self.0.is_some() {
            object["required"] = json!(MAX_GROWN);
            object["met"] = self.met().into();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_to_its_size() {
        let ring = |grown: u64| Ring(Some(json!({"grown_bytes": grown, "told": 7})));
        assert!(ring(70 << 20).met() && ring(70 << 20).to_text().contains("73.4       <= 73  ok"));
        assert!(!ring((70 << 20) + 1).met() && ring(80_000_000).to_text().contains("MISSED"));
        assert!(Ring(None).met() && Ring(None).to_text().is_empty());
    }
}
