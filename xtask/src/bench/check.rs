//! What a tracer printed or recorded: output file in, counts out.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::tracer;
use crate::sh;

/// Counts over tcptrace's JSON lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections.
    pub connections: u64,
    /// Those of them with all their events (`gaps` 0).
    pub whole: u64,
    /// State changes of sockets other than listeners.
    pub transitions: u64,
    /// Events that the summary says were lost; None without a summary.
    pub lost: Option<u64>,
}

/// Count in JSON lines. Looks for the members' text: the output is a hundred megabytes.
///
/// # Errors
/// It cannot be read, or is no JSON where that matters.
pub fn count(lines: impl Read) -> Result<Counts> {
    let mut counts = Counts::default();
    for line in BufReader::with_capacity(1 << 20, lines).lines() {
        let line = line?;
        let has = |member: &str| line.contains(member);
        if has(r#""type":"transition""#) {
            counts.transitions += u64::from(!has(r#""role":"listener""#));
        } else if has(r#""type":"connection""#) {
            counts.connections += 1;
            counts.whole += u64::from(has(r#""gaps":0,"#) || has(r#""gaps":0}"#));
        } else if has(r#""type":"summary""#) {
            let summary: Value = serde_json::from_str(&line).context("summary")?;
            counts.lost = Some(summary["lost"].as_u64().context("summary: lost")?);
        }
    }
    Ok(counts)
}

/// Count in a file of JSON lines.
///
/// # Errors
/// As [`count`].
pub fn count_file(path: &Path) -> Result<Counts> {
    count(File::open(path)?)
}

/// Replay a recording through `conns` and `trace`, and count.
///
/// # Errors
/// As [`count`]; or tcptrace fails.
pub fn count_recording(path: &Path) -> Result<Counts> {
    let replay = |command: &str| {
        let mut command_line = Command::new(tracer::tcptrace()?);
        command_line.args([command, "--json", "--from"]).arg(path).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command_line.spawn().with_context(|| sh::shown(&command_line))?;
        let counts = count(child.stdout.take().context("stdout")?)?;
        let status = child.wait()?;
        ensure!(status.success(), "`{}` failed: {status}", sh::shown(&command_line));
        Ok(counts)
    };
    let connections: Counts = replay("conns")?;
    Ok(Counts { transitions: replay("trace")?.transitions, ..connections })
}

/// Events that another tool says it lost, in messages like `Lost 12 events` and `lost 12 events on CPU #1!`.
pub fn lost_in(messages: &str) -> u64 {
    let count = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| word.eq_ignore_ascii_case("lost"))?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    messages.lines().filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_and_gaps_are_told_apart() {
        let lines = concat!(
            r#"{"v":1,"type":"transition","role":"client","from":"CLOSE"}"#,
            "\n",
            r#"{"v":1,"type":"transition","role":"listener","from":"CLOSE"}"#,
            "\n",
            r#"{"v":1,"type":"connection","gaps":0}"#,
            "\n",
            r#"{"v":1,"type":"connection","gaps":3,"inferred":[]}"#,
            "\n",
            r#"{"v":1,"type":"summary","events":4,"lost":2}"#,
            "\n",
        );
        let expected = Counts { connections: 2, whole: 1, transitions: 1, lost: Some(2) };
        assert_eq!(count(lines.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn losses_of_other_tools_are_summed() {
        assert_eq!(lost_in("Attaching 1 probe...\nLost 12 events\nlost 30 events on CPU #1!\n"), 42);
        assert_eq!(lost_in("nothing was lost\n"), 0);
    }
}
