//! Rules of the source tree that no compiler checks: the tree in, a list of violations out.

mod imports;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{sh, task_names};

/// A file longer than this wants splitting.
const MAX_LINES: usize = 600;

/// Never in Rust source. Written in pieces, so that this file passes its own check.
const UNFINISHED: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];
/// A lint is silenced by `expect`, which complains when it is no longer needed.
const SILENCED: [&str; 2] = [concat!("#[", "allow("), concat!("#![", "allow(")];
/// Directories of somebody's machine; compiled objects are searched too.
const MACHINE: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Settings of somebody's machine, in cargo's configuration.
const CARGO_SETTINGS: [&str; 6] = ["[source", "[registr", "replace-with", "proxy", "[http", "index ="];
/// Where every locked package comes from.
const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Check the tree and list what is wrong on stderr.
///
/// # Errors
/// Something is, or a file cannot be read.
pub fn run() -> Result<()> {
    let root = sh::root();
    let mut files = Vec::new();
    list(&root, &mut files)?;
    files.sort();
    let mut wrong = Vec::new();
    for file in &files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&root)?;
        wrong.extend(check(name, &String::from_utf8_lossy(&bytes)));
    }
    for line in &wrong {
        eprintln!("{line}");
    }
    if !wrong.is_empty() {
        bail!("{} violation(s) in {} files", wrong.len(), files.len());
    }
    Ok(())
}

/// README.md and everything under docs/.
///
/// # Errors
/// A directory cannot be read.
pub fn documents() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    list(&sh::root(), &mut files)?;
    let root = sh::root();
    files.retain(|file| is_document(file.strip_prefix(&root).unwrap_or(file)));
    Ok(files)
}

fn is_document(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "md")
}

/// All files but build output and version control.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != ".git") && !path.join("CACHEDIR.TAG").exists() {
                list(&path, files)?;
            }
        } else if path.file_name().is_none_or(|name| name != ".git") {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong with one file, each as `file:line: what`.
fn check(name: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |line: usize, what: String| wrong.push(format!("{}:{line}: {what}", name.display()));
    for (number, line) in (1..).zip(text.lines()) {
        for path in MACHINE.iter().filter(|path| line.contains(**path)) {
            say(number, format!("`{path}` is a directory of one machine"));
        }
    }
    // A failed golden's proposal.
    if name.extension().is_some_and(|extension| extension == "new") {
        say(1, "accept it or remove it".to_owned());
    }
    if name.extension().is_some_and(|extension| extension == "rs") {
        let count = text.lines().count();
        if count > MAX_LINES {
            say(count, format!("{count} lines; over {MAX_LINES} wants splitting"));
        }
        if !text.starts_with("//!") {
            say(1, "a module opens with `//!`: what flows in, what flows out".to_owned());
        }
        for (number, line) in (1..).zip(text.lines()) {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                say(number, format!("`{word}`: finish it"));
            }
            for word in SILENCED.iter().filter(|word| line.contains(**word)) {
                say(number, format!("`{word}…)]`: use `expect` with a reason"));
            }
        }
        for (line, what) in imports::check(name, text) {
            say(line, what);
        }
    }
    if name == Path::new("Cargo.lock") {
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| line.starts_with("source = ")) {
            if line != CRATES_IO {
                say(number, "a package that does not come from crates.io".to_owned());
            }
        }
    }
    if name == Path::new(".cargo/config.toml") {
        for (number, line) in (1..).zip(text.lines()) {
            for word in CARGO_SETTINGS.iter().filter(|word| line.contains(**word)) {
                say(number, format!("`{word}` is a setting of one machine"));
            }
        }
    }
    if is_document(name) {
        let tasks = task_names();
        for task in invocations(text, "cargo xtask").into_iter().filter(|task| !tasks.contains(task)) {
            say(1, format!("`cargo xtask {task}` does not exist"));
        }
    }
    wrong
}

/// Sub-commands of `program` that a Markdown text shows: in code spans and at the start of lines of code blocks, with or without a
/// prompt or sudo before them. Options in that place are passed over.
pub fn invocations(text: &str, program: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            found.extend(invocation(line, program));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).filter_map(|span| invocation(span, program)));
        }
    }
    found
}

fn invocation(code: &str, program: &str) -> Option<String> {
    let mut rest = code.trim_start();
    for before in ["$ ", "# ", "sudo "] {
        rest = rest.strip_prefix(before).unwrap_or(rest).trim_start();
    }
    let word = rest.strip_prefix(program)?.strip_prefix(' ')?.split_whitespace().next()?;
    let is_name = word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_name.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, text: &str) -> Vec<String> {
        check(Path::new(name), text)
    }

    #[test]
    fn a_clean_module_passes() {
        assert_eq!(wrong("tcptrace/src/sink/text.rs", "//! Lines.\nuse crate::tracker::Change;\n"), [""; 0]);
    }

    #[test]
    fn each_rule_names_file_and_line() {
        for (name, text, expected) in [
            ("a.rs", "fn main() {}\n".to_owned(), "a.rs:1: a module opens"),
            ("a.snap.new", "x\n".to_owned(), "a.snap.new:1: accept"),
            ("a.rs", format!("//! A.\n{}\n", "x();\n".repeat(600)), "a.rs:602: 602 lines"),
            ("a.rs", format!("//! A.\n    {})\n", UNFINISHED[0]), "a.rs:2: `to"),
            ("a.rs", format!("//! A.\n// {}: later\n", UNFINISHED[3]), "a.rs:2: `FIX"),
            ("a.rs", format!("//! A.\n{}dead_code)]\n", SILENCED[0]), "a.rs:2: `#["),
            ("docs/a.md", format!("see {}me/x\n", MACHINE[2]), "docs/a.md:1: `/ho"),
            ("Cargo.lock", "source = \"registry+https://example.org\"\n".to_owned(), "Cargo.lock:1: a package"),
            (".cargo/config.toml", "[source.crates-io]\n".to_owned(), ".cargo/config.toml:1: `[source`"),
            ("README.md", "run `cargo xtask fly`\n".to_owned(), "README.md:1: `cargo xtask fly` does not exist"),
        ] {
            let found = wrong(name, &text);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
    }

    #[test]
    fn commands_are_found_in_code_only() {
        let text = "tcptrace watches; run `tcptrace top` or `tcptrace --help`.\n\n    sudo tcptrace conns --json\n\
            ```\n$ tcptrace trace -- curl\n10:00 tcptrace queues\n```\ntcptrace never sleeps\n";
        assert_eq!(invocations(text, "tcptrace"), ["top", "conns", "trace"]);
    }
}
