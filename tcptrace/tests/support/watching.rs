//! `watch --json --record` beside a scenario, and what it found.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    recorded::without_this_host,
    support::{
        netns::Netns,
        run::{nothing_lost, parse},
        slowness,
        tracer::{Live, netns_list, tcptrace},
    },
};

/// A recording in the repository is not longer.
const KEPT_BYTES: u64 = 20 * 1024;

/// A live `watch`.
pub struct Watching {
    live: Live,
    dir: TempDir,
    config: String,
}

impl Watching {
    /// Watch these namespaces, with limits that are not the default; returns when nothing that happens from now on is missed.
    pub fn start(namespaces: &[&Netns], config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("watch.toml");
        fs::write(&file, config).expect("our directory");
        let mut command = tcptrace();
        command.args(["watch", "--json", "--netns", &netns_list(namespaces), "--record"]);
        command.arg(recording(&dir)).arg("--config").arg(&file);
        Self { live: Live::start(&mut command, &[]), dir, config: config.to_owned() }
    }

    /// The first finding of this rule that fires.
    pub fn fires(&self, rule: &str) -> Value {
        self.live.wait_for(rule, |line| line["rule"] == rule && line["status"] == "firing")
    }

    /// The first of this rule that fires and is as wanted.
    pub fn fires_as(&self, rule: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.live.wait_for(rule, |line| line["rule"] == rule && line["status"] == "firing" && wanted(line))
    }

    /// The first of this rule that is resolved.
    pub fn resolves(&self, rule: &str) -> Value {
        self.live.wait_for(rule, |line| line["rule"] == rule && line["status"] == "resolved")
    }

    /// Two intervals end, each of which would tell of trouble: none does.
    #[track_caller]
    pub fn finds_nothing(self) -> Stopped {
        sleep(Duration::from_millis(1200));
        self.stop(&[])
    }

    /// End it: exactly these rules have fired, and nothing was lost.
    #[track_caller]
    pub fn stop(self, rules: &[&str]) -> Stopped {
        let (text, _) = self.live.stop();
        let lines = parse(&text);
        nothing_lost(&lines);
        let mut fired: Vec<&str> = lines
            .iter()
            .filter(|line| line["type"] == "finding" && line["status"] == "firing")
            .filter_map(|line| line["rule"].as_str())
            .collect();
        fired.sort_unstable();
        fired.dedup();
        assert_eq!(fired, rules, "{text}");
        Stopped { dir: self.dir, config: self.config }
    }
}

fn recording(dir: &TempDir) -> PathBuf {
    dir.path().join("watch.rec")
}

/// A run that is over.
pub struct Stopped {
    dir: TempDir,
    config: String,
}

impl Stopped {
    /// With `TCPTRACE_BLESS=1`: this run's recording is that of the repository, under `RULE.trouble` or `RULE.alike`.
    pub fn keep(self, name: &str) {
        if std::env::var_os("TCPTRACE_BLESS").is_none() {
            return;
        }
        let from = recording(&self.dir);
        without_this_host(&from);
        let bytes = fs::metadata(&from).expect("a recording").len();
        assert!(bytes <= KEPT_BYTES, "{name}: {bytes} bytes are too many for the repository");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/findings/recordings");
        fs::create_dir_all(&folder).expect("our directory");
        fs::copy(&from, folder.join(format!("{name}.rec"))).expect("our directory");
        if !self.config.is_empty() {
            fs::write(folder.join(format!("{name}.toml")), &self.config).expect("our directory");
        }
    }
}

/// A finding came so soon after what it is about, which began at `began` (CLOCK_MONOTONIC): `within`, and what a noisy machine adds.
#[track_caller]
pub fn in_time(finding: &Value, began: u64, within: Duration) {
    let slack = Duration::from_secs(1) * slowness();
    let took = Duration::from_nanos(finding["mono_ns"].as_u64().expect("a time").saturating_sub(began));
    println!("{} fired after {took:?}", finding["rule"]);
    assert!(took <= within + slack, "{took:?}: {finding}");
}

/// A number of a finding's evidence.
#[track_caller]
pub fn number(finding: &Value, name: &str) -> f64 {
    finding["evidence"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {finding}"))
}

/// It is about the listener at this port, and names this process as its owner.
#[track_caller]
pub fn is_ours(finding: &Value, severity: &str, port: u16) {
    assert_eq!((&finding["severity"], &finding["subject"]["lport"]), (&severity.into(), &port.into()), "{finding}");
    assert_eq!(finding["subject"]["pid"], std::process::id(), "{finding}");
    for text in ["summary", "advice", "look"] {
        assert!(finding[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {finding}");
    }
}
