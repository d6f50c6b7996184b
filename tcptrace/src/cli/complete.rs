//! What a shell asks at the Tab key: the words so far in, candidates out.
//!
//! The script of `tcptrace completions` runs tcptrace itself with [`VARIABLE`] set, so candidates are those of this moment: processes,
//! ports in use, containers.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use clap::CommandFactory as _;
use clap_complete::{
    CompleteEnv,
    engine::CompletionCandidate,
    env::{Bash, EnvCompleter, Fish, Zsh},
};

use super::{
    args::{Arguments, Shell},
    one_line,
};
use crate::{
    error::{Error, Result},
    explain::PAGES,
    group::Key,
    kernel::{
        cgroup,
        containers::{self, Containers},
    },
    model::{Cgroup, Container, State},
};

/// Set by a shell's script to the shell's name.
const VARIABLE: &str = "TCPTRACE_COMPLETE";
/// Bytes of a list of sockets that are looked at: a host with hundreds of thousands should not make the Tab key slow.
const MOST: u64 = 4 << 20;
/// Cgroups that are looked at, for the same reason.
const MOST_CGROUPS: usize = 10_000;

/// Answer a shell that asks for candidates. False: none does.
///
/// # Errors
/// [`Error::Usage`]: the question makes no sense.
pub fn answer(arguments: &[OsString]) -> Result<bool> {
    let here = std::env::current_dir().ok();
    let question = CompleteEnv::with_factory(Arguments::command).var(VARIABLE);
    question.try_complete(arguments, here.as_deref()).map_err(|e| Error::Usage(one_line(&e)))
}

/// The script that makes a shell ask.
pub fn script(shell: Shell) -> String {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "tcptrace", "tcptrace", "tcptrace", &mut script)
        .expect("a Vec takes everything");
    String::from_utf8_lossy(&script).trim_start().to_owned()
}

/// `--comm`: names of processes.
pub fn comms(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut names = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        // Kernel threads have no command line, and no sockets that are traced under their names.
        let user = fs::read(path.join("cmdline")).is_ok_and(|line| !line.is_empty());
        if let Ok(name) = fs::read_to_string(path.join("comm"))
            && user
        {
            names.insert(name.trim_end_matches('\n').to_owned());
        }
    }
    list(current, names.into_iter().filter(|name| plain(name)))
}

/// `--lport`: ports that processes listen on.
pub fn local_ports(current: &OsStr) -> Vec<CompletionCandidate> {
    list(current, numbers(Ports::read().listening))
}

/// `--rport`: ports of others that processes here are connected to.
pub fn remote_ports(current: &OsStr) -> Vec<CompletionCandidate> {
    list(current, numbers(Ports::read().remote))
}

/// `--port`: both.
pub fn ports(current: &OsStr) -> Vec<CompletionCandidate> {
    let Ports { mut listening, mut remote } = Ports::read();
    listening.append(&mut remote);
    list(current, numbers(listening))
}

/// `--state`.
pub fn states(current: &OsStr) -> Vec<CompletionCandidate> {
    list(current, State::ALL.iter().map(|state| state.name().to_owned()))
}

/// `--by`.
pub fn keys(current: &OsStr) -> Vec<CompletionCandidate> {
    list(current, Key::ALL.iter().map(ToString::to_string))
}

/// `--container`: names where the runtimes' files may be read and tell one, else ids, as short as runtimes show them.
pub fn containers(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut names = Containers::new(Path::new("/"), containers::PATIENCE);
    let mut found = BTreeSet::new();
    for cgroup in cgroup::paths(MOST_CGROUPS).iter().map(|path| Cgroup::new(path, None, None)) {
        let named = names.name(&cgroup).and_then(|named| named.container);
        if let Some(Container { id, .. }) = cgroup.container {
            let short = if id.len() == 64 { &id[..12] } else { &id };
            found.insert(named.unwrap_or_else(|| short.to_owned()));
        }
    }
    list(current, found.into_iter().filter(|name| plain(name)))
}

/// `--unit`.
pub fn units(current: &OsStr) -> Vec<CompletionCandidate> {
    let paths = cgroup::paths(MOST_CGROUPS);
    let units: BTreeSet<_> =
        paths.iter().filter_map(|path| Cgroup::new(path, None, None).unit).map(String::from).collect();
    list(current, units.into_iter().filter(|name| plain(name)))
}

/// `--cgroup`: one step of a path after the other.
pub fn cgroups(current: &OsStr) -> Vec<CompletionCandidate> {
    let last = current.to_str().map_or("", |text| text.rsplit(',').next().unwrap_or(text));
    let parent = last.rfind('/').map_or("", |slash| &last[..slash]);
    let children: BTreeSet<_> = cgroup::children(parent).into_iter().map(|name| format!("{parent}/{name}")).collect();
    list(current, children.into_iter().filter(|name| plain(name)))
}

/// `--role`.
pub fn roles(current: &OsStr) -> Vec<CompletionCandidate> {
    list(current, ["client", "server", "listener"].map(str::to_owned).into_iter())
}

/// `explain`.
pub fn pages(current: &OsStr) -> Vec<CompletionCandidate> {
    list(current, PAGES.iter().map(|page| page.name.to_owned()))
}

/// Bash puts a candidate into the command line as it is: a name that a shell would take apart does not get there.
fn plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+@:/".contains(c))
}

fn numbers(ports: BTreeSet<u16>) -> impl Iterator<Item = String> {
    ports.into_iter().map(|port| port.to_string())
}

/// Those of `names` that continue the last entry of the list, and are not in it yet.
fn list(current: &OsStr, names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    // No name is anything but UTF-8.
    let Some(current) = current.to_str() else { return Vec::new() };
    let (before, last) = current.split_at(current.rfind(',').map_or(0, |comma| comma + 1));
    let given: Vec<_> = before.split(',').collect();
    let wanted = names.filter(|name| name.starts_with(last) && !given.contains(&name.as_str()));
    wanted.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
}

/// Ports in use in this network namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ports {
    listening: BTreeSet<u16>,
    remote: BTreeSet<u16>,
}

impl Ports {
    fn read() -> Self {
        let mut ports = Self::default();
        let files = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::File::open);
        // Both tables first: the remote ports of accepted connections are left out, and either family can have the listener.
        let rows: Vec<String> = files
            .into_iter()
            .flatten()
            .flat_map(|file| BufReader::new(file.take(MOST)).lines().map_while(Result::ok))
            .collect();
        ports.add(&rows);
        ports
    }

    /// Rows of /proc/net/tcp: `sl local_address rem_address st …`.
    fn add(&mut self, rows: &[String]) {
        let ends = |row: &String| {
            let mut fields = row.split_whitespace().skip(1);
            let mut port = || u16::from_str_radix(fields.next()?.rsplit_once(':')?.1, 16).ok();
            let (local, remote) = (port()?, port()?);
            Some((local, remote, fields.next()? == "0A"))
        };
        let rows: Vec<_> = rows.iter().filter_map(ends).collect();
        self.listening.extend(rows.iter().filter(|row| row.2).map(|row| row.0));
        self.remote.extend(rows.iter().filter(|row| row.1 != 0 && !self.listening.contains(&row.0)).map(|row| row.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(candidates: Vec<CompletionCandidate>) -> Vec<String> {
        candidates.iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_list_is_continued() {
        let names = || ["80", "443", "8080"].map(str::to_owned).into_iter();
        assert_eq!(shown(list(OsStr::new("8"), names())), ["80", "8080"]);
        assert_eq!(shown(list(OsStr::new("443,80,"), names())), ["443,80,8080"], "not what is there already");
        assert_eq!(shown(list(OsStr::new("9"), names())), [""; 0]);
    }

    #[test]
    fn ports_are_read_from_the_kernels_table() {
        let rows = [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1",
            "   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 4243 1",
            "   2: 0100007F:C002 0A00000A:01BB 01 00000000:00000000 00:00000000 00000000     0        0 4244 1",
            "   3: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0 0 0",
        ];
        let mut ports = Ports::default();
        ports.add(&rows.map(str::to_owned));
        assert_eq!(ports, Ports { listening: [80, 8080].into(), remote: [443].into() });
    }
}
