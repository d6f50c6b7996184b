//! Paths of cgroups: ids from the records in, `Cgroup` facts out, each id once.
//!
//! Records carry the id of a process' cgroup in the v2 hierarchy, which is the inode number of its directory. A file handle
//! made of the id opens that directory at once; without CAP_DAC_READ_SEARCH, which handles need, the tree is walked. A cgroup
//! that is gone by then, and every one where no v2 hierarchy is mounted, has no path. Where the path names a container, the fact has
//! its name ([`super::containers`]); a fact is told again when a name comes late.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tcptrace_common::record::{Open, Owned, kind};
use zerocopy::FromBytes as _;

use super::containers::{Containers, Named};
use crate::{
    frame::{Frames, fact},
    model::Cgroup,
};

/// Ids whose cgroups were gone, before all of them are forgotten.
const GONE: usize = 1 << 16;

/// See the module.
#[derive(Debug)]
pub struct Cgroups {
    mount: Option<Mount>,
    told: HashSet<u64>,
    gone: HashSet<u64>,
    /// Names of the containers that paths name.
    containers: Containers,
    /// Told without names that may still come.
    nameless: Vec<(u64, Cgroup)>,
    /// The latest: one owner after the other is in the same.
    latest: u64,
}

/// Where the v2 hierarchy is mounted.
#[derive(Debug)]
struct Mount {
    dir: File,
    path: PathBuf,
    /// File handles can be opened here.
    handles: bool,
}

/// Is the v2 hierarchy mounted? Without it no cgroup, container or unit is told.
#[must_use]
pub fn is_mounted() -> bool {
    mounted().is_some()
}

/// Paths of all cgroups, as [`fact::Cgroup::path`] has them, those near the root first; `most` at most.
#[must_use]
pub fn paths(most: usize) -> Vec<String> {
    let Some(mount) = mounted() else { return Vec::new() };
    let below = |dir: PathBuf| Some(format!("/{}", dir.strip_prefix(&mount).ok()?.to_str()?));
    tree(&mount).take(most).filter_map(below).collect()
}

/// Names of the cgroups right below the one at `path`.
#[must_use]
pub fn children(path: &str) -> Vec<String> {
    let Some(mount) = mounted() else { return Vec::new() };
    let dirs = directories(&mount.join(path.trim_start_matches('/')));
    dirs.iter().filter_map(|dir| Some(dir.file_name()?.to_str()?.to_owned())).collect()
}

fn mounted() -> Option<PathBuf> {
    // Without procfs there is nothing to know, as where nothing is mounted.
    fs::read("/proc/self/mountinfo").ok().and_then(|list| mount_point(&list))
}

/// A directory and all below it, level by level.
fn tree(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut open = VecDeque::from([root.to_owned()]);
    std::iter::from_fn(move || {
        let dir = open.pop_front()?;
        open.extend(directories(&dir));
        Some(dir)
    })
}

/// Those in `dir`. One that is removed meanwhile, or must not be read, has nothing to tell.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

impl Cgroups {
    /// Those of this host; names of their containers are waited for so long ([`super::containers`]).
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self::at(mounted(), patience)
    }

    fn at(path: Option<PathBuf>, patience: Duration) -> Self {
        // One that must not be entered is as good as none.
        let mount = path.and_then(|path| Some(Mount { dir: File::open(&path).ok()?, path, handles: true }));
        Self {
            mount,
            told: HashSet::new(),
            gone: HashSet::new(),
            containers: Containers::new(Path::new("/"), patience),
            nameless: Vec::new(),
            latest: 0,
        }
    }

    /// Put the paths of cgroups that the frames from byte `from` on are the first to name in front of these frames.
    pub fn tell(&mut self, frames: &mut Frames, from: usize) {
        let Some(mount) = &mut self.mount else { return };
        let mut new: Vec<u64> = Vec::new();
        let mut first_ts = None;
        for record in frames.iter_from(from) {
            first_ts = first_ts.or_else(|| record.first_chunk().map(|ts| u64::from_le_bytes(*ts)));
            let id = cgroup_of(record);
            if id != self.latest && id != 0 {
                self.latest = id;
                if !self.told.contains(&id) && !self.gone.contains(&id) && !new.contains(&id) {
                    new.push(id);
                }
            }
        }
        let Some(first_ts) = first_ts else { return };
        let late = self.containers.late();
        if new.is_empty() && late.is_empty() {
            return;
        }
        let mut facts = Frames::default();
        for (container, named) in late {
            let is_it =
                |(_, cgroup): &mut (u64, Cgroup)| cgroup.container.as_ref().is_some_and(|c| *c.id == *container);
            for (id, cgroup) in self.nameless.extract_if(.., is_it).collect::<Vec<_>>() {
                push(&mut facts, first_ts, id, &cgroup, named.clone());
            }
        }
        let paths = if new.is_empty() { Vec::new() } else { mount.paths(&new) };
        for (id, path) in paths {
            let Some(path) = path else {
                if self.gone.len() >= GONE {
                    self.gone.clear();
                }
                self.gone.insert(id);
                continue;
            };
            if self.told.len() >= fact::Cgroup::REMEMBERED {
                self.told.clear();
            }
            self.told.insert(id);
            let cgroup = Cgroup::new(&path, None, None);
            let named = self.containers.name(&cgroup);
            push(&mut facts, first_ts, id, &cgroup, named.clone().unwrap_or_default());
            if named.is_none() && self.nameless.len() < GONE {
                self.nameless.push((id, cgroup));
            }
        }
        frames.insert(from, &facts);
    }
}

fn push(facts: &mut Frames, ts: u64, id: u64, cgroup: &Cgroup, Named { container, pod }: Named) {
    let fact = fact::Cgroup { id, path: String::from(&*cgroup.path), container, pod };
    facts.push_fact(fact::kind::CGROUP, ts, &fact);
}

/// The cgroup of the process that a record names; 0 for none.
#[inline]
fn cgroup_of(record: &[u8]) -> u64 {
    match record.get(16) {
        // A `Listen` and an `Accepted` begin with these.
        Some(&(kind::OPEN | kind::LISTEN)) => Open::ref_from_prefix(record).map_or(0, |(r, _)| r.owner.cgroup),
        Some(&(kind::ACCEPTED | kind::ACTOR | kind::HOLDER)) => {
            Owned::ref_from_prefix(record).map_or(0, |(r, _)| r.owner.cgroup)
        }
        _ => 0,
    }
}

impl Mount {
    /// The path of each, below the mount and with a slash in front; None where it is gone.
    fn paths(&mut self, ids: &[u64]) -> Vec<(u64, Option<String>)> {
        let mut found = Vec::with_capacity(ids.len());
        for &id in ids {
            if !self.handles {
                break;
            }
            match self.open(id) {
                Ok(path) => found.push((id, self.below(&path, id))),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => found.push((id, None)),
                // Not permitted, or the kernel is too old: the same for all.
                Err(_) => self.handles = false,
            }
        }
        if self.handles { found } else { self.walk(ids) }
    }

    /// Where the directory with this id is.
    fn open(&self, id: u64) -> io::Result<PathBuf> {
        let handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: `handle` is what open_by_handle_at(2) documents, with as many bytes as it says, and outlives the call.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, self.dir.as_raw_fd(), core::ptr::from_ref(&handle), flags)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else knows.
        let dir = unsafe { File::from_raw_fd(fd as i32) };
        fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))
    }

    /// The path below the mount, if that is where the cgroup is: it may have been removed since it was opened, or lie outside
    /// of what is mounted.
    fn below(&self, path: &Path, id: u64) -> Option<String> {
        let inside = path.strip_prefix(&self.path).ok()?;
        if fs::metadata(path).ok()?.ino() != id {
            return None;
        }
        Some(format!("/{}", inside.to_str()?))
    }

    /// Look at every cgroup there is.
    fn walk(&self, ids: &[u64]) -> Vec<(u64, Option<String>)> {
        let mut found: Vec<(u64, Option<String>)> = ids.iter().map(|&id| (id, None)).collect();
        for dir in tree(&self.path) {
            let Ok(meta) = fs::metadata(&dir) else { continue };
            if let Some((id, path)) = found.iter_mut().find(|(id, _)| *id == meta.ino()) {
                *path = self.below(&dir, *id);
            }
        }
        found
    }
}

/// `struct file_handle` of a kernfs node (`FILEID_KERNFS` of linux/exportfs.h; Linux 5.5, upstream 33c5ac9175195).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}
const FILEID_KERNFS: i32 = 0xfe;

/// Where `/proc/self/mountinfo` says that the v2 hierarchy is; of several mounts one that shows all of it.
fn mount_point(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut found: Option<(bool, PathBuf)> = None;
    for line in mountinfo.split(|&b| b == b'\n') {
        // id parent device root mount-point options … - type source options
        let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let kind = words.iter().position(|w| *w == b"-").and_then(|i| words.get(i + 1));
        let (Some(&root), Some(&point), Some(b"cgroup2")) = (words.get(3), words.get(4), kind.copied()) else {
            continue;
        };
        let whole = root == b"/";
        if found.as_ref().is_none_or(|(best, _)| whole && !best) {
            found = Some((whole, PathBuf::from(std::ffi::OsString::from_vec(unescape(point)))));
        }
    }
    found.map(|(_, path)| path)
}

/// Undo `\040` and the like (`mangle_path`).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = after.first_chunk::<3>().filter(|d| *first == b'\\' && d.iter().all(|d| (b'0'..b'8').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
