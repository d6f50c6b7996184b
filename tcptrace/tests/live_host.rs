//! What depends on how a host is set up, and not on its kernel: cgroups. Not one of the live tests, which run on other
//! kernels, too.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

use std::process::{Command, Output};

use crate::support::process;

const BINARY: &str = env!("CARGO_BIN_EXE_tcptrace");

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// `script` in a mount namespace of its own; the binary is `$0`.
fn with_own_mounts(script: &str, arguments: &[&str]) -> Output {
    let mut shell = Command::new("unshare");
    process::output(shell.args(["-m", "sh", "-ec", script, BINARY]).args(arguments))
}

/// Take away every cgroup v2 hierarchy that is mounted.
const WITHOUT_CGROUPS: &str =
    "for at in $(awk '/ - cgroup2 /{print $5}' /proc/self/mountinfo); do umount -l $at; done; ";

#[test]
fn without_the_cgroup_hierarchy_a_filter_that_needs_it_is_refused() {
    for (option, command) in [("--cgroup", "conns"), ("--container", "trace"), ("--unit", "queues")] {
        let script = format!("{WITHOUT_CGROUPS} exec \"$0\" \"$@\"");
        let out = with_own_mounts(&script, &[command, option, "/x"]);
        let says = format!(
            "tcptrace: {option}: no cgroup v2 hierarchy is mounted here; `mount -t cgroup2 none DIRECTORY` mounts it; \
             processes have to be in cgroups of it, as systemd puts them\n"
        );
        assert_eq!((out.status.code(), text(&out.stdout), text(&out.stderr)), (Some(4), "", says.as_str()));
    }
    // A recording has the paths that were told then.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/rst.rec");
    let script = format!("{WITHOUT_CGROUPS} exec \"$0\" \"$@\"");
    let out = with_own_mounts(&script, &["conns", "--unit", "x", "--from", file]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
}
