//! What cannot work: one clear line, the right status, nothing on stdout.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    process,
    tracer::{tcptrace, tcptrace_output},
};

/// Status, no output, and one line on stderr that holds all of `words`.
fn refused(output: &Output, status: i32, words: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{err}");
    assert_eq!(out, "", "stdout carries data only");
    assert_eq!(err.lines().count(), 1, "one line: {err}");
    for word in words {
        assert!(err.contains(word), "{word:?} in {err}");
    }
    for noise in ["panicked", "Error {", "Os {", "std::", "tcptrace::", "os error"] {
        assert!(!err.contains(noise), "{noise:?} in {err}");
    }
}

/// A copy of the binary that everybody may run, wherever the build keeps its own.
fn public_copy() -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
    let copy = dir.path().join("tcptrace");
    fs::copy(tcptrace().get_program(), &copy).expect("room for a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our file");
    let path = copy.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

#[test]
fn no_permission() {
    let (_dir, copy) = public_copy();
    for command in ["trace", "conns"] {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", &copy, command]);
        refused(&process::output(&mut nobody), 3, &["CAP_BPF", "root"]);
    }
}

#[test]
fn no_permission_to_record_leaves_no_file() {
    let (dir, copy) = public_copy();
    let file = dir.path().join("file");
    fs::create_dir(&file).expect("our directory");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).expect("our directory");
    let file = file.join("trace.rec");
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", &copy, "record"]).arg(&file);
    refused(&process::output(&mut nobody), 3, &["CAP_BPF"]);
    assert!(!file.exists(), "nothing half-written");
}

#[test]
fn one_capability_is_missing() {
    // CAP_SYS_ADMIN stands for the others on kernels that know them, so it goes too.
    for (drop, name) in [("-perfmon,-sys_admin", "CAP_PERFMON"), ("-bpf,-sys_admin", "CAP_BPF")] {
        let mut without = Command::new("setpriv");
        without.arg(format!("--bounding-set={drop}")).arg(format!("--inh-caps={drop}"));
        without.arg(tcptrace().get_program()).arg("trace");
        refused(&process::output(&mut without), 3, &[name]);
    }
}

/// Make bpf() fail with EPERM in the calling process from now on, whatever its capabilities.
fn refuse_bpf() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(JUMP_IF, 0, 1, libc::SYS_bpf as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and `program` outlive the call.
    let r = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    if r == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn bpf_is_refused() {
    let mut command = tcptrace();
    command.arg("trace");
    // SAFETY: two system calls, no allocation.
    unsafe { command.pre_exec(refuse_bpf) };
    refused(&process::output(&mut command), 3, &["bpf"]);
}

#[test]
fn no_btf() {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs tmpfs /sys/kernel/btf && exec \"$0\" trace";
    command.args(["-m", "sh", "-c", script]).arg(tcptrace().get_program());
    refused(&process::output(&mut command), 4, &["BTF", "CONFIG_DEBUG_INFO_BTF"]);
}

#[test]
fn quick_wrong_filters() {
    for (option, value) in [
        ("--port", "99999"),
        ("--lport", "20-10"),
        ("--rport", "http"),
        ("--addr", "1.2.3"),
        ("--laddr", "10.0.0.0/33"),
        ("--raddr", "::1/129"),
        ("--pid", "init"),
        ("--netns", "no-such-namespace"),
        ("--role", "peer"),
        ("--state", "FIN_WAIT3"),
        ("--duration", "soon"),
        ("--count", "-1"),
        ("--color", "red"),
        ("--buffer", "1 parsec"),
    ] {
        for command in ["trace", "conns"] {
            let output = tcptrace_output(&[command, &format!("{option}={value}")]);
            refused(&output, 2, &[option, value]);
        }
    }
}

#[test]
fn quick_wrong_filters_leave_no_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("trace.rec");
    let name = file.to_str().expect("UTF-8");
    refused(&tcptrace_output(&["record", "--port", "0-0x10", name]), 2, &["--port"]);
    refused(&tcptrace_output(&["trace", "--port", "0-0x10", "--record", name]), 2, &["--port"]);
    assert!(!file.exists(), "nothing half-written");
}

#[test]
fn quick_wrong_usage() {
    refused(&tcptrace_output(&["trase"]), 2, &["trase", "trace"]);
    refused(&tcptrace_output(&["trace", "--jsn"]), 2, &["--jsn", "--json"]);
    refused(&tcptrace_output(&["record"]), 2, &["FILE"]);
    refused(&tcptrace_output(&["trace", "--from", "a", "--record", "b"]), 2, &["--from", "--record"]);
}
