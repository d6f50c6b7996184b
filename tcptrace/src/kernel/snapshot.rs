//! Snapshots: what exists, as records, from the kernel's own iterators. One at the start for what existed before the programs
//! were attached, further ones after losses.
//!
//! iter/task_file gives every descriptor of every process in one pass; iter/tcp gives the sockets of the namespace that the
//! reading thread is in, so a thread of its own enters one namespace after the other.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{Btf, Ebpf, programs::Iter};
use tcptrace_common::record::{Head, MiniSocket, Owned, Socket, kind};
use zerocopy::FromBytes as _;

use super::{
    Error,
    bpf::{self, Walk},
};
use crate::frame::{Frames, fact};

/// The iterators, loaded and ready to run in any thread.
pub struct Iterators {
    tcp: OwnedFd,
    task_file: OwnedFd,
}

/// What a snapshot gave.
#[derive(Default)]
pub struct Taken {
    /// Rows in the order read: sockets of each namespace, then descriptors.
    pub rows: Frames,
    /// Summary, for the stream.
    pub fact: fact::Snapshot,
    /// Time and kernel ticks of the first row that has them.
    ticks: Option<(u64, u32)>,
    /// Leave a socket's second row out.
    skip_known: bool,
    /// Cookies of the sockets that have a row, if that matters.
    known: HashSet<u64>,
}

impl Taken {
    /// Does this row add something to those before it?
    fn wants(&mut self, head: &Head) -> bool {
        match head.kind {
            // One without a cookie is nobody's.
            kind::SOCKET | kind::TIME_WAIT => head.sock != 0 && self.known.insert(head.sock),
            _ => true,
        }
    }
}

/// What the kernel calls the iterators in use.
pub(super) const TARGETS: [&str; 3] = [TCP, TASK_FILE, SOCKET_STORAGE];
pub(super) const TCP: &str = "tcp";
pub(super) const TASK_FILE: &str = "task_file";
pub(super) const SOCKET_STORAGE: &str = "bpf_sk_storage_map";

/// Two readings of the kernel's tick counter this far apart tell its rate among 100, 250, 300 and 1000.
const HZ_SPAN: Duration = Duration::from_millis(60);

impl Iterators {
    /// Load both.
    ///
    /// # Errors
    /// [`Error::Load`] when the kernel refuses one.
    pub(super) fn new(ebpf: &mut Ebpf, btf: &Btf) -> Result<Self, Error> {
        Ok(Self {
            tcp: link(ebpf, btf, "iter_tcp", TCP, Walk::All)?,
            task_file: link(ebpf, btf, "iter_task_file", TASK_FILE, Walk::All)?,
        })
    }

    /// Read everything; `netns` restricts the namespaces (empty: all that can be found). Takes about 2 ms and 0.3 µs a socket;
    /// run it on a thread of its own, which it moves between namespaces.
    #[must_use]
    pub fn take(&self, netns: &[u32]) -> Taken {
        let begin = Instant::now();
        let mut taken = Taken::default();
        for (inum, path) in namespaces(netns) {
            self.sockets(inum, path, &mut taken);
        }
        self.holders(&mut taken);
        taken.fact.hz = self.measure_hz(begin, taken.ticks);
        taken
    }

    /// Read everything again, `begin` being CLOCK_MONOTONIC now. Each namespace is read twice, because some kernels' iterators
    /// can skip a socket while others come and go: what neither pass found is not there.
    #[must_use]
    pub fn again(&self, netns: &[u32], begin: u64) -> Taken {
        let mut taken = Taken { skip_known: true, ..Taken::default() };
        let mut whole = Vec::new();
        for (inum, path) in namespaces(netns) {
            if self.sockets(inum, path.clone(), &mut taken) && self.sockets(inum, path, &mut taken) {
                whole.push(inum);
            }
        }
        self.holders(&mut taken);
        let all = !netns.is_empty() && netns.iter().all(|inum| whole.contains(inum));
        taken.fact.netns = whole.len() as u32;
        taken.fact.resync = Some(fact::Resync { begin, netns: whole, all });
        taken
    }

    /// The sockets of one namespace; false: not all of them.
    fn sockets(&self, inum: u32, path: PathBuf, taken: &mut Taken) -> bool {
        let again = || namespaces(&[inum]).remove(&inum);
        let Some(entered) = reach(path, again, |path| enter(path, inum)) else { return false };
        let whole = entered.and_then(|()| read(&self.tcp)).is_ok_and(|bytes| append(&bytes, taken));
        if whole {
            taken.fact.netns += 1;
        } else {
            taken.fact.netns_failed += 1;
        }
        whole
    }

    /// Descriptors of all processes.
    fn holders(&self, taken: &mut Taken) {
        if let Ok(bytes) = read(&self.task_file) {
            append(&bytes, taken);
        }
    }

    /// Ticks a second: a second look at any socket, a little later.
    fn measure_hz(&self, begin: Instant, first: Option<(u64, u32)>) -> u32 {
        let Some((ts, jiffies)) = first else { return 0 };
        std::thread::sleep(HZ_SPAN.saturating_sub(begin.elapsed()));
        let Ok(bytes) = read(&self.tcp) else { return 0 };
        let mut later = Taken::default();
        append(&bytes, &mut later);
        let Some((later_ts, later_jiffies)) = later.ticks else { return 0 };
        let ns = later_ts.saturating_sub(ts).max(1);
        let rate = u64::from(later_jiffies.wrapping_sub(jiffies)) * 1_000_000_000 / ns;
        [100u32, 250, 300, 1000].into_iter().min_by_key(|hz| rate.abs_diff(u64::from(*hz))).unwrap_or(0)
    }
}

/// Load an iterator and attach it; its link stays open past the objects of aya.
pub(super) fn link(
    ebpf: &mut Ebpf,
    btf: &Btf,
    program: &'static str,
    target: &str,
    walk: Walk<'_>,
) -> Result<OwnedFd, Error> {
    let program = load(ebpf, btf, program, target)?;
    bpf::link_iterator(program, walk).map_err(|e| Error::load("attaching an iterator", e))
}

/// Load an iterator.
pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf, program: &'static str, target: &str) -> Result<OwnedFd, Error> {
    let iter: &mut Iter = ebpf
        .program_mut(program)
        .ok_or_else(|| Error::missing(program))?
        .try_into()
        .map_err(|e| Error::load("opening an iterator", e))?;
    let failed = |e| Error::load("loading an iterator", e);
    iter.load(target, btf).map_err(failed)?;
    let program = iter.fd().map_err(failed)?;
    program.as_fd().try_clone_to_owned().map_err(|e| Error::load("keeping an iterator", e))
}

/// Run an iterator once.
pub(super) fn read(link: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = bpf::run_iterator(link)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Cut an iterator's output into records; false: it ends in the middle of one, or with what is none.
fn append(bytes: &[u8], taken: &mut Taken) -> bool {
    let mut rest = bytes;
    while let Ok((head, _)) = Head::read_from_prefix(rest) {
        let len = match head.kind {
            kind::SOCKET => size_of::<Socket>(),
            kind::HOLDER => size_of::<Owned>(),
            kind::REQUEST | kind::TIME_WAIT => size_of::<MiniSocket>(),
            _ => return false,
        };
        let Some(record) = rest.get(..len) else { return false };
        if let (kind::SOCKET, None, Ok(row)) = (head.kind, &taken.ticks, Socket::read_from_bytes(record)) {
            taken.ticks = Some((head.ts, row.jiffies));
        }
        rest = &rest[len..];
        if taken.skip_known && !taken.wants(&head) {
            continue;
        }
        taken.rows.push(0, record);
        taken.fact.rows += 1;
    }
    rest.is_empty()
}

/// Enter a namespace by `path`, or by what `again` finds if that is gone: its process may have ended while others live in it.
/// None: nothing leads into it any more, so it has no sockets.
pub(super) fn reach(
    mut path: PathBuf,
    mut again: impl FnMut() -> Option<PathBuf>,
    mut enter: impl FnMut(&Path) -> io::Result<()>,
) -> Option<io::Result<()>> {
    /// Of processes that end as fast as they are found.
    const ATTEMPTS: u32 = 8;
    let mut attempts = 1;
    loop {
        match enter(&path) {
            // EINVAL: the name is there, the mount on it no more (`ip netns del`).
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL)) => {
                let other = again()?;
                if attempts == ATTEMPTS {
                    return Some(Err(e));
                }
                path = other;
                attempts += 1;
            }
            result => return Some(result),
        }
    }
}

/// Every network namespace that can be found, or those of them that are `wanted`: inode number → a path that leads into it.
pub(super) fn namespaces(wanted: &[u32]) -> BTreeMap<u32, PathBuf> {
    let mut found = BTreeMap::new();
    let own = std::fs::metadata("/proc/self/ns/net").map(|meta| meta.dev()).ok();
    let mut add = |path: PathBuf| {
        // What has ended meanwhile, or may not be looked at, leads nowhere; nor does a name without its mount.
        if let Ok(meta) = std::fs::metadata(&path)
            && Some(meta.dev()) == own
            && (wanted.is_empty() || wanted.contains(&(meta.ino() as u32)))
        {
            found.entry(meta.ino() as u32).or_insert(path);
        }
    };
    add("/proc/self/ns/net".into());
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            add(entry.path().join("ns/net"));
        }
    }
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        add(entry.path());
    }
    found
}

/// Move the calling thread into network namespace `inum`, unless the path leads elsewhere by now: its process may have moved.
pub(super) fn enter(path: &Path, inum: u32) -> io::Result<()> {
    let file = File::open(path)?;
    if file.metadata()?.ino() as u32 != inum {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes as _;

    /// What comes of a namespace whose paths fail with these errors (0: not at all), and how often it was looked for again.
    fn reached(errors: &[i32], more_paths: usize) -> (Option<Result<(), i32>>, usize) {
        let (mut looked, mut tried) = (0, 0);
        let again = || {
            looked += 1;
            (looked <= more_paths).then(|| PathBuf::from(format!("/path/{looked}")))
        };
        let enter = |path: &Path| {
            let expected = if tried == 0 { "/path".to_owned() } else { format!("/path/{tried}") };
            assert_eq!(path, Path::new(&expected));
            tried += 1;
            match errors[(tried - 1) % errors.len()] {
                0 => Ok(()),
                e => Err(io::Error::from_raw_os_error(e)),
            }
        };
        let result = reach("/path".into(), again, enter);
        (result.map(|r| r.map_err(|e| e.raw_os_error().unwrap())), looked)
    }

    #[test]
    fn a_namespace_that_is_gone_is_no_failure() {
        for gone in [libc::ENOENT, libc::ESRCH, libc::EINVAL] {
            assert_eq!(reached(&[gone], 0), (None, 1));
            assert_eq!(reached(&[gone, 0], 1), (Some(Ok(())), 1), "another process is in it");
            assert_eq!(reached(&[gone, libc::EPERM], 1), (Some(Err(libc::EPERM)), 1));
            assert_eq!(reached(&[gone], usize::MAX), (Some(Err(gone)), 8), "not for ever");
        }
        assert_eq!(reached(&[libc::EPERM], 1), (Some(Err(libc::EPERM)), 0));
        assert_eq!(reached(&[libc::EMFILE], 1), (Some(Err(libc::EMFILE)), 0));
        assert_eq!(reached(&[0], 1), (Some(Ok(())), 0));
    }

    #[test]
    fn a_path_that_is_gone_says_so_and_one_that_is_no_namespace_too() {
        // As `ip netns del` leaves it for a moment.
        let file = tempfile::NamedTempFile::new().unwrap();
        let plain = enter(file.path(), file.as_file().metadata().unwrap().ino() as u32).unwrap_err().raw_os_error();
        assert_eq!(plain, Some(libc::EINVAL));
        assert_eq!(enter(Path::new("/proc/1073741824/ns/net"), 1).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        assert!(namespaces(&[]).contains_key(&own));
    }

    fn row(kind: u8, sock: u64, len: usize) -> Vec<u8> {
        let mut row = Head { kind, sock, ..Head::default() }.as_bytes().to_vec();
        row.resize(len, 0);
        row
    }

    #[test]
    fn what_is_cut_short_is_not_whole() {
        let socket = row(kind::SOCKET, 5, size_of::<Socket>());
        let read = |bytes: &[u8]| {
            let mut taken = Taken::default();
            (append(bytes, &mut taken), taken.fact.rows)
        };
        assert_eq!(read(&[]), (true, 0));
        assert_eq!(read(&[socket.clone(), socket.clone()].concat()), (true, 2));
        assert_eq!(read(&[&socket[..], &socket[..socket.len() - 8]].concat()), (false, 1));
        assert_eq!(read(&[&socket[..], &[0; 8]].concat()), (false, 1));
        assert_eq!(read(&[socket, row(kind::STATE, 5, size_of::<Head>())].concat()), (false, 1));
    }

    #[test]
    fn a_second_pass_adds_what_the_first_skipped() {
        let socket = |sock| row(kind::SOCKET, sock, size_of::<Socket>());
        let mini = |kind, sock| row(kind, sock, size_of::<MiniSocket>());
        let mut taken = Taken { skip_known: true, ..Taken::default() };
        assert!(append(&[socket(1), mini(kind::TIME_WAIT, 2), mini(kind::TIME_WAIT, 0)].concat(), &mut taken));
        assert!(append(&[socket(1), socket(3), mini(kind::TIME_WAIT, 2), mini(kind::REQUEST, 0)].concat(), &mut taken));
        let rows: Vec<_> = taken.rows.iter().map(|r| (r[16], r[8])).collect();
        assert_eq!(rows, [(kind::SOCKET, 1), (kind::TIME_WAIT, 2), (kind::SOCKET, 3), (kind::REQUEST, 0)]);
    }
}
