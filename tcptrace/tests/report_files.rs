//! `report` of files that are not as they should be, of several recordings in one, and of a pipe that somebody has enough of.

#[path = "support/report.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{json, output, parsed, printed, recording, tcptrace, utf8};
use tcptrace::{
    frame::{Frames, fact},
    recording::Writer,
};
use tcptrace_common::record::Head;

/// Status, and a single line of complaint that holds all of `words`.
fn complains(out: &Output, status: i32, words: &[&str]) {
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{err}");
    assert_eq!(err.lines().count(), 1, "one line: {err}");
    for word in words {
        assert!(err.contains(word), "{word:?} in {err}");
    }
}

#[test]
fn a_recording_that_is_cut_off_is_told_as_far_as_it_goes() {
    let whole = fs::read(recording()).expect("it is there");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cut = dir.path().join("cut.rec");
    let all = json(&[], &recording())["totals"]["connections"].as_u64().expect("a number");
    for percent in [40, 70, 99] {
        fs::write(&cut, &whole[..whole.len() * percent / 100]).expect("our directory");
        let out = output(&["report"], &cut);
        complains(&out, 1, &["cut.rec", "cut off"]);
        let text = utf8(out.stdout);
        assert!(text.contains("incomplete") && text.contains("Not all of the file could be read"), "{text}");
        let line: Value = serde_json::from_slice(&output(&["report", "--json"], &cut).stdout).expect("JSON");
        assert!(line["unread"].as_str().is_some_and(|why| why.contains("cut off")), "{line}");
        let n = line["totals"]["connections"].as_u64().expect("a number");
        assert!(n > 0 && n <= all, "{n} of {all}");
        let out = output(&["report", "--html", "-"], &cut);
        complains(&out, 1, &["cut off"]);
        parsed(&utf8(out.stdout));
    }
}

#[test]
fn a_damaged_recording_says_what_is_missing() {
    let mut bytes = fs::read(recording()).expect("it is there");
    let at = bytes.len() / 2;
    bytes[at] ^= 0x55;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("damaged.rec");
    fs::write(&file, bytes).expect("our directory");
    let out = output(&["report"], &file);
    complains(&out, 1, &["damaged.rec", "damaged"]);
    let text = utf8(out.stdout);
    assert!(text.contains("blocks with") && text.contains("recording"), "{text}");
    assert!(text.contains("Not all of the file could be read"), "{text}");
}

#[test]
fn what_is_no_recording_has_no_page() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("other");
    let html = dir.path().join("page.html");
    fs::write(&file, "a,b,c\n1,2,3\n").expect("our directory");
    let out = output(&["report", "--html", html.to_str().expect("UTF-8")], &file);
    complains(&out, 1, &["other is not a tcptrace recording", "tcptrace record"]);
    assert!(out.stdout.is_empty() && !html.exists());
    fs::write(&file, "").expect("our directory");
    let out = output(&["report"], &file);
    complains(&out, 1, &["other"]);
    assert!(out.stdout.is_empty());
    complains(&output(&["report"], &dir.path().join("nothing")), 1, &["nothing", "No such file"]);
    complains(&output(&["report"], dir.path()), 1, &[dir.path().to_str().expect("UTF-8")]);
    // A whole recording without a trace in it.
    Writer::create(&file).expect("our directory").finish(0).expect("room");
    complains(&output(&["report"], &file), 1, &["other", "holds no trace"]);
}

#[test]
fn a_page_that_cannot_be_written_is_one_line() {
    let out = output(&["report", "--html", "/nowhere/page.html"], &recording());
    complains(&out, 1, &["/nowhere/page.html", "No such file"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let out = tcptrace(&["report"], &recording()).stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    complains(&out, 1, &["write stdout", "No space left"]);
}

#[test]
fn wrong_usage_is_told() {
    let usage = |arguments: &[&str], words: &[&str]| {
        complains(&output(&[&["report"], arguments].concat(), &recording()), 2, words);
    };
    usage(&["--time", "delta"], &["--time delta"]);
    usage(&["--json", "--html", "-"], &["--html -"]);
    usage(&["--top", "0"], &["--top"]);
    usage(&["--port", "x"], &["--port"]);
    let out = Command::new(env!("CARGO_BIN_EXE_tcptrace")).arg("report").output().expect("it runs");
    complains(&out, 2, &["<FILE>"]);
}

#[test]
fn ctrl_c_while_a_pipe_is_read_prints_what_came() {
    use std::io::Write as _;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["report", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let whole = fs::read(recording()).expect("it is there");
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(&whole[..whole.len() - 9000]).expect("it reads");
    // It has read and told all of it when it waits for more.
    let waits = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("a live process").flatten();
        let mut calls = tasks.filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
        let reads = calls.any(|call| call.starts_with(&format!("{} 0x0 ", libc::SYS_read)));
        reads && rustix::io::ioctl_fionread(&pipe).expect("FIONREAD") == 0
    };
    let began = std::time::Instant::now();
    while !waits() {
        assert!(began.elapsed().as_secs() < 60, "it does not read on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // SAFETY: our child, not waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let out = child.wait_with_output().expect("our child");
    let text = utf8(out.stdout);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("reading it was interrupted") && text.contains("10.7.0.1:8080"), "{text}");
}

/// The recording as if another host had made it: other facts, and a clock that began later.
fn elsewhere(dir: &Path) -> PathBuf {
    let mut reader =
        tcptrace::recording::Reader::new(fs::File::open(recording()).expect("it is there")).expect("memory");
    let mut frames = Frames::default();
    let file = dir.join("elsewhere.rec");
    let mut writer = Writer::create(&file).expect("our directory");
    while !matches!(reader.next(&mut frames).expect("a recording"), tcptrace::recording::Item::End(_)) {
        let mut other = Frames::default();
        for record in frames.iter() {
            let mut record = record.to_vec();
            let ts = u64::from_le_bytes(record[..8].try_into().expect("eight")) / 2;
            record[..8].copy_from_slice(&ts.to_le_bytes());
            if record[16] == fact::kind::START {
                let mut start: fact::Start = serde_json::from_slice(&record[size_of::<Head>()..]).expect("a start");
                (start.host, start.kernel, start.boot_id) = ("db2".into(), "5.15.0-99".into(), "other".into());
                other.push_fact(fact::kind::START, ts, &start);
            } else {
                other.push(0, &record);
            }
        }
        writer.write(other.as_bytes()).expect("room");
        // As many blocks as before.
        writer.flush().expect("room");
        frames.clear();
    }
    writer.finish(0).expect("room");
    file
}

#[test]
fn recordings_of_other_hosts_one_behind_the_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let other = elsewhere(dir.path());
    let both = dir.path().join("both.rec");
    fs::write(&both, [fs::read(recording()).expect("there"), fs::read(&other).expect("there")].concat()).expect("room");
    let (one, two, all) = (json(&[], &recording()), json(&[], &other), json(&[], &both));
    assert_eq!(two["recordings"][0]["kernel"], "5.15.0-99");
    let hosts: Vec<_> =
        all["recordings"].as_array().expect("a list").iter().map(|r| r["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["web1", "db2"]);
    let n = |report: &Value, field: &str| report["totals"][field].as_u64().expect("a number");
    for field in ["connections", "client", "server", "bytes_sent", "segs_out", "retrans"] {
        assert_eq!(n(&all, field), n(&one, field) + n(&two, field), "{field}");
    }
    assert_eq!(n(&two, "connections"), n(&one, "connections"));
    let span = |report: &Value| report["span_us"].as_u64().expect("a number");
    // What lies between them was not watched; microseconds are rounded down.
    assert!(span(&all).abs_diff(span(&one) + span(&two)) <= 1, "{all}");
    let text = printed(&["report"], &both);
    for words in ["Recording 1 of 2", "Recording 2 of 2", "several hosts", "db2", "web1"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    parsed(&printed(&["report", "--html", "-"], &both));
    // The second one is cut off: what is open there ends by its own clock.
    let whole = fs::read(&both).expect("just written");
    fs::write(&both, &whole[..whole.len() - 9000]).expect("room");
    let out = output(&["report", "--json"], &both);
    complains(&out, 1, &["both.rec", "cut off"]);
    let cut: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(n(&cut, "open") > 0 && span(&cut) < span(&all), "{cut}");
    let longest = json(&["--top", "1"], &recording())["longest_lived"][0]["duration_us"].as_u64();
    assert!(cut["longest_lived"][0]["duration_us"].as_u64() <= longest, "{cut}");
    let conns = output(&["conns", "--from"], &both);
    let summary = String::from_utf8_lossy(&conns.stderr).into_owned();
    assert!(summary.contains(" in 7.") || summary.contains(" in 8."), "both together: {summary}");
}
