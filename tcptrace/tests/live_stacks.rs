//! `--stacks`: programs of several compilers open sockets in functions of known names. Not one of the live tests, which run on emulated
//! machines, too: those have no compilers.
//!
//! They need cc, c++, rustc, nm, strip and unshare.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tcptrace::{
    frame::Frames,
    source::{Replay, Source as _},
};

use crate::support::{
    netns::Netns,
    process,
    run::{nothing_lost, parse},
    tracer::{Live, tcptrace},
};

/// What the programs listen at: each test has a namespace of its own.
const PORT: &str = "7900";

/// What `conns --json --stacks` told of a program, and where it is recorded.
struct Told {
    dir: tempfile::TempDir,
    lines: Vec<Value>,
    text: String,
}

impl Told {
    fn of(program: &Path, mode: &str) -> Self {
        Self::below(&[program.to_str().expect("UTF-8"), mode, PORT])
    }

    /// `COMMAND`, in a network namespace of its own.
    fn below(command: &[&str]) -> Self {
        Self::with(&["--stacks"], command, 2)
    }

    /// The command stays until so many connections were told of: of one that is gone less can be known.
    fn with(args: &[&str], command: &[&str], connections: usize) -> Self {
        let ns = Netns::new();
        let dir = directory();
        let mut conns = tcptrace();
        conns.args(["conns", "--json", "--netns", &ns.inum().to_string(), "--record"]).arg(dir.path().join("rec"));
        let live = Live::start(&mut conns, args);
        let mut traced = process::spawn(ns.command(command[0]).args(&command[1..]).stdin(Stdio::piped()));
        let mut seen = 0;
        live.wait_for("all connections", |line| {
            seen += usize::from(line["type"] == "connection");
            seen == connections
        });
        drop(traced.child().stdin.take());
        assert!(traced.wait().success(), "{command:?}");
        let (text, _) = live.stop();
        let lines = parse(&text);
        nothing_lost(&lines);
        Self { dir, lines, text }
    }

    fn conns(&self) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(|line| line["type"] == "connection")
    }

    /// Frames of the only connection with this role.
    fn stack(&self, role: &str) -> &[Value] {
        let of_role: Vec<&Value> = self.conns().filter(|c| c["role"] == role).collect();
        assert_eq!(of_role.len(), 1, "connections of a {role}: {}", self.text);
        of_role[0]["stack"].as_array().unwrap_or_else(|| panic!("the stack of {}", of_role[0]))
    }

    /// Names of the functions there, without those that have none.
    fn functions(&self, role: &str) -> Vec<&str> {
        self.stack(role).iter().filter_map(|frame| frame["function"].as_str()).collect()
    }

    /// The same with a filter on the program's module: what libraries are called varies with their versions.
    fn own(&self, role: &str, program: &Path) -> Vec<&str> {
        let module = program.to_str().expect("UTF-8");
        let own = self.stack(role).iter().filter(|frame| frame["module"] == module);
        own.map(|frame| frame["function"].as_str().unwrap_or("-")).collect()
    }
}

/// Compile `tests/stacks/SOURCE`; the program.
fn built(dir: &Path, compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let program = dir.join("open");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks").join(source);
    process::run(Command::new(compiler).args(flags).arg("-o").arg(&program).arg(source));
    program
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Both stacks of `open.c`, from libc's wrapper to main().
fn named(told: &Told, program: &Path) {
    assert_eq!(told.functions("client")[0], "connect");
    assert_eq!(told.own("client", program)[..3], ["open_upstream", "serve", "main"]);
    assert_eq!(told.functions("server")[0], "accept");
    assert_eq!(told.own("server", program)[..3], ["take_client", "serve", "main"]);
    // Up to where the process began.
    for role in ["client", "server"] {
        assert_eq!(told.own(role, program).last(), Some(&"_start"), "{}", told.text);
    }
}

#[test]
fn c_without_frame_pointers() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2", "-fomit-frame-pointer"]);
    let told = Told::of(&program, "both");
    named(&told, &program);
    for frame in told.stack("client") {
        assert!(frame["offset"].is_u64() && frame["module"].is_string(), "{frame}");
        assert!(frame.get("file").is_none() || frame["module"] != program.to_str().expect("UTF-8"), "{frame}");
    }
}

#[test]
fn c_without_unwind_tables() {
    let dir = directory();
    let flags = ["-O2", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    let program = built(dir.path(), "cc", "open.c", &flags);
    named(&Told::of(&program, "both"), &program);
}

#[test]
fn c_at_a_fixed_address_and_with_lines() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2", "-no-pie", "-g"]);
    let told = Told::of(&program, "both");
    named(&told, &program);
    let frame = told.stack("client").iter().find(|frame| frame["function"] == "open_upstream").expect("named above");
    let source = include_str!("stacks/open.c");
    let line = 1 + source.lines().position(|line| line.contains("checked(connect(")).expect("it connects");
    assert!(frame["file"].as_str().is_some_and(|file| file.ends_with("tests/stacks/open.c")), "{frame}");
    assert_eq!(frame["line"], line, "{frame}");
}

#[test]
fn c_in_a_shared_library() {
    let dir = directory();
    let library = dir.path().join("libopen.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks/open.c");
    process::run(
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-Dmain=entry", "-s", "-o"]).arg(&library).arg(source),
    );
    let main = dir.path().join("main.c");
    let text = "int entry(int, char **); int main(int argc, char **argv) { int r = entry(argc, argv); return r + (argc == 9); }";
    std::fs::write(&main, text).expect("a temporary directory");
    let program = dir.path().join("open");
    process::run(Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(&main).arg(&library));
    let told = Told::of(&program, "both");
    // Stripped: what it exports is left of its symbols.
    assert_eq!(told.own("client", &library), ["open_upstream", "serve", "entry"]);
    assert_eq!(told.own("server", &library), ["take_client", "serve", "entry"]);
    assert_eq!(told.own("client", &program), ["main", "_start"]);
}

#[test]
fn what_is_stripped_is_told_by_its_offset() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2"]);
    let output = process::run(Command::new("nm").arg("-S").arg(&program));
    let symbols = String::from_utf8(output.stdout).expect("UTF-8");
    let symbols: HashMap<&str, (u64, u64)> = symbols
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [address, size, _, name] = words[..] else { return None };
            let hex = |text| u64::from_str_radix(text, 16).expect("hex");
            Some((name, (hex(address), hex(size))))
        })
        .collect();
    process::run(Command::new("strip").arg(&program));
    let told = Told::of(&program, "both");
    assert_eq!(told.functions("client")[0], "connect");
    assert_eq!(told.own("client", &program), ["-"; 4], "{}", told.text);
    let module = program.to_str().expect("UTF-8");
    let own: Vec<&Value> = told.stack("client").iter().filter(|frame| frame["module"] == module).collect();
    for (frame, name) in own.iter().zip(["open_upstream", "serve", "main", "_start"]) {
        let (address, size) = symbols[name];
        let offset = frame["offset"].as_u64().expect("an offset");
        assert!(offset > address && offset <= address + size, "{name} at {address:#x}, {size:#x} bytes: {frame}");
    }
}

#[test]
fn cplusplus_is_demangled() {
    let dir = directory();
    let program = built(dir.path(), "c++", "open.cpp", &["-O2"]);
    let told = Told::of(&program, "both");
    let open = told.own("client", &program)[0];
    assert!(open.starts_with("net::Upstream::open(std::") && open.ends_with(") const"), "{open}");
    assert_eq!(told.own("client", &program)[1], "main");
    assert_eq!(told.own("server", &program)[..2], ["net::take_client(int)", "main"]);
}

/// Unwind tables and symbols, but neither frame pointers nor debug information of its own, as `cargo build --release` makes it.
#[test]
fn rust_in_release() {
    let dir = directory();
    let flags = ["--edition", "2024", "--crate-name", "opener", "-Copt-level=3"];
    let program = built(dir.path(), "rustc", "open.rs", &flags);
    let told = Told::of(&program, "both");
    for (role, function) in [("client", "opener::net::Upstream::open"), ("server", "opener::net::take_client")] {
        let functions = told.own(role, &program);
        let at = functions.iter().position(|name| *name == function);
        let at = at.unwrap_or_else(|| panic!("{function} in {functions:?}"));
        assert!(functions[..at].iter().any(|name| name.contains("std::")), "the library in between: {functions:?}");
        assert!(functions[at..].contains(&"opener::main"), "{functions:?}");
    }
}

#[test]
fn a_replay_prints_the_same() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2", "-g"]);
    let told = Told::of(&program, "both");
    // The program is gone, and what it was made of.
    drop(dir);
    let recording = told.dir.path().join("rec");
    let again = process::run(tcptrace().args(["conns", "--json", "--from"]).arg(&recording));
    let again = parse(&String::from_utf8(again.stdout).expect("UTF-8"));
    let conns: Vec<&Value> = again.iter().filter(|line| line["type"] == "connection").collect();
    assert_eq!(conns, told.conns().collect::<Vec<_>>());

    let replay = |args: &[&str]| {
        let output = process::run(tcptrace().args(args).arg("--from").arg(&recording).env("LC_ALL", "C.UTF-8"));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = replay(&["conns"]);
    let below = |text: &str, line: &str| -> Vec<String> {
        let mut lines = text.lines().skip_while(|l| !l.contains(line)).skip(1);
        lines.by_ref().take_while(|l| l.starts_with("    ")).map(|l| l.trim().to_owned()).collect()
    };
    let client = below(&text, "→");
    assert!(client[0].starts_with("connect (libc"), "{text}");
    assert!(client[1].starts_with("open_upstream (open) ") && client[1].contains("/open.c:"), "{text}");
    assert!(replay(&["conns", "--ladder"]).contains("    open_upstream (open) "), "below a ladder's head");

    let trace = replay(&["trace"]);
    assert_eq!(below(&trace, "opened at"), client, "{trace}");
    assert!(below(&trace, "accepted at")[1].starts_with("take_client (open) "), "{trace}");
    let json = parse(&replay(&["trace", "--json"]));
    let opened: Vec<&Value> = json.iter().filter(|line| line["type"] == "opened").collect();
    assert_eq!(opened.iter().map(|o| o["role"].as_str()).collect::<Vec<_>>(), [Some("client"), Some("server")]);
    assert_eq!(opened[0]["stack"].as_array().map(Vec::as_slice), Some(told.stack("client")));
}

#[test]
fn nothing_of_the_stack_itself_is_recorded() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2"]);
    let told = Told::of(&program, "both");
    assert_eq!(told.functions("client")[0], "connect");
    let recording = told.dir.path().join("rec");
    let mut source = Replay::open(&recording).expect("a recording");
    let (mut frames, mut records, mut more) = (Frames::default(), 0, true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    while more {
        more = runtime.block_on(source.next(&mut frames)).expect("a good recording");
        for record in frames.iter() {
            records += 1;
            // The program fills a part of its stack with these.
            assert!(record.len() < 4096 && !record.windows(8).any(|bytes| bytes == b"xxxxxxxx"), "{record:?}");
        }
        frames.clear();
    }
    assert!(records > 10, "{records} records");
}

/// It may be gone before its mappings could be read: then nothing is said, and nothing wrong.
#[test]
fn a_program_that_exits_at_once() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2"]);
    let module = program.to_str().expect("UTF-8");
    let script = format!("for i in 1 2 3 4 5 6 7 8 9 10; do {module} exit {PORT}; done");
    let told = Told::with(&["--stacks"], &["sh", "-c", &script], 20);
    let clients: Vec<&Value> = told.conns().filter(|c| c["role"] == "client" && c["comm"] == "open").collect();
    assert_eq!(clients.len(), 10, "{}", told.text);
    for client in clients {
        let Some(stack) = client["stack"].as_array() else { continue };
        let names: Vec<_> = stack.iter().map(|frame| frame["function"].as_str().unwrap_or("-")).collect();
        let known = ["connect", "open_upstream", "main", "-", "_start", "__libc_start_main"];
        assert!(names.iter().all(|name| known.contains(name)) && names[0] == "connect", "{names:?}");
    }
}

/// The path leads nowhere, or elsewhere, in the tracer's own mount namespace.
#[test]
fn in_another_mount_namespace() {
    let (dir, inside) = (directory(), directory());
    let program = built(dir.path(), "cc", "open.c", &["-O2"]);
    let (from, to) = (program.to_str().expect("UTF-8"), inside.path().to_str().expect("UTF-8"));
    let script = format!("mount -t tmpfs none {to} && cp {from} {to}/hidden && exec {to}/hidden both {PORT}");
    let told = Told::below(&["unshare", "--mount", "sh", "-c", &script]);
    named(&told, &inside.path().join("hidden"));
    assert!(!inside.path().join("hidden").exists());
}

#[test]
fn too_many_are_counted() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2"]);
    let told = Told::with(&["--stacks"], &[program.to_str().expect("UTF-8"), "many", PORT], 6000);
    let (with, all) = (told.conns().filter(|c| c.get("stack").is_some()).count(), told.conns().count());
    assert_eq!(all, 6000);
    let summary = told.lines.last().expect("a summary");
    let held_back = summary["stacks_held_back"].as_u64().unwrap_or(0);
    // The program is there for all that were copied.
    assert_eq!(with as u64 + held_back, 6000, "{summary}");
    assert!(with >= 16 && held_back > 0, "{summary}");
}

#[test]
fn nobody_asked() {
    let dir = directory();
    let program = built(dir.path(), "cc", "open.c", &["-O2"]);
    let told = Told::with(&[], &[program.to_str().expect("UTF-8"), "both", PORT], 2);
    assert_eq!(told.conns().count(), 2);
    assert!(!told.text.contains("\"stack") && !told.text.contains("open_upstream"), "{}", told.text);
}

/// `watch --stacks` of a program that never closes what it accepts: the function where it did.
fn leaks(program: &Path) {
    let ns = Netns::new();
    let dir = directory();
    let limits = dir.path().join("watch.toml");
    std::fs::write(&limits, "[close-wait-leak]\nheld = \"2s\"\nsockets = 10\n").expect("a temporary directory");
    let mut watch = tcptrace();
    watch.args(["watch", "--json", "--netns", &ns.inum().to_string(), "--config"]).arg(&limits);
    let live = Live::start(&mut watch, &["--stacks"]);
    let mut traced = process::spawn(ns.command(program.to_str().expect("UTF-8")).arg(PORT).stdin(Stdio::piped()));
    let fired = live.wait_for("a leak", |line| line["rule"] == "close-wait-leak" && line["status"] == "firing");
    drop(traced.child().stdin.take());
    assert!(traced.wait().success());
    live.stop();
    let evidence = &fired["evidence"];
    assert_eq!(evidence["sockets"], evidence["opened_there"], "{fired}");
    let stack = evidence["stack"].as_array().unwrap_or_else(|| panic!("no stack: {fired}"));
    let name = program.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    let own: Vec<&str> = stack.iter().filter_map(|f| f.as_str()?.strip_suffix(&format!(" ({name})"))).collect();
    let at = own.iter().position(|function| function.ends_with("take_and_forget"));
    assert!(at.is_some_and(|at| own[at + 1..].iter().any(|function| function.ends_with("main"))), "{fired}");
}

#[test]
fn a_leak_of_c_without_frame_pointers() {
    let dir = directory();
    leaks(&built(dir.path(), "cc", "leak.c", &["-O2", "-fomit-frame-pointer"]));
}

#[test]
fn a_leak_of_c_without_unwind_tables() {
    let dir = directory();
    let flags = ["-O2", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    leaks(&built(dir.path(), "cc", "leak.c", &flags));
}

#[test]
fn a_leak_of_rust() {
    let dir = directory();
    leaks(&built(dir.path(), "rustc", "leak.rs", &["-O", "--edition", "2024"]));
}
