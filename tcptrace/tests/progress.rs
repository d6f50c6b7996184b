//! How far the reading of a long recording is: shown on a terminal, wiped before anything else is, and nowhere else.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::{FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tcptrace::{
    frame::{Frames, fact},
    recording::Writer,
};
use tcptrace_common::record::{Closed, Head, Open, kind};
use tempfile::TempDir;
use zerocopy::IntoBytes;

/// Something is shown of a recording whose reading takes this long.
const LONG: Duration = Duration::from_millis(1800);

/// A recording of `n` connections that are refused.
fn recording(path: &Path, n: u64) {
    let mut frames = Frames::default();
    frames.push_fact(fact::kind::START, 1, &fact::Start { host: "host".into(), ..fact::Start::default() });
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 1_795_262_584_000_000_000 });
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
    let mut writer = Writer::create(path).expect("our directory");
    for i in 1..=n {
        let head = Head { ts: 1000 * i, sock: i, kind: kind::OPEN, from: 7, to: 2, seq: 1, ..Head::default() };
        frames.push(0, Open { head, ..Open::default() }.as_bytes());
        let head = Head { ts: 1000 * i + 9, kind: kind::CLOSED, from: 2, to: 7, seq: 2, err: 111, ..head };
        frames.push(0, Closed { head, ..Closed::default() }.as_bytes());
        if frames.len() > 1 << 20 {
            writer.write(frames.as_bytes()).expect("room");
            frames.clear();
        }
    }
    frames.push_fact(fact::kind::END, 1000 * n + 1_000_000_000, &fact::End::default());
    writer.write(frames.as_bytes()).expect("room");
    writer.finish(0).expect("room");
}

fn conns(file: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["conns", "--time", "utc", "--from"]).arg(file).args(options).stdin(Stdio::null());
    command
}

/// One that takes so long to read on this machine.
fn long_recording() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("long.rec");
    let mut n = 4_000_000;
    loop {
        recording(&path, n);
        let began = Instant::now();
        let output = conns(&path, &["--by", "end"]).stdout(Stdio::null()).output().expect("the binary runs");
        assert!(output.status.success());
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(stderr.lines().count(), 1, "no terminal, no progress: {stderr:?}");
        assert!(!stderr.contains('\r'), "{stderr:?}");
        if began.elapsed() >= LONG {
            return (dir, path);
        }
        n *= 2;
    }
}

/// Run a command with stderr on a terminal of 60 columns, and stdout on it, too, unless it was redirected: what the terminal got.
fn on_terminal(command: &mut Command, stdout: bool) -> String {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two descriptors are written, a name is not asked for, the size is read.
    let opened = unsafe {
        libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
    };
    assert_eq!(opened, 0, "a terminal");
    // SAFETY: both are open and nobody else's.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    if stdout {
        command.stdout(slave.try_clone().expect("a descriptor"));
    }
    let mut child = command.stderr(slave).spawn().expect("the binary runs");
    // The command's own copies keep the terminal open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    // At the end it fails: nobody has the other side open.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..n]);
    }
    assert!(child.wait().expect("our child").success());
    String::from_utf8(text).expect("UTF-8")
}

/// What stands on a terminal's lines in the end, as far as `\r` and the wiping of a line go.
fn screen(text: &str) -> Vec<String> {
    let last = |line: &str| {
        let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        line.rsplit("\x1b[K").find(|part| !part.is_empty()).unwrap_or_default().to_owned()
    };
    text.split('\n').map(last).collect()
}

#[test]
fn progress_shows_where_it_is_in_nobodys_way() {
    let (dir, file) = long_recording();
    let out = dir.path().join("out");

    // The output goes to a file: it is shown from a second on, and gone at the end.
    let to_file =
        |options: &[&str]| on_terminal(conns(&file, options).stdout(File::create(&out).expect("our directory")), false);
    let text = to_file(&["--by", "end"]);
    let name = file.display().to_string();
    let lines: Vec<&str> = text.split('\r').filter(|line| line.contains(" %, ")).collect();
    assert!(!lines.is_empty(), "{text:?}");
    assert!(lines.iter().all(|line| line.starts_with(&name[..20]) && line.ends_with("\x1b[K")), "{text:?}");
    assert!(lines.iter().all(|line| line.trim_end_matches("\x1b[K").chars().count() < 60), "{text:?}");
    let shown = screen(&text);
    assert!(shown[0].starts_with("tcptrace: ") && shown[0].contains(" connections"), "{shown:?}");
    assert_eq!(shown[1..], [""], "{text:?}");
    let alone = fs::read(&out).expect("our file");
    conns(&file, &["--by", "end"])
        .stdout(File::create(&out).expect("our directory"))
        .output()
        .expect("the binary runs");
    assert!(alone == fs::read(&out).expect("our file"), "the output is the same");

    // Nobody wants it.
    assert_eq!(to_file(&["--by", "end", "-q"]), "");

    // Connections are told one by one on the same terminal: nothing between them, nor after them.
    let text = on_terminal(&mut conns(&file, &["--count", "1000"]), true);
    assert!(!text.contains(" %, "), "{}", &text[text.len() - 2000..]);

    // Groups are told at the end: until then it is in nobody's way.
    let text = on_terminal(&mut conns(&file, &["--by", "end"]), true);
    assert!(text.contains(" %, "), "{text:?}");
    let shown = screen(&text);
    assert!(!shown.iter().any(|line| line.contains(" %, ")), "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("refused")), "{shown:?}");
}
