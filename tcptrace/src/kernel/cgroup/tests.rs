//! Mounts of all sorts, and ids that are told once; a directory stands for a hierarchy where no handle can be made.

use tcptrace_common::record::{Head, Owner};
use zerocopy::IntoBytes as _;

use super::{super::containers::PATIENCE, *};

#[test]
fn the_mount_is_found_wherever_it_is() {
    let of = |text: &str| mount_point(text.as_bytes()).map(|p| p.to_str().unwrap().to_owned());
    let v1 = "33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
    let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    let part = "50 31 0:38 /../.. /mnt/a\\040b\\134c rw,relatime - cgroup2 cgroup2 rw\n";
    assert_eq!(of(v1), None);
    assert_eq!(of(&format!("{v1}{unified}")), Some("/sys/fs/cgroup/unified".to_owned()));
    assert_eq!(of(&format!("{part}{v1}{unified}")), Some("/sys/fs/cgroup/unified".to_owned()));
    assert_eq!(of(part), Some("/mnt/a b\\c".to_owned()), "a part is better than nothing");
    assert_eq!(of("no mountinfo\n41 31 0:38 / /x rw - cgroup2"), Some("/x".to_owned()));
    assert_eq!(of(""), None);
}

fn accepted(ts: u64, cgroup: u64) -> Owned {
    let head = Head { ts, sock: 5, kind: kind::ACCEPTED, ..Head::default() };
    Owned { head, owner: Owner { pid: 7, cgroup, ..Owner::default() } }
}

/// `path=id` of every fact, `-` for every other frame.
fn kinds(frames: &Frames, ids: &[u64]) -> Vec<String> {
    let one = |record: &[u8]| {
        let (head, body) = Head::read_from_prefix(record).unwrap();
        if head.kind != fact::kind::CGROUP {
            return "-".to_owned();
        }
        let c: fact::Cgroup = serde_json::from_slice(body).unwrap();
        format!("{}={:?}", c.path, ids.iter().position(|&id| id == c.id))
    };
    frames.iter().map(one).collect()
}

#[test]
fn a_path_comes_before_the_record_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("system.slice/nginx.service");
    fs::create_dir_all(&inner).unwrap();
    let ids = [dir.path(), &inner].map(|p| fs::metadata(p).unwrap().ino());
    let mut cgroups = Cgroups::at(Some(dir.path().to_owned()), PATIENCE);
    // A plain file system has no such handles: this is the walk.
    cgroups.mount.as_mut().unwrap().handles = false;
    let mut frames = Frames::default();
    frames.push(0, accepted(1, ids[1]).as_bytes());
    let from = frames.len();
    for (ts, id) in [(2, ids[1]), (3, u64::MAX), (4, ids[0]), (5, ids[1]), (6, 0)] {
        frames.push(0, accepted(ts, id).as_bytes());
    }
    cgroups.tell(&mut frames, from);
    let told = ["-", "/system.slice/nginx.service=Some(1)", "/=Some(0)", "-", "-", "-", "-", "-"];
    assert_eq!(kinds(&frames, &ids), told);
    cgroups.tell(&mut frames, 0);
    assert_eq!(kinds(&frames, &ids), told, "told already, and what is gone stays gone");
    Cgroups::at(None, PATIENCE).tell(&mut frames, 0);
    assert_eq!(kinds(&frames, &ids), told, "nothing mounted, nothing to tell");
}
