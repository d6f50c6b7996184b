//! Runs `report` on a recording of real traffic, and reads its page as a browser's parser would.
//!
//! In the recording python asks servers of its own: one answers, one accepts too slowly for its backlog of 2, one resets, one never closes;
//! a port where nobody listens; an address that does not answer.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The file.
pub fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/mixed.rec")
}

/// The binary with a file behind its arguments.
pub fn tcptrace(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(arguments).arg(file).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command
}

/// Run to its end.
pub fn output(arguments: &[&str], file: &Path) -> Output {
    tcptrace(arguments, file).output().expect("the binary runs")
}

/// As text.
pub fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// What a successful run printed.
pub fn printed(arguments: &[&str], file: &Path) -> String {
    let out = output(arguments, file);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    utf8(out.stdout)
}

/// The report as JSON.
pub fn json(arguments: &[&str], file: &Path) -> Value {
    let text = printed(&[&["report", "--json"], arguments].concat(), file);
    assert_eq!(text.lines().count(), 1, "one line");
    serde_json::from_str(&text).expect("JSON")
}

/// Of a page for browsers: well-formed, nothing from elsewhere, no script.
pub fn parsed(html: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(html, options).unwrap_or_else(|e| panic!("{e}"));
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        assert!(
            !["script", "link", "img", "iframe", "object", "foreignObject"].contains(&node.tag_name().name()),
            "{node:?}"
        );
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
            if ["href", "src"].contains(&attribute.name()) {
                assert!(attribute.value().starts_with('#'), "{attribute:?}");
            }
        }
    }
    assert!(!html.contains("://") && !html.contains("url("), "a reference to elsewhere");
    let mut ids: Vec<_> = document.descendants().filter_map(|n| n.attribute("id")).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id twice");
    for node in document.descendants() {
        let named = node.attribute("aria-labelledby").unwrap_or_default().split(' ').filter(|id| !id.is_empty());
        let linked = node.attribute("href").and_then(|href| href.strip_prefix('#'));
        for id in named.chain(linked) {
            assert!(ids.contains(&id), "nothing is called {id}");
        }
    }
    document
}
