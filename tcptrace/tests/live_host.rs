//! What depends on how a host is set up, and not on its kernel: cgroups, users, shells. Not one of the live tests, which run on other
//! kernels, too.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::support::process;

const BINARY: &str = env!("CARGO_BIN_EXE_tcptrace");
const ID: &str = "5eb01d1c0de5eb01d1c0de5eb01d1c0de5eb01d1c0de5eb01d1c0de5eb01d1c0";

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

#[test]
fn a_hierarchy_without_cgroups_is_told() {
    let hierarchy = Hierarchy::new();
    let made = hierarchy.make(&[]);
    let dir = made.0[0].to_str().expect("UTF-8");
    // As a cgroup namespace shows it that begins in one without others below.
    let script = format!(
        "echo $$ >{dir}/cgroup.procs; exec unshare -C sh -ec '{WITHOUT_CGROUPS} mount -t cgroup2 none /mnt; \
         \"$0\" conns --unit x --duration 100ms -q; mkdir /mnt/below; \"$0\" conns --unit x --duration 100ms -q; \
         rmdir /mnt/below' \"$0\""
    )
    .replace("'/ - cgroup2 /{print $5}'", "\"/ - cgroup2 /{print \\$5}\"");
    let out = with_own_mounts(&script, &[]);
    let says = "tcptrace: --unit: the cgroup v2 hierarchy has no cgroups yet, and those of v1 are not seen: nothing matches \
                until one is made there\n";
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), says), "once, and not where there is one");
}

/// A copy of the binary that everybody may run, wherever the build keeps its own.
fn public_copy() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
    let copy = dir.path().join("tcptrace");
    fs::copy(BINARY, &copy).expect("room for a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our file");
    let path = copy.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

/// What is offered when `words` are typed, as bash's script asks; `runner` runs it.
fn offers(runner: &[&str], words: &[&str]) -> Vec<String> {
    let index = words.len().to_string();
    let ask = [("TCPTRACE_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", &index), ("_CLAP_IFS", "\n")];
    let mut command = Command::new(runner[0]);
    let out = process::output(command.args(&runner[1..]).envs(ask).args(["--", "tcptrace"]).args(words));
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""), "{words:?}");
    text(&out.stdout).lines().map(str::to_owned).collect()
}

/// The cgroup v2 hierarchy, mounted for the test where it is not.
struct Hierarchy {
    path: PathBuf,
    ours: Option<tempfile::TempDir>,
}

impl Hierarchy {
    fn new() -> Self {
        let list = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
        if let Some(line) = list.lines().find(|l| l.contains(" / /") && l.contains(" - cgroup2 ")) {
            return Self { path: line.split(' ').nth(4).expect("a mount point").into(), ours: None };
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        process::run(Command::new("mount").args(["-t", "cgroup2", "none"]).arg(dir.path()));
        Self { path: dir.path().to_owned(), ours: Some(dir) }
    }

    /// A cgroup of this process' own and those below it, removed when dropped.
    fn make(&self, below: &[&str]) -> Made {
        let mut made = Made(Vec::new());
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tt-{}-{}.slice", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        for dir in std::iter::once(self.path.join(&name)).chain(below.iter().map(|b| self.path.join(&name).join(b))) {
            fs::create_dir(&dir).expect("root makes cgroups");
            made.0.push(dir);
        }
        made
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        if let Some(dir) = &self.ours {
            process::run(Command::new("umount").arg(dir.path()));
        }
    }
}

struct Made(Vec<PathBuf>);

impl Made {
    fn name(&self) -> &str {
        self.0[0].file_name().and_then(|name| name.to_str()).expect("UTF-8")
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // What is left of a test that failed is not worth a second failure.
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn containers_units_and_cgroups_of_this_moment_are_offered() {
    let hierarchy = Hierarchy::new();
    let scope = format!("docker-{ID}.scope");
    let lxc = format!("lxc.payload.tt-{}", std::process::id());
    let service = format!("tt-{}.service", std::process::id());
    let odd = "tt-odd name.service";
    let made = hierarchy.make(&[&scope, &lxc, &service, odd]);
    let has = |offered: &[String], name: &str| offered.iter().any(|o| o == name);
    let (_dir, copy) = public_copy();
    // Whoever may not read the runtimes' files, too.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &copy];
    for runner in [&[BINARY][..], &nobody] {
        let containers = offers(runner, &["conns", "--container", ""]);
        assert!(
            has(&containers, &ID[..12]) && has(&containers, lxc.trim_start_matches("lxc.payload.")),
            "{containers:?}"
        );
        let units = offers(runner, &["conns", "--unit", "tt-"]);
        assert!(has(&units, &service), "{units:?}");
        assert!(!units.iter().any(|unit| unit.contains(' ')), "a shell would take it apart: {units:?}");
        let top = format!("/{}", made.name());
        let cgroups = offers(runner, &["conns", "--cgroup", &top[..4]]);
        assert!(has(&cgroups, &top), "{cgroups:?}");
        let below = offers(runner, &["conns", "--cgroup", &format!("{top}/")]);
        assert!(has(&below, &format!("{top}/{service}")) && below.iter().all(|b| b.starts_with(&top)), "{below:?}");
        let second = offers(runner, &["conns", "--cgroup", &format!("/x,{top}/tt")]);
        assert!(has(&second, &format!("/x,{top}/{service}")), "{second:?}");
    }
}

/// The directory of the binary, in front of PATH.
fn path() -> String {
    let dir = Path::new(BINARY).parent().expect("a directory").display();
    format!("{dir}:{}", std::env::var("PATH").expect("PATH"))
}

/// What fish offers behind `line`, without descriptions.
fn fish_offers(line: &str) -> Vec<String> {
    let mut fish = Command::new("fish");
    let home = tempfile::tempdir().expect("a temporary directory");
    fish.args(["--no-config", "-c", "tcptrace completions fish | source; complete -C $argv[1]", line]);
    let out = process::output(fish.env("PATH", path()).env("HOME", home.path()));
    assert!(out.status.success(), "{out:?}");
    text(&out.stdout).lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn fish_completes() {
    assert_eq!(fish_offers("tcptrace expl"), ["explain"]);
    assert_eq!(fish_offers("tcptrace explain CLOSE_"), ["CLOSE_WAIT"]);
    assert_eq!(fish_offers("tcptrace conns --lp"), ["--lport"]);
    assert_eq!(fish_offers("tcptrace conns --state TIME_WAIT,LA"), ["TIME_WAIT,LAST_ACK"]);
    let comm = process::me().1;
    assert!(fish_offers(&format!("tcptrace conns --comm {}", &comm[..3])).contains(&comm), "{comm}");
}

/// What an interactive zsh makes of `typed` and the Tab key: the line as it stands then.
fn zsh_completes(typed: &str) -> String {
    let home = tempfile::tempdir().expect("a temporary directory");
    // The inner shell has a terminal; Ctrl-X shows its line as it stands.
    let script = r#"
        zmodload zsh/zpty
        zpty inner zsh -f -i
        say() { zpty -w inner "$1"; zpty -r inner seen "*$2*" }
        say 'PS1=; PROMPT_EOL_MARK=; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; echo rea""dy' ready
        say 'source <(tcptrace completions zsh); echo rea""dy' ready
        say 'show() { print -r -- "<${BUFFER}>"; BUFFER=; zle accept-line }; zle -N show; bindkey "^X" show; echo rea""dy' ready
        zpty -w -n inner "$1"$'\t\x18'
        zpty -r inner seen '*<*>*'
        print -r -- "${${seen##*<}%%>*}"
    "#;
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", script, "zsh", typed]).env("PATH", path()).env("HOME", home.path()).env("TERM", "dumb");
    let out = process::output(zsh.stdin(Stdio::null()));
    assert!(out.status.success(), "{out:?}");
    text(&out.stdout).trim_end_matches('\n').to_owned()
}

#[test]
fn zsh_completes_lines() {
    assert_eq!(zsh_completes("tcptrace expl"), "tcptrace explain ");
    assert_eq!(zsh_completes("tcptrace explain CLOSE_"), "tcptrace explain CLOSE_WAIT ");
    assert_eq!(zsh_completes("tcptrace conns --lp"), "tcptrace conns --lport ");
    let comm = process::me().1;
    assert_eq!(
        zsh_completes(&format!("tcptrace conns --comm {}", &comm[..comm.len() - 1])),
        format!("tcptrace conns --comm {comm} ")
    );
}

/// A user whom /etc/passwd does not have: nss_wrapper answers in place of the system's own sources.
#[test]
fn users_are_those_of_the_systems_look_up() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let passwd = dir.path().join("passwd");
    fs::write(&passwd, "tt-elsewhere:x:54321:54321::/nowhere:/bin/false\n").expect("our directory");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/rst.rec");
    let mut command = Command::new(BINARY);
    command.args(["conns", "--json", "--from", file, "--uid", "tt-elsewhere"]);
    command.env("LD_PRELOAD", "libnss_wrapper.so").env("NSS_WRAPPER_PASSWD", &passwd).env("NSS_WRAPPER_GROUP", &passwd);
    let out = process::output(&mut command);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""));
    assert!(text(&out.stdout).contains("\"uid\":\"54321\""), "{out:?}");
}
