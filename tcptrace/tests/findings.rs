//! What rules find: `tests/findings/*.toml`, each labelled with the rules that must fire, or with none. Precision and recall of every rule
//! are printed, and must be 1.
//!
//! With `TCPTRACE_BLESS=1` the expected findings are written instead of compared, to be read before they are committed. The labels never are.

#[path = "support/parts.rs"]
mod parts;
#[path = "support/rules.rs"]
mod rules;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{collections::BTreeMap, fmt::Write as _, fs, io::Write as _, path::Path, process::Command};

use parts::Part;
use serde::Deserialize;
use tcptrace::{
    detect::{config::Config, rules::RULES},
    model::{Finding, Measure, Piece, Status},
};

/// As many as the rules need.
const FILES: usize = 110;
/// Recordings of trouble, and as many of what looks like it.
const RECORDINGS: usize = 34;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    about: String,
    /// Rules that must fire; all others must not.
    trouble: Vec<String>,
    /// What the kernel offers: `exact`, which is all hooks, or `tracepoint`.
    #[serde(default = "exact")]
    tier: String,
    /// A configuration, where it is not the default.
    #[serde(default)]
    config: String,
    /// What happens.
    part: Vec<Part>,
    /// The findings, one line each.
    expect: String,
}

fn exact() -> String {
    "exact".to_owned()
}

/// The START line of a tier.
fn start(tier: &str) -> String {
    let signals = match tier {
        "exact" => {
            "half_open=fentry:a syn_outcome=fexit:b accept_queue=fexit:c overflow=fexit:d cookies=fentry:e fast_open=fexit:f \
             migration=fexit:g time_wait=fentry:h accept=fentry:i synack_retransmit=tp_btf:j"
        }
        "tracepoint" => {
            "half_open=tp_btf:a syn_outcome=counters:b accept_queue=tp_btf:c overflow=tp_btf:d time_wait=tp_btf:h \
             accept=tracepoint:i synack_retransmit=tp_btf:j"
        }
        other => panic!("{other:?} is no tier"),
    };
    format!("0 START {signals}")
}

/// How often a rule fired where it had to, where it must not, and did not where it had to.
#[derive(Clone, Copy, Default)]
struct Score {
    hits: u32,
    false_alarms: u32,
    misses: u32,
}

#[test]
fn rules_find_trouble_and_nothing_else() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/findings");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() >= FILES, "{} scenarios found in {}", files.len(), folder.display());
    let bless = std::env::var_os("TCPTRACE_BLESS").is_some();
    let mut scores: BTreeMap<&str, Score> = RULES.iter().map(|rule| (rule.name, Score::default())).collect();
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let scenario: Scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(!scenario.about.is_empty(), "{} is empty", file.display());
        for rule in &scenario.trouble {
            assert!(scores.contains_key(rule.as_str()), "{}: no rule is called {rule}", file.display());
        }
        let findings = run(&scenario);
        for (rule, score) in &mut scores {
            let fired = findings.iter().any(|f| f.rule == *rule && f.status == Status::Firing);
            match (fired, scenario.trouble.iter().any(|name| name == rule)) {
                (true, true) => score.hits += 1,
                (true, false) => score.false_alarms += 1,
                (false, true) => score.misses += 1,
                (false, false) => continue,
            }
            if fired != scenario.trouble.iter().any(|name| name == rule) {
                wrong.push(format!("{}: {rule} {}", file.display(), if fired { "fired" } else { "did not fire" }));
            }
        }
        let got: String = findings.iter().map(|f| line(f) + "\n").collect();
        if bless {
            let (before, rest) = text.split_once("expect = \"\"\"").expect("an expect field");
            let (_, after) = rest.split_once("\"\"\"").expect("its end");
            fs::write(&file, format!("{before}expect = \"\"\"\n{got}\"\"\"{after}")).unwrap();
        } else if got != scenario.expect {
            wrong.push(format!("{}\n-- expected\n{}-- got\n{got}", file.display(), scenario.expect));
        }
    }
    let mut table = String::new();
    let _ = writeln!(table, "{:<22} {:>9} {:>6}  scenarios with, false alarms, misses", "rule", "precision", "recall");
    for (rule, score) in &scores {
        let share = |of: u32| if of == 0 { 0.0 } else { f64::from(score.hits) / f64::from(of) };
        let (precision, recall) = (share(score.hits + score.false_alarms), share(score.hits + score.misses));
        let Score { hits, false_alarms, misses } = score;
        let _ = writeln!(table, "{rule:<22} {precision:>9.2} {recall:>6.2}  {hits}, {false_alarms}, {misses}");
        assert!(!wrong.is_empty() || precision == 1.0 && recall == 1.0, "{rule}: no scenario has it");
    }
    // Not by a macro: those are heard only when a test fails.
    std::io::stderr().write_all(table.as_bytes()).expect("standard error");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Recordings of live runs (`tests/live_watch.rs`): `RULE.trouble.rec` must fire that rule, `RULE.alike.rec` none. Limits that are not the
/// default stand beside them.
#[test]
fn recordings_replay() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/findings/recordings");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "rec"));
    files.sort();
    assert!(files.len() >= RECORDINGS, "{} recordings found in {}", files.len(), folder.display());
    for file in files {
        let (rule, label) = file.file_stem().and_then(|name| name.to_str()?.split_once('.')).expect("RULE.LABEL.rec");
        assert!(RULES.iter().any(|r| r.name == rule), "{}: no rule is called {rule}", file.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["watch", "--json", "--from"]).arg(&file).env("LC_ALL", "C.UTF-8");
        let config = file.with_extension("toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        let lines: Vec<serde_json::Value> = output
            .stdout
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect();
        let mut fired: Vec<&str> = lines
            .iter()
            .filter(|line| line["type"] == "finding" && line["status"] == "firing")
            .filter_map(|line| line["rule"].as_str())
            .collect();
        fired.sort_unstable();
        fired.dedup();
        let expected: &[&str] = match (label, rule) {
            ("alike", _) => &[],
            // A burst turns clients away, too.
            ("trouble", "backlog-too-small") => &["accept-overflow", "backlog-too-small"],
            ("trouble", _) => &[rule],
            (other, _) => panic!("{}: {other} is no label", file.display()),
        };
        assert_eq!(fired, expected, "{}", file.display());
    }
}

fn run(scenario: &Scenario) -> Vec<Finding> {
    let lines: Vec<_> = std::iter::once(start(&scenario.tier)).chain(parts::lines(&scenario.part)).collect();
    rules::play(Config::parse(&scenario.config).expect("a configuration"), &lines).0
}

/// `12.500 firing critical accept-overflow :80 [20] | sentence | evidence`
fn line(f: &Finding) -> String {
    let end = |addr: Option<std::net::IpAddr>, port: Option<u16>| {
        let (addr, port) = (addr.map(|a| a.to_string()), port.map(|p| format!(":{p}")));
        addr.unwrap_or_default() + &port.unwrap_or_default()
    };
    let (local, remote) = (end(f.subject.laddr, f.subject.lport), end(f.subject.raddr, f.subject.rport));
    let mut words = vec![
        format!("{}.{:03}", f.ts / 1_000_000_000, f.ts / 1_000_000 % 1000),
        f.status.name().to_owned(),
        f.severity.name().to_owned(),
        f.rule.to_owned(),
    ];
    words.extend((!local.is_empty()).then_some(local));
    words.extend((!remote.is_empty()).then(|| format!("→{remote}")));
    words.extend(f.subject.owner.as_ref().map(|o| format!("[{}]", o.pid)));
    words.push(format!("since={}.{:03}", f.since / 1_000_000_000, f.since / 1_000_000 % 1000));
    let evidence: Vec<_> = f.evidence.iter().map(|(name, value)| format!("{name}={}", measure(value))).collect();
    format!("{} | {} | {}", words.join(" "), sentence(&f.summary.0), evidence.join(" "))
}

fn sentence(said: &[Piece]) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Name(name) => String::from_utf8_lossy(name).into_owned(),
        Piece::Us(us) => format!("{us}µs"),
    };
    said.iter().map(piece).collect()
}

fn measure(value: &Measure) -> String {
    match value {
        Measure::Count(n) | Measure::Us(n) => n.to_string(),
        Measure::PerSecond(n) | Measure::Percent(n) => format!("{n:.2}"),
        Measure::Text(text) => text.clone(),
        Measure::Name(name) => String::from_utf8_lossy(name).into_owned(),
        Measure::List(list) => format!("[{}]", list.iter().map(measure).collect::<Vec<_>>().join(",")),
        Measure::Fields(fields) => {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", measure(value))).collect();
            format!("({})", fields.join(","))
        }
    }
}
