//! What is generated under `docs/` and `man/`, and whether the commands that the documents show exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{sh, tidy};

/// Documents, and what prints each.
const DOCUMENTS: [(&str, &str); 2] = [("docs/events.md", "docs-events"), ("docs/explain.md", "docs-explain")];
/// Where manual pages are.
const MAN: &str = "man";

/// Regenerate everything; with `check`, compare it instead, and ask the binary for every command that a document shows.
///
/// # Errors
/// tcptrace does not build, a committed file differs, or a document shows a command that does not exist.
pub fn run(check: bool) -> Result<()> {
    sh::run(sh::cargo().args(["build", "--quiet", "--package", "tcptrace"]))?;
    let binary = sh::target_dir()?.join("debug/tcptrace");
    let fresh = generate(&binary)?;
    let left: Vec<_> = manual_pages()?.into_iter().filter(|page| fresh.iter().all(|(name, _)| name != page)).collect();
    if check {
        fresh.iter().try_for_each(|(name, text)| compare(name, text))?;
        ensure!(left.is_empty(), "{} is no page of tcptrace any more: run `cargo xtask docs`", left.join(", "));
        return commands_exist(&binary);
    }
    fs::create_dir_all(sh::root().join(MAN)).with_context(|| format!("cannot make {MAN}/"))?;
    for (name, text) in fresh {
        fs::write(sh::root().join(&name), text).with_context(|| format!("cannot write {name}"))?;
        eprintln!("wrote {name}");
    }
    for name in left {
        fs::remove_file(sh::root().join(&name)).with_context(|| format!("cannot remove {name}"))?;
        eprintln!("removed {name}");
    }
    Ok(())
}

/// (path, text) of every generated file.
fn generate(binary: &Path) -> Result<Vec<(String, String)>> {
    let print = |arguments: &[&str]| Ok::<_, anyhow::Error>(sh::read(Command::new(binary).args(arguments))? + "\n");
    let mut files = Vec::new();
    for (name, command) in DOCUMENTS {
        files.push((name.to_owned(), print(&[command])?));
    }
    for page in print(&["docs-man"])?.lines() {
        files.push((format!("{MAN}/{page}"), print(&["docs-man", page])?));
    }
    Ok(files)
}

/// Paths of the pages that are there.
fn manual_pages() -> Result<Vec<String>> {
    let dir = sh::root().join(MAN);
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(dir)?.map(|entry| Ok(format!("{MAN}/{}", entry?.file_name().to_string_lossy())));
    names.collect()
}

fn compare(name: &str, fresh: &str) -> Result<()> {
    let committed = fs::read_to_string(sh::root().join(name)).with_context(|| format!("cannot read {name}"))?;
    if committed.trim() != fresh.trim() {
        let line = committed.lines().zip(fresh.lines()).take_while(|(old, new)| old == new).count() + 1;
        bail!("{name} is not what tcptrace prints (from line {line}): run `cargo xtask docs`");
    }
    Ok(())
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
