//! The direction of imports inside the tcptrace library: a module's source in, forbidden edges out.

use std::path::{Component, Path};

/// Module → modules that it may import. What is not listed is forbidden: data flows one way,
/// model ← decode ← tracker ← detect ← sink, and only the pipeline and the command line know both ends.
const MAY_IMPORT: [(&str, &[&str]); 19] = [
    ("wrap", &[]),
    ("progress", &[]),
    ("error", &["kernel"]),
    ("frame", &["error"]),
    ("model", &["frame"]),
    ("decode", &["error", "frame", "model"]),
    ("tracker", &["decode", "frame", "model"]),
    ("detect", &["decode", "frame", "model", "tracker"]),
    ("group", &["model"]),
    ("report", &["frame", "group", "model"]),
    // What the pages say, the kernel's settings that they name, and the limits of rules.
    ("explain", &["detect", "kernel", "model", "wrap"]),
    (
        "sink",
        &["decode", "detect", "error", "explain", "frame", "group", "model", "progress", "report", "tracker", "wrap"],
    ),
    // In front of a sink: passes on what is wanted.
    ("filter", &["decode", "error", "frame", "model", "sink", "tracker"]),
    ("recording", &["error", "frame"]),
    ("kernel", &["error", "filter", "frame", "model", "wrap"]),
    ("stack", &["frame", "kernel"]),
    ("source", &["decode", "error", "filter", "frame", "kernel", "model", "recording", "stack"]),
    ("pipeline", ANY),
    ("cli", ANY),
];
const ANY: &[&str] = &["*"];

/// Roots, which name every module.
const ROOTS: [&str; 2] = ["lib", "main"];

/// Edges of one file that the table forbids, as (line, what). Files outside the library have none.
pub fn check(name: &Path, text: &str) -> Vec<(usize, String)> {
    let Ok(inside) = name.strip_prefix("tcptrace/src") else { return Vec::new() };
    let Some(Component::Normal(first)) = inside.components().next() else { return Vec::new() };
    let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
    if ROOTS.contains(&module.as_str()) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return vec![(1, format!("module `{module}` is not in xtask's table of import directions"))];
    };
    let mut wrong = Vec::new();
    for (line, import) in imports(text) {
        let known = MAY_IMPORT.iter().any(|(name, _)| *name == import);
        if known && import != module && *allowed != ANY && !allowed.contains(&import.as_str()) {
            wrong.push((line, format!("`{module}` imports `{import}`: the flow goes the other way")));
        }
    }
    wrong
}

/// First names of all `crate::…` paths, groups included, with their lines.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: String =
        text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code).to_owned() + "\n").collect();
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let line = code[..at].lines().count().max(1);
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_names(group).into_iter().map(|name| (line, name))),
            None => found.push((line, first_name(rest))),
        }
    }
    found
}

/// First names of a group's members, up to its closing brace.
fn group_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut at_start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                names.push(first_name(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, text: &str) -> Vec<(usize, String)> {
        check(Path::new(name), text)
    }

    #[test]
    fn the_flow_may_not_be_turned_round() {
        let found = wrong("tcptrace/src/tracker/mod.rs", "//! T.\nuse crate::model::State;\nuse crate::sink::Json;\n");
        assert_eq!(found, [(3, "`tracker` imports `sink`: the flow goes the other way".to_owned())]);
        assert_eq!(wrong("tcptrace/src/sink/json.rs", "use crate::tracker::Change;\n"), []);
        assert_eq!(wrong("tcptrace/src/pipeline.rs", "use crate::{sink, source, tracker};\n"), []);
    }

    #[test]
    fn groups_and_plain_paths_are_seen_and_comments_are_not() {
        let text = "use crate::{\n    decode::{Event, Kind},\n    frame,\n};\n// crate::sink\nfn f() -> crate::model::End {}\n";
        let names: Vec<String> = imports(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["decode", "frame", "model"]);
    }

    #[test]
    fn a_new_module_needs_a_place_in_the_table() {
        assert_eq!(wrong("tcptrace/src/magic.rs", "//! M.\n").len(), 1);
        assert_eq!(wrong("tcptrace/src/lib.rs", "use crate::sink;\n"), []);
        assert_eq!(wrong("xtask/src/magic.rs", "//! M.\n"), []);
    }
}
