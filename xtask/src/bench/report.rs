//! Results of single runs in, tables and JSON out: medians, beside what is required of tcptrace.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    check::Counts,
    proc::ProgramCost,
    tracer::{SUBJECTS, Subject},
};

/// Most bytes resident.
const MAX_RSS: u64 = 30_000_000;
/// Most host CPU time for a paced connection, microseconds.
const MAX_ADDED_US: f64 = 4.0;
/// Most time in the kernel programs, nanoseconds per run.
const MAX_RUN_NS: f64 = 250.0;
/// Both ends of a connection are one each.
const ENDS: u64 = 2;
/// State changes of one connection, both ends: five each.
const TRANSITIONS: u64 = 10;

/// One run under the storm.
#[derive(Clone, Debug, Default)]
pub struct Storm {
    /// Connections per second.
    pub rate: f64,
    /// Events lost, by the tool's own count.
    pub lost: u64,
    /// Most bytes resident.
    pub rss: u64,
    /// CPU time of the tracer.
    pub cpu: Duration,
    /// CPU time of the threads that make connections, and of the softirq threads, microseconds per connection.
    pub load_us: f64,
    /// What tcptrace saw; None for other tools.
    pub counts: Option<Counts>,
}

/// A slice of a paced load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paced {
    /// CPU time of the threads that make connections, and of the softirq threads, microseconds per connection.
    pub load_us: f64,
    /// CPU time of the tracer, microseconds per connection.
    pub tracer_us: f64,
    /// Connections per second, in fact.
    pub rate: f64,
}

/// Two slices, one right behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Nothing attached.
    pub without: Paced,
    /// The tracer attached.
    pub with: Paced,
}

impl Pair {
    /// CPU time that the tracer adds to the load, microseconds per connection.
    fn in_load(&self) -> f64 {
        self.with.load_us - self.without.load_us
    }

    fn added(&self) -> f64 {
        self.in_load() + self.with.tracer_us
    }
}

/// One kernel program in the run that counts their time.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The program's id.
    pub id: u32,
    /// What it cost.
    pub cost: ProgramCost,
}

/// All runs of one subject.
struct Row {
    subject: &'static Subject,
    storms: Vec<Storm>,
    paced: Vec<Pair>,
    costs: Vec<Cost>,
}

/// Everything that was measured.
pub struct Report {
    rounds: u32,
    connections: u32,
    busy_before: f64,
    rows: Vec<Row>,
}

/// A measured figure and whether it is good enough; None: nothing is required.
struct Figure {
    shown: String,
    value: Value,
    required: Option<(String, bool)>,
}

impl Report {
    /// Nothing yet. `busy_before`: share of the host's CPU time that something else took; figures of a busy host mean little.
    pub fn new(rounds: u32, connections: u32, busy_before: f64) -> Self {
        let row = |subject| Row { subject, storms: Vec::new(), paced: Vec::new(), costs: Vec::new() };
        Self { rounds, connections, busy_before, rows: SUBJECTS.iter().map(row).collect() }
    }

    fn row(&mut self, subject: &Subject) -> &mut Row {
        let at = SUBJECTS.iter().position(|known| known.name == subject.name);
        let at = at.expect("every subject is of the list");
        &mut self.rows[at]
    }

    /// Add a run under the storm.
    pub fn storm(&mut self, subject: &Subject, run: Storm) {
        self.row(subject).storms.push(run);
    }

    /// Add a pair of slices.
    pub fn paced(&mut self, subject: &Subject, pair: Pair) {
        self.row(subject).paced.push(pair);
    }

    /// Add the run that counted the programs' time.
    pub fn cost(&mut self, subject: &Subject, run: Vec<Cost>) {
        self.row(subject).costs = run;
    }

    /// Whether every requirement that was measured is met.
    pub fn met(&self) -> bool {
        self.rows.iter().flat_map(|row| self.figures(row)).all(|(_, f)| f.required.is_none_or(|(_, met)| met))
    }

    /// A row's figures, by name.
    fn figures(&self, row: &Row) -> Vec<(&'static str, Figure)> {
        let mut figures = Vec::new();
        let ours = row.subject.is_ours();
        let mut add = |name, shown: String, value: Value, required: Option<(String, bool)>| {
            figures.push((name, Figure { shown, value, required }));
        };
        if let Some(rate) = median(row.storms.iter().map(|run| run.rate)) {
            add("connections/s", format!("{rate:.0}"), json!(rate), None);
            let base = &self.rows[0].storms;
            if let Some(ratio) = median(row.storms.iter().zip(base).map(|(run, base)| run.rate / base.rate)) {
                let required = row.subject.keeps.map(|keeps| (format!(">= {:.0}", keeps * 100.0), ratio >= keeps));
                add("% of nothing", format!("{:.1}", ratio * 100.0), json!(ratio * 100.0), required);
            }
        }
        if row.subject.name != SUBJECTS[0].name && !row.storms.is_empty() {
            let base = &self.rows[0].storms;
            let lost: u64 = row.storms.iter().map(|run| run.lost).sum();
            add("lost, all rounds", lost.to_string(), json!(lost), ours.then(|| ("0".to_owned(), lost == 0)));
            // There are storms: a largest and a median, too.
            let rss = row.storms.iter().map(|run| run.rss).max().unwrap_or_default();
            let required = ours.then(|| ("< 30".to_owned(), rss < MAX_RSS));
            add("RSS after the storm, MB", format!("{:.1}", rss as f64 / 1e6), json!(rss as f64 / 1e6), required);
            let cpu = median(row.storms.iter().map(|run| run.cpu.as_secs_f64())).unwrap_or_default();
            add("tracer's CPU, s", format!("{cpu:.2}"), json!(cpu), None);
            let load = row.storms.iter().zip(base).map(|(run, base)| run.load_us - base.load_us);
            let load = median(load).unwrap_or_default();
            add("added to the load, us", format!("{load:.2}"), json!(load), None);
        }
        for (name, required, worst) in self.wholeness(row) {
            add(name, worst.to_string(), json!(worst), Some((required.to_string(), worst == required)));
        }
        let added: Vec<f64> = row.paced.iter().map(Pair::added).collect();
        if let (Some(middle), Some([low, high])) = (median(added.iter().copied()), quartiles(&added)) {
            let required = ours.then(|| (format!("<= {MAX_ADDED_US}"), middle <= MAX_ADDED_US));
            add("added CPU, us/connection", format!("{middle:.2}"), json!(middle), required);
            add("  middle half of the pairs", format!("{low:.1}..{high:.1}"), json!([low, high]), None);
            for (name, get) in
                [("  in the load", Pair::in_load as fn(&Pair) -> f64), ("  tracer", |p| p.with.tracer_us)]
            {
                let part = median(row.paced.iter().map(get)).unwrap_or_default();
                add(name, format!("{part:.2}"), json!(part), None);
            }
        }
        if let Some(rate) = median(row.paced.iter().map(|pair| pair.with.rate)) {
            add("paced rate in fact", format!("{rate:.0}"), json!(rate), None);
        }
        let runs: u64 = row.costs.iter().map(|cost| cost.cost.runs).sum();
        if runs > 0 {
            let ns = row.costs.iter().map(|cost| cost.cost.ns).sum::<u64>() as f64 / runs as f64;
            let required = ours.then(|| (format!("<= {MAX_RUN_NS}"), ns <= MAX_RUN_NS));
            add("ns/run of its programs", format!("{ns:.0}"), json!(ns), required);
            add("runs", runs.to_string(), json!(runs), None);
        }
        figures
    }

    /// (name, required, the worst round) of what tcptrace must have seen; only what its command prints.
    fn wholeness(&self, row: &Row) -> Vec<(&'static str, u64, u64)> {
        let connections = u64::from(self.connections);
        let counts: Vec<Counts> = row.storms.iter().filter_map(|run| run.counts).collect();
        let mut list = Vec::new();
        let mut add = |name, required: u64, get: fn(&Counts) -> u64| {
            // The round that is farthest off, in either direction.
            let worst = counts.iter().map(get).max_by_key(|seen| seen.abs_diff(required));
            list.extend(worst.map(|worst| (name, required, worst)));
        };
        add("connections seen", connections * ENDS, |counts| counts.connections);
        add("of them with gaps 0", connections * ENDS, |counts| counts.whole);
        add("transitions seen", connections * TRANSITIONS, |counts| counts.transitions);
        // `trace` prints no connections, `conns` no transitions: their requirements are on what they do print.
        let printed = |name: &str| match row.subject.name {
            "tcptrace trace" => name == "transitions seen",
            "tcptrace conns" => name != "transitions seen",
            _ => true,
        };
        list.retain(|(name, ..)| printed(name));
        list
    }

    /// Figures by subject, one a line.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} connections, medians of {} rounds; the host was {:.0} % busy before\n",
            self.connections,
            self.rounds,
            self.busy_before * 100.0
        );
        for row in &self.rows {
            let figures = self.figures(row);
            if figures.is_empty() {
                continue;
            }
            writeln!(text, "\n{}", row.subject.name).expect("a String takes everything");
            for (name, figure) in figures {
                let verdict = match figure.required {
                    Some((required, true)) => format!("  {required:>10}  ok"),
                    Some((required, false)) => format!("  {required:>10}  MISSED"),
                    None => String::new(),
                };
                writeln!(text, "  {name:<26}{:>10}{verdict}", figure.shown).expect("a String takes everything");
            }
        }
        text
    }

    /// The same as one object.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .filter(|row| !self.figures(row).is_empty())
            .map(|row| {
                let figures = self.figures(row).into_iter().map(|(name, figure)| {
                    let mut entry = json!({"value": figure.value});
                    if let Some((required, met)) = figure.required {
                        entry["required"] = json!(required);
                        entry["met"] = json!(met);
                    }
                    (name.to_owned(), entry)
                });
                let programs: Vec<Value> =
                    row.costs.iter().map(|c| json!({"id": c.id, "runs": c.cost.runs, "ns": c.cost.ns})).collect();
                let added: Vec<f64> = row.paced.iter().map(Pair::added).collect();
                let rates: Vec<f64> = row.storms.iter().map(|run| run.rate).collect();
                json!({
                    "name": row.subject.name,
                    "figures": figures.collect::<serde_json::Map<_, _>>(),
                    "rates": rates,
                    "added_us": added,
                    "programs": programs,
                })
            })
            .collect();
        json!({
            "connections": self.connections,
            "rounds": self.rounds,
            "busy_before": self.busy_before,
            "met": self.met(),
            "subjects": rows,
        })
    }
}

/// None: there are no values.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The values that a quarter of all are below and above; at least half of all lie between them.
fn quartiles(values: &[f64]) -> Option<[f64; 2]> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    Some([*values.get(quarter)?, *values.get(values.len() - 1 - quarter)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> &'static Subject {
        SUBJECTS.iter().find(|subject| subject.name == name).unwrap()
    }

    fn record(rates: [f64; 3], base: [f64; 3], whole: u64) -> Report {
        let mut report = Report::new(3, 100, 0.0);
        for (rate, base) in rates.into_iter().zip(base) {
            report.storm(subject("nothing"), Storm { rate: base, ..Storm::default() });
            let counts = Some(Counts { connections: 200, whole, transitions: 1000, lost: Some(0) });
            report.storm(subject("tcptrace record"), Storm { rate, rss: 1, counts, ..Storm::default() });
        }
        report
    }

    #[test]
    fn rates_are_compared_within_their_round() {
        // Medians of the single columns would say 60 %.
        let report = record([90.0, 45.0, 54.0], [100.0, 50.0, 60.0], 200);
        let text = report.to_text();
        assert!(text.contains("% of nothing                    90.0       >= 88  ok"), "{text}");
        assert!(report.met(), "{text}");
    }

    #[test]
    fn a_connection_with_a_gap_is_a_miss() {
        let report = record([90.0; 3], [100.0; 3], 199);
        let text = report.to_text();
        assert!(text.contains("of them with gaps 0              199         200  MISSED"), "{text}");
        assert!(!report.met());
        assert_eq!(report.to_json()["met"], false);
    }

    #[test]
    fn added_time_is_compared_within_its_pair() {
        let mut report = Report::new(1, 100, 0.0);
        // The machine's own speed changes by more than what is looked for.
        for (without, with) in [(30.0, 33.0), (50.0, 53.5), (40.0, 42.0)] {
            let [without, with] = [without, with].map(|load_us| Paced { load_us, ..Paced::default() });
            report.paced(subject("tcptrace record"), Pair { without, with: Paced { tracer_us: 1.0, ..with } });
        }
        let text = report.to_text();
        assert!(text.contains("added CPU, us/connection        4.00        <= 4  ok"), "{text}");
        assert!(text.contains("middle half of the pairs  3.0..4.5"), "{text}");
        assert!(report.met(), "{text}");
        report.paced(
            subject("tcptrace record"),
            Pair { without: Paced::default(), with: Paced { load_us: 9.0, ..Paced::default() } },
        );
        assert!(!report.met());
    }

    #[test]
    fn quarters() {
        assert_eq!(quartiles(&[]), None);
        assert_eq!(quartiles(&[1.0]), Some([1.0, 1.0]));
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), Some([2.0, 3.0]));
    }

    #[test]
    fn medians() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    }
}
