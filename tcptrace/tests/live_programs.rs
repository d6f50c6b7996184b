//! Real programs below `-- COMMAND`, and servers whose sockets pass from one process to another. Not one of the live tests, which run on
//! emulated machines, too: nothing here depends on the kernel's version.
//!
//! They need curl, wget, ssh-keyscan, python3, nginx and systemd-socket-activate.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

#[path = "programs/clients.rs"]
mod clients;
#[path = "programs/descriptors.rs"]
mod descriptors;
#[path = "programs/ends.rs"]
mod ends;
#[path = "programs/servers.rs"]
mod servers;

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process,
    run::{nothing_lost, parse},
    tracer::tier,
};

/// Debian's, whatever else is in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// `tcptrace ARGS --netns NS -- COMMAND`, to be started in `ns`.
fn below(ns: &Netns, args: &[&str], command: &[&str]) -> Command {
    let mut tcptrace = ns.command(env!("CARGO_BIN_EXE_tcptrace"));
    let netns = ns.inum().to_string();
    tcptrace.args(args).args(["--netns", &netns, "--tier", &tier(), "--"]).args(command);
    tcptrace.env("LC_ALL", "C.UTF-8");
    tcptrace
}

/// What `conns --json --ladder -- COMMAND` told.
struct Told {
    status: Option<i32>,
    conns: Vec<Value>,
    stderr: String,
}

impl Told {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let stderr = text(&output.stderr);
        let lines = parse(&text(&output.stdout));
        nothing_lost(&lines);
        let conns = lines.into_iter().filter(|line| line["type"] == "connection").collect();
        Self { status: output.status.code(), conns, stderr }
    }

    /// Run to its end.
    fn of(ns: &Netns, command: &[&str]) -> Self {
        Self::new(&process::output(&mut below(ns, &["conns", "--json", "--ladder"], command)))
    }
}

/// Words of a script, for a message that shows the connections.
fn brief(conns: &[Value]) -> String {
    conns.iter().map(|c| format!("{c}\n")).collect()
}
