//! The owner's cgroup: looked up while it exists, kept in the recording.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{
    netns::Netns,
    process::{self, me},
    run::parse,
    socket::{Sock, local},
    tracer::{Tracer, netns_list, replay, tcptrace},
    wait_until,
};

/// Where a cgroup2 file system is mounted; if nowhere, a place of our own, for this process only while the test runs.
pub struct Mount {
    path: PathBuf,
    ours: Option<tempfile::TempDir>,
}

impl Mount {
    pub fn new() -> Self {
        let list = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
        let found = list.lines().find(|l| l.contains(" / /") && l.contains(" - cgroup2 "));
        if let Some(line) = found {
            return Self { path: line.split(' ').nth(4).expect("a mount point").into(), ours: None };
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        process::run(Command::new("mount").args(["-t", "cgroup2", "none"]).arg(dir.path()));
        Self { path: dir.path().to_owned(), ours: Some(dir) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(dir) = &self.ours {
            process::run(Command::new("umount").arg(dir.path()));
        }
    }
}

/// A cgroup of its own for a test; removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Named after this process, too.
    fn new(mount: &Path, name: &str) -> Self {
        Self::at(mount.join(format!("{name}-{}", std::process::id())))
    }

    /// Where nobody else makes one.
    pub fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).expect("root makes cgroups");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// As it is told: below the mount, with a slash in front.
    pub fn below(&self, mount: &Path) -> String {
        format!("/{}", self.0.strip_prefix(mount).expect("below").to_str().expect("UTF-8"))
    }

    /// `curl URL` in this cgroup and the namespace, to its end.
    fn curl(&self, ns: &Netns, url: &str) {
        let mut command = ns.command("sh");
        command.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec curl -sS --http0.9 \"$1\""]).arg(&self.0).arg(url);
        let mut child = process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        child.wait();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may keep it for a moment.
        wait_until("the cgroup to be empty", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn cgroup_of_the_owner() {
    let (ns, mount) = (Netns::new(), Mount::new());
    let outer = Cgroup::new(&mount.path, "tcptrace test");
    let inner = Cgroup::new(&outer.0, "inner");
    let expected = inner.below(&mount.path);
    let listener = Sock::listen(&ns, local(7901), 16);
    let tracer = Tracer::start(&[&ns]);
    let accepting = std::thread::scope(|scope| {
        let curl = scope.spawn(|| inner.curl(&ns, "http://127.0.0.1:7901/"));
        listener.accept().close();
        curl.join()
    });
    accepting.expect("curl ran");
    ns.quiet();
    tracer.wait_for("the client", |l| l["role"] == "client");
    // Neither the tracer nor the recording needs it any more.
    drop(inner);
    drop(outer);
    let run = tracer.stop();
    let client = run.only("client");
    assert_eq!((client.text("comm"), client.text("cgroup")), ("curl", expected.as_str()), "{}", client.0);
    for t in run.of_type("transition").filter(|t| t["role"] == "client") {
        assert_eq!(t["cgroup"], expected.as_str(), "from the first one on: {t}");
    }
    assert_eq!(replay("trace", &run.recording), run.text);
    // This process itself, which was found, not traced.
    let own = fs::read_to_string("/proc/self/cgroup").expect("procfs");
    let own = own.lines().find_map(|l| l.strip_prefix("0::")).expect("the v2 hierarchy");
    let server = run.only("server");
    server.owned_by(&me());
    assert_eq!(server.text("cgroup"), own, "{}", server.0);
}

#[test]
fn no_cgroup_is_made_up() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, file) = (dir.path().join("out"), dir.path().join("trace.rec"));
    // Where no v2 hierarchy is mounted. The tracer alone sees it so.
    let script = "umount -a -t cgroup2; case $(cat /proc/self/mountinfo) in *' - cgroup2 '*) exit 9; esac; \
                  exec \"$0\" trace --json --netns \"$1\" --record \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(tcptrace().get_program()).arg(netns_list(&[&ns])).arg(&file);
    let mut child =
        process::spawn(command.stdout(fs::File::create(&out).expect("our directory")).stderr(Stdio::null()));
    child.started(&out);
    Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
    child.signal(libc::SIGTERM);
    assert!(child.wait().success());
    let text = fs::read_to_string(&out).expect("our file");
    let lines = parse(&text);
    let named: Vec<_> = lines.iter().filter(|l| l["type"] == "transition" && l["pid"] == me().0).collect();
    assert_eq!(named.len(), 2, "{lines:?}");
    assert!(named.iter().all(|t| t.get("cgroup").is_none()), "{named:?}");
    assert!(fs::metadata(&file).expect("a recording").size() > 0);
    assert_eq!(replay("trace", &file), text);
}
