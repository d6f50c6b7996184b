//! Names of containers and pods: an id in, what the runtime's own files say out. They are read only, once for each id, in a thread,
//! for a file system can hang.
//!
//! A container whose files are elsewhere, or that is gone, has no name; its id stands for it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    filter::home,
    model::{Cgroup, Runtime},
};

/// What an answer is waited for. Files in the page cache take a tenth of a millisecond.
pub const PATIENCE: Duration = Duration::from_millis(20);
/// What it is waited for where names decide what is shown: a connection that ends before its container has a name is never told.
pub const PATIENCE_OF_FILTERS: Duration = Duration::from_secs(2);
/// Names that are remembered, before all of them are forgotten.
const REMEMBERED: usize = 1 << 14;
/// A file that is longer is none of a runtime's.
const LONGEST: u64 = 16 << 20;
/// Nor does it name anything by so many bytes.
const LONGEST_NAME: usize = 256;
/// What a rootless runtime keeps is here in its user's home.
const IN_HOME: &str = ".local/share";

/// What people call a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The container.
    pub container: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
}

/// A container whose name is wanted.
#[derive(Clone, Debug)]
struct Wanted {
    id: String,
    runtime: Option<Runtime>,
    /// Whose rootless runtime it may be.
    user: Option<u32>,
}

/// The thread that looks.
#[derive(Debug)]
struct Asked {
    ask: Sender<Wanted>,
    /// By id.
    answers: Receiver<(String, Named)>,
}

/// Asks once for each container.
#[derive(Debug)]
pub struct Containers {
    /// Where `/` is.
    root: PathBuf,
    /// None: not answered yet.
    known: HashMap<String, Option<Named>>,
    /// To and from the thread, which the first question starts.
    asked: Option<Asked>,
    /// What an answer is waited for.
    patience: Duration,
    /// An answer is overdue: nothing is waited for until it has come.
    overdue: bool,
}

impl Containers {
    /// Those of the runtimes of this host; `root` is where it has its `/`.
    #[must_use]
    pub fn new(root: &Path, patience: Duration) -> Self {
        Self { root: root.to_owned(), known: HashMap::new(), asked: None, patience, overdue: false }
    }

    /// What the container of this cgroup is called. None: not known yet, [`Containers::late`] will tell.
    pub fn name(&mut self, cgroup: &Cgroup) -> Option<Named> {
        let Some(container) = &cgroup.container else { return Some(Named::default()) };
        // These are known by their names.
        if matches!(container.runtime, Some(Runtime::Lxc | Runtime::Machined)) {
            return Some(Named::default());
        }
        let id = String::from(&*container.id);
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(id.clone(), None);
        let wanted = Wanted { id: id.clone(), runtime: container.runtime, user: cgroup.user() };
        if self.asked.is_none() {
            self.asked = start(self.root.clone());
        }
        // A thread that could not be started gives no names.
        let Some(Asked { ask, answers }) = &self.asked else { return Some(Named::default()) };
        if ask.send(wanted).is_err() {
            return Some(Named::default());
        }
        while !self.overdue {
            match answers.recv_timeout(self.patience) {
                Ok((answered, named)) => {
                    let is_it = answered == id;
                    self.known.insert(answered, Some(named.clone()));
                    if is_it {
                        return Some(named);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.overdue = true,
                Err(RecvTimeoutError::Disconnected) => return Some(Named::default()),
            }
        }
        None
    }

    /// Answers that came when nobody waited for them any more.
    pub fn late(&mut self) -> Vec<(String, Named)> {
        let Some(Asked { answers, .. }) = self.asked.as_ref().filter(|_| self.overdue) else { return Vec::new() };
        let late: Vec<_> = answers.try_iter().collect();
        if late.is_empty() {
            return late;
        }
        for (id, named) in &late {
            self.known.insert(id.clone(), Some(named.clone()));
        }
        self.overdue = self.known.values().any(Option::is_none);
        late
    }
}

fn start(root: PathBuf) -> Option<Asked> {
    let (ask, questions) = channel::<Wanted>();
    let (answer, answers) = channel();
    let work = move || {
        for wanted in questions {
            let named = wanted.look_up(&root);
            if answer.send((wanted.id, named)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("containers".to_owned()).spawn(work).ok()?;
    Some(Asked { ask, answers })
}

impl Wanted {
    fn look_up(&self, root: &Path) -> Named {
        let home = self.user.filter(|&uid| uid != 0).and_then(home).map(|home| below(root, &home).join(IN_HOME));
        let places = |system: &str, user: &str| {
            home.iter().map(|home| home.join(user)).chain([below(root, system)]).collect::<Vec<_>>()
        };
        let is = |runtime| self.runtime.is_none_or(|r| r == runtime);
        let mut found = None;
        if is(Runtime::Docker) {
            found = first(&places("var/lib/docker", "docker"), |dir| self.docker(dir));
        }
        if found.is_none() && is(Runtime::Containerd) {
            let states = ["run/containerd", "run/k3s/containerd"].map(|dir| below(root, dir));
            found = first(&states, |dir| self.containerd(dir));
        }
        if found.is_none() && (is(Runtime::Crio) || is(Runtime::Podman)) {
            let stores = places("var/lib/containers/storage", "containers/storage");
            found = first(&stores, |dir| self.crio(dir)).or_else(|| first(&stores, |dir| self.podman(dir)));
        }
        let Named { container, pod } = found.unwrap_or_default();
        let short = |name: &String| name.len() <= LONGEST_NAME;
        Named { container: container.filter(short), pod: pod.filter(short) }
    }

    /// `containers/<id>/config.v2.json`: `Name` with a slash in front, and the labels of a pod.
    fn docker(&self, dir: &Path) -> Option<Named> {
        let config: DockerConfig = read(&dir.join("containers").join(&self.id).join("config.v2.json"))?;
        let labels = config.config.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned();
        let own = config.name.trim_start_matches('/');
        let container = label("io.kubernetes.container.name").or((!own.is_empty()).then(|| own.to_owned()));
        Some(Named { container, pod: label("io.kubernetes.pod.name") })
    }

    /// `io.containerd.runtime.v2.task/<namespace>/<id>/config.json`: annotations of CRI and of nerdctl.
    fn containerd(&self, dir: &Path) -> Option<Named> {
        let namespaces = fs::read_dir(dir.join("io.containerd.runtime.v2.task")).ok()?;
        let mut specs = namespaces.flatten().filter_map(|n| read(&n.path().join(&self.id).join("config.json")));
        specs.find_map(|spec: Spec| {
            spec.named(["io.kubernetes.cri.container-name", "nerdctl/name"], "io.kubernetes.cri.sandbox-name")
        })
    }

    /// `overlay-containers/<id>/userdata/config.json`: annotations of CRI-O.
    fn crio(&self, dir: &Path) -> Option<Named> {
        let spec: Spec = read(&dir.join("overlay-containers").join(&self.id).join("userdata/config.json"))?;
        spec.named(["io.kubernetes.container.name"; 2], "io.kubernetes.pod.name")
    }

    /// `overlay-containers/containers.json`, and of containers that were started in the foreground `volatile-containers.json`.
    fn podman(&self, dir: &Path) -> Option<Named> {
        ["containers.json", "volatile-containers.json"].iter().find_map(|file| {
            let all: Vec<Stored> = read(&dir.join("overlay-containers").join(file))?;
            let names = all.into_iter().find(|stored| stored.id == self.id)?.names?;
            Some(Named { container: Some(names.into_iter().next()?), pod: None })
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    name: String,
    config: DockerLabels,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerLabels {
    labels: Option<HashMap<String, String>>,
}

/// What a container was made from, in OCI's words.
#[derive(Deserialize)]
struct Spec {
    annotations: Option<HashMap<String, String>>,
}

impl Spec {
    /// By the first annotation that is there; None where there is neither a name nor a pod.
    fn named(self, container: [&str; 2], pod: &str) -> Option<Named> {
        let annotations = self.annotations?;
        let of = |key: &str| annotations.get(key).cloned();
        let named = Named { container: container.into_iter().find_map(of), pod: of(pod) };
        (named != Named::default()).then_some(named)
    }
}

/// A container of containers/storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    names: Option<Vec<String>>,
}

fn below(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn first(places: &[PathBuf], look: impl Fn(&Path) -> Option<Named>) -> Option<Named> {
    places.iter().find_map(|place| look(place))
}

/// A file in a user's home, where there can be what makes root wait, or a way to what root alone may read: no pipe, and nothing behind links.
fn open_of_user(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

/// A file that is there and is what it should be.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    let in_home = path.to_string_lossy().contains(IN_HOME);
    let file = if in_home { open_of_user(path) } else { File::open(path).ok() };
    file?.take(LONGEST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98";

    /// A host with these files.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path.replace("ID", ID));
            fs::create_dir_all(path.parent().expect("a file")).expect("ours");
            fs::write(path, text.replace("ID", ID)).expect("ours");
        }
        root
    }

    /// `container pod` of the container in this cgroup.
    fn name(cgroup: &str, files: &[(&str, &str)]) -> String {
        let root = host(files);
        let mut containers = Containers::new(root.path(), Duration::from_secs(60));
        let cgroup = Cgroup::new(&cgroup.replace("ID", ID), None, None);
        let Named { container, pod } = containers.name(&cgroup).expect("an answer");
        assert_eq!(containers.name(&cgroup), Some(Named { container: container.clone(), pod: pod.clone() }), "again");
        format!("{} {}", container.as_deref().unwrap_or("-"), pod.as_deref().unwrap_or("-"))
    }

    #[test]
    fn every_runtime_has_its_files() {
        let docker =
            ("var/lib/docker/containers/ID/config.v2.json", r#"{"ID":"ID","Name":"/web","Config":{"Labels":null}}"#);
        assert_eq!(name("/docker/ID", &[docker]), "web -");
        let in_pod = r#"{"Name":"/k8s_nginx_web-7c5d_default_x_0","Config":{"Labels":
            {"io.kubernetes.container.name":"nginx","io.kubernetes.pod.name":"web-7c5d"}}}"#;
        let cri_dockerd = ("var/lib/docker/containers/ID/config.v2.json", in_pod);
        assert_eq!(name("/kubepods.slice/docker-ID.scope", &[cri_dockerd]), "nginx web-7c5d");
        let cri = r#"{"ociVersion":"1.1.0","annotations":
            {"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.sandbox-name":"web-7c5d"}}"#;
        let containerd = ("run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", cri);
        assert_eq!(name("/kubepods/burstable/ID", &[containerd]), "nginx web-7c5d", "the path tells no runtime");
        let k3s = ("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", cri);
        assert_eq!(name("/kubepods.slice/cri-containerd-ID.scope", &[k3s]), "nginx web-7c5d");
        let pause = r#"{"annotations":{"io.kubernetes.cri.sandbox-name":"web-7c5d"}}"#;
        let sandbox = ("run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", pause);
        assert_eq!(name("/kubepods.slice/cri-containerd-ID.scope", &[sandbox]), "- web-7c5d");
        let nerdctl = (
            "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
            r#"{"annotations":{"nerdctl/name":"db"}}"#,
        );
        assert_eq!(name("/system.slice/nerdctl-ID.scope", &[nerdctl]), "db -");
        let crio = (
            "var/lib/containers/storage/overlay-containers/ID/userdata/config.json",
            r#"{"annotations":{"io.kubernetes.container.name":"nginx","io.kubernetes.pod.name":"web-7c5d"}}"#,
        );
        assert_eq!(name("/kubepods.slice/crio-ID.scope", &[crio]), "nginx web-7c5d");
        let store = r#"[{"id":"0","names":["no"]},{"id":"ID","names":["db"],"image":"x"}]"#;
        for file in ["containers.json", "volatile-containers.json"] {
            let path = format!("var/lib/containers/storage/overlay-containers/{file}");
            assert_eq!(name("/machine.slice/libpod-ID.scope/container", &[(&path, store)]), "db -");
        }
    }

    #[test]
    fn what_is_not_told_has_no_name() {
        assert_eq!(name("/docker/ID", &[]), "- -", "no files");
        let file = "var/lib/docker/containers/ID/config.v2.json";
        for text in ["", "{", "[]", r#"{"Name":7}"#, r#"{"Name":"/","Config":{}}"#] {
            assert_eq!(name("/docker/ID", &[(file, text)]), "- -", "{text}");
        }
        let other = (file, r#"{"Name":"/web","Config":{}}"#);
        assert_eq!(name("/machine.slice/libpod-ID.scope", &[other]), "- -", "of another runtime");
        assert_eq!(name("/lxc.payload.focal", &[other]), "- -", "its id is its name");
        assert_eq!(name("/system.slice/nginx.service", &[other]), "- -", "no container");
    }

    #[test]
    fn a_users_pipes_and_links_are_left_alone() {
        let root = host(&[("home/.local/share/config", "{}")]);
        let dir = root.path().join("home/.local/share");
        let found = |name: &str| read::<HashMap<String, String>>(&dir.join(name)).is_some();
        let pipe = std::process::Command::new("mkfifo").arg(dir.join("pipe")).status().expect("coreutils");
        std::os::unix::fs::symlink(dir.join("config"), dir.join("link")).expect("ours");
        assert!(pipe.success() && found("config"));
        assert!(!found("pipe") && !found("link"));
    }

    #[test]
    fn an_answer_that_comes_late_is_told_later() {
        let root = host(&[("var/lib/docker/containers/x", "")]);
        let file = root.path().join("var/lib/docker/containers").join(ID).join("config.v2.json");
        fs::create_dir_all(file.parent().expect("a file")).expect("ours");
        // Whoever reads a pipe waits until somebody writes.
        let pipe = std::process::Command::new("mkfifo").arg(&file).status().expect("coreutils");
        assert!(pipe.success());
        let mut containers = Containers::new(root.path(), PATIENCE);
        let cgroup = |id: &str| Cgroup::new(&format!("/docker/{id}"), None, None);
        assert_eq!(containers.name(&cgroup(ID)), None);
        assert_eq!(containers.name(&cgroup(ID)), None, "asked already");
        assert_eq!(containers.name(&cgroup(&"1".repeat(64))), None, "not waited for behind one that is overdue");
        assert_eq!(containers.late(), []);
        fs::write(&file, r#"{"Name":"/web","Config":{}}"#).expect("the reader waits");
        let mut late = Vec::new();
        while late.len() < 2 {
            late.extend(containers.late());
            thread::yield_now();
        }
        let web = Named { container: Some("web".to_owned()), pod: None };
        assert_eq!(late, [(ID.to_owned(), web.clone()), ("1".repeat(64), Named::default())]);
        assert_eq!(containers.name(&cgroup(ID)), Some(web));
    }
}
