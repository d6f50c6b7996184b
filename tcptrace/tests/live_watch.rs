//! Rules of `watch` against the kernel: each makes its trouble for real, and what only looks like it. Not one of the live tests, which run on
//! emulated machines, too.
//!
//! With `TCPTRACE_BLESS=1` what was recorded is kept in `tests/findings/recordings/`, and replayed by `tests/findings.rs` from then on.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

#[path = "support/recorded.rs"]
mod recorded;
#[path = "live_watch/sockets.rs"]
mod sockets;

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use recorded::without_this_host;

use crate::support::{
    netns::Netns,
    run::{nothing_lost, parse},
    tracer::{Live, netns_list, tcptrace},
};

/// Debian's, whatever else is in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// A live `watch --json --record`.
struct Watch {
    live: Live,
    dir: TempDir,
    recording: PathBuf,
    limits: String,
}

impl Watch {
    /// Watch these namespaces with these limits; returns when nothing that happens from now on is missed.
    fn start(namespaces: &[&Netns], config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (recording, limits) = (dir.path().join("watch.rec"), dir.path().join("limits.toml"));
        std::fs::write(&limits, config).expect("a temporary directory");
        let mut command = tcptrace();
        command.args(["watch", "--json", "--netns", &netns_list(namespaces), "--config"]).arg(&limits);
        command.arg("--record").arg(&recording);
        Self { live: Live::start(&mut command, &[]), dir, recording, limits: config.to_owned() }
    }

    /// Wait until this rule fires or is resolved.
    fn wait_for(&self, rule: &str, status: &str) -> Value {
        self.wait_until(&format!("{rule} {status}"), |f| f["rule"] == rule && f["status"] == status)
    }

    /// Wait for a finding.
    fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.live.wait_for(what, |line| line["type"] == "finding" && wanted(line))
    }

    /// Stop it: the rules of all findings that fired. With `TCPTRACE_BLESS=1` keep what was recorded under this name.
    fn stop(self, name: &str) -> Vec<String> {
        let (text, _) = self.live.stop();
        let lines = parse(&text);
        nothing_lost(&lines);
        if std::env::var_os("TCPTRACE_BLESS").is_some() {
            let kept = format!("{}/tests/findings/recordings/{name}.rec", env!("CARGO_MANIFEST_DIR"));
            without_this_host(&self.recording);
            std::fs::copy(&self.recording, &kept).unwrap_or_else(|e| panic!("{kept}: {e}"));
            if !self.limits.is_empty() {
                let limits = kept.replace(".rec", ".toml");
                std::fs::write(&limits, &self.limits).unwrap_or_else(|e| panic!("{limits}: {e}"));
            }
        }
        drop(self.dir);
        let fired = lines.iter().filter(|line| line["type"] == "finding" && line["status"] == "firing");
        let mut rules: Vec<String> = fired.map(|f| f["rule"].as_str().expect("a name").to_owned()).collect();
        rules.dedup();
        rules
    }
}

/// Two namespaces side by side: 10.0.0.1 and 10.0.0.2.
fn side_by_side() -> [Netns; 2] {
    let (here, there) = (Netns::new(), Netns::new());
    here.veth(&there, "10.0.0.1".parse().expect("an address"), "10.0.0.2".parse().expect("an address"));
    [here, there]
}
