//! What is generated under `docs/`, and whether the commands that the documents show exist.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{sh, tidy};

const EVENTS: &str = "docs/events.md";

/// Regenerate `docs/events.md`; with `check`, compare it instead, and ask the binary for every command that a document shows.
///
/// # Errors
/// tcptrace does not build, the committed file differs, or a document shows a command that does not exist.
pub fn run(check: bool) -> Result<()> {
    sh::run(sh::cargo().args(["build", "--quiet", "--package", "tcptrace"]))?;
    let binary = sh::target_dir()?.join("debug/tcptrace");
    let fresh = sh::read(Command::new(&binary).arg("docs-events"))? + "\n";
    let path = sh::root().join(EVENTS);
    if !check {
        fs::write(&path, fresh).with_context(|| format!("cannot write {EVENTS}"))?;
        eprintln!("wrote {EVENTS}");
        return Ok(());
    }
    let committed = fs::read_to_string(&path).with_context(|| format!("cannot read {EVENTS}"))?;
    if committed.trim() != fresh.trim() {
        let line = committed.lines().zip(fresh.lines()).take_while(|(old, new)| old == new).count() + 1;
        bail!("{EVENTS} is not what `tcptrace docs-events` prints (from line {line}): run `cargo xtask docs`");
    }
    commands_exist(&binary)
}

/// Every `tcptrace COMMAND` in the documents answers to `--help`.
fn commands_exist(binary: &PathBuf) -> Result<()> {
    let mut shown = BTreeSet::new();
    for document in tidy::documents()? {
        let text = fs::read_to_string(&document)?;
        shown.extend(tidy::invocations(&text, "tcptrace"));
    }
    ensure!(!shown.is_empty(), "no document shows a tcptrace command");
    let unknown: Vec<_> =
        shown.into_iter().filter(|name| !sh::succeeds(Command::new(binary).args([name, "--help"]))).collect();
    ensure!(unknown.is_empty(), "the documents show tcptrace commands that do not exist: {}", unknown.join(", "));
    Ok(())
}
