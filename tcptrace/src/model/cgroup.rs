//! The path of a cgroup → what its processes belong to: container, pod, unit.
//!
//! Every runtime names its cgroups in its own way, and they nest (a cluster node that is itself a container). The innermost
//! container counts, and the innermost unit. Names that runtimes give to containers are in no path: see [`Cgroup::new`].

/// A cgroup of the v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Below the mount, `/system.slice/nginx.service`.
    pub path: Box<str>,
    /// The container that its processes run in.
    pub container: Option<Container>,
    /// The pod of that container: its name where the runtime's files tell it, else its uid.
    pub pod: Option<Box<str>>,
    /// The systemd unit, `nginx.service`; a slice is none.
    pub unit: Option<Box<str>>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// As its runtime has it: 64 hexadecimal digits, or the name where that is the id (LXC, nspawn).
    pub id: Box<str>,
    /// Who runs it, where the path tells.
    pub runtime: Option<Runtime>,
    /// What people call it.
    pub name: Option<Box<str>>,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Runtime {
    Docker,
    Containerd,
    Crio,
    Podman,
    /// LXC itself, LXD, Incus.
    Lxc,
    /// Registered with systemd-machined: systemd-nspawn, libvirt's containers.
    Machined,
}

impl Container {
    /// Its name, or its id.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

impl Cgroup {
    /// What the path tells; `container` and `pod` are the names that the runtime's files tell.
    #[must_use]
    pub fn new(path: &str, container: Option<&str>, pod: Option<&str>) -> Self {
        let mut found = Found::default();
        let mut before = "";
        let mut rest = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = rest.next() {
            found.part(before, part, rest.peek().copied().unwrap_or(""));
            before = part;
        }
        let in_container =
            found.container.map(|(id, runtime)| Container { id: id.into(), runtime, name: container.map(Into::into) });
        Self {
            path: path.into(),
            container: in_container,
            pod: pod.map(Into::into).or(found.pod.map(Into::into)),
            unit: found.unit.map(Into::into),
        }
    }

    /// Is it `path`, or below it?
    #[must_use]
    pub fn is_below(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Is it part of the unit `name`, given with its suffix or without?
    #[must_use]
    pub fn is_in_unit(&self, name: &str) -> bool {
        let is = |part: &str| part == name && (is_unit(part) || part.ends_with(".slice"));
        let begins = |part: &str| part.strip_prefix(name).is_some_and(|suffix| UNITS.contains(&suffix));
        self.path.split('/').map(unescaped).any(|part| is(part) || begins(part))
    }

    /// Is it in the container with this name, id, or beginning of an id?
    #[must_use]
    pub fn is_in_container(&self, wanted: &str) -> bool {
        let Some(Container { id, name, .. }) = &self.container else { return false };
        // Fewer digits could be meant as a name.
        let begins = wanted.len() >= 4 && is_hexadecimal(wanted) && is_id(id) && id.starts_with(wanted);
        name.as_deref() == Some(wanted) || **id == *wanted || begins
    }

    /// The user in whose slice it is.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        self.path.split('/').find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok())
    }
}

/// Types of units that have processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

fn is_unit(part: &str) -> bool {
    UNITS.iter().any(|suffix| part.ends_with(suffix))
}

/// systemd puts `_` before a name that would be taken for a file of the kernel's (`cg_escape`).
fn unescaped(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hexadecimal(text)
}

/// What the parts of a path have told so far.
#[derive(Default)]
struct Found<'a> {
    container: Option<(String, Option<Runtime>)>,
    pod: Option<String>,
    unit: Option<&'a str>,
}

impl<'a> Found<'a> {
    /// One part of the path, between its neighbours.
    fn part(&mut self, before: &str, part: &'a str, after: &str) {
        if is_unit(part) {
            self.unit = Some(unescaped(part));
        }
        // `slice:prefix:id`, which is meant for systemd, used as a path.
        if let Some((slice, scope)) = part.split_once(':') {
            self.pod = pod(slice).or(self.pod.take());
            self.container = numbered(before, &scope.replacen(':', "-", 1)).or(self.container.take());
            return;
        }
        self.pod = pod(part).or(self.pod.take());
        self.container = numbered(before, part).or_else(|| named(before, part, after)).or(self.container.take());
    }
}

/// The uid of a pod: `pod<uid>`, `kubepods-burstable-pod<uid>.slice` with underscores, `machine-libpod_pod_<id>.slice`.
fn pod(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    if let Some((_, id)) = name.split_once("libpod_pod_") {
        return is_id(id).then(|| id.to_owned());
    }
    let uid = match name.rsplit_once("-pod") {
        Some((_, uid)) => uid,
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // The uid of a pod that comes from a file on the node has no dashes.
    let digits = uid.bytes().filter(|b| *b != b'-').count();
    (digits == 32 && is_hexadecimal(&uid.replace('-', ""))).then_some(uid)
}

/// A container that has a number: `<id>`, `docker-<id>.scope`, `libpod-payload-<id>`.
fn numbered(before: &str, part: &str) -> Option<(String, Option<Runtime>)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if is_id(name) {
        return Some((name.to_owned(), (before == "docker").then_some(Runtime::Docker)));
    }
    let (prefix, id) = name.rsplit_once('-').filter(|(_, id)| is_id(id))?;
    let runtime = match prefix {
        "docker" => Some(Runtime::Docker),
        "cri-containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::Crio),
        "libpod" | "libpod-payload" => Some(Runtime::Podman),
        // The monitor of a container is not in it.
        "libpod-conmon" | "crio-conmon" => return None,
        _ => None,
    };
    Some((id.to_owned(), runtime))
}

/// A container that has only a name: `lxc.payload.<name>`, `machine-<name>.scope`, `systemd-nspawn@<name>.service`.
fn named(before: &str, part: &str, after: &str) -> Option<(String, Option<Runtime>)> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((name.to_owned(), Some(Runtime::Lxc)));
    }
    if matches!(before, "lxc" | "lxc.payload") {
        return Some((part.to_owned(), Some(Runtime::Lxc)));
    }
    let machine = part
        .strip_prefix("machine-")
        .and_then(|name| name.strip_suffix(".scope"))
        .or_else(|| part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service"))?;
    let name = machine.replace("\\x2d", "-");
    // nspawn itself, and the emulator of a virtual machine, are not in what they run.
    let outside = after == "supervisor" || name.starts_with("qemu-");
    (!outside).then_some((name, Some(Runtime::Machined)))
}

#[cfg(test)]
mod tests;
