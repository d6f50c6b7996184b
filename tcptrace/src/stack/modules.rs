//! The files that are mapped in processes, each read once.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use super::{maps::Mapping, module::Module, processes::Process};

/// Files that are kept.
const MOST: usize = 256;
/// Bytes that they may take together, but for the one in use.
const MOST_BYTES: u64 = 256 << 20;

/// Mappings whose files are remembered.
const MOST_LOCATED: usize = 1 << 14;

/// What makes a file another one: device, inode, size, and when it was changed.
type Key = (u64, u64, u64, i64, i64);

/// See the module.
#[derive(Default)]
pub struct Modules {
    known: HashMap<Key, Entry>,
    /// Which file is behind a mapping: by the process' number and the mapping's start.
    located: HashMap<(u64, u64), Key>,
    uses: u64,
}

struct Entry {
    /// None: it cannot be made use of.
    module: Option<Module>,
    used: u64,
}

impl Modules {
    /// The file behind a mapping of a process; None: it is gone, or cannot be made use of.
    pub fn of(&mut self, process: &Process, mapping: &Mapping) -> Option<&mut Module> {
        let place = (process.number, mapping.start);
        let key = match self.located.get(&place).filter(|key| self.known.contains_key(*key)) {
            Some(key) => *key,
            None => {
                let key = self.find(process, mapping)?;
                if self.located.len() >= MOST_LOCATED {
                    self.located.clear();
                }
                self.located.insert(place, key);
                key
            }
        };
        self.uses += 1;
        let entry = self.known.get_mut(&key)?;
        entry.used = self.uses;
        entry.module.as_mut()
    }

    /// Read it, unless it is known.
    fn find(&mut self, process: &Process, mapping: &Mapping) -> Option<Key> {
        let (path, meta) = locate(process.pid, mapping)?;
        let key = key(&meta);
        if !self.known.contains_key(&key) {
            let file = File::open(path).ok()?;
            // Another file may have come in its place.
            if self::key(&file.metadata().ok()?) != key {
                return None;
            }
            self.make_room();
            self.known.insert(key, Entry { module: Module::read(file).ok(), used: self.uses });
        }
        Some(key)
    }

    fn make_room(&mut self) {
        let taken = |known: &HashMap<Key, Entry>| known.values().flat_map(|e| &e.module).map(|m| m.bytes).sum::<u64>();
        while self.known.len() >= MOST || taken(&self.known) > MOST_BYTES {
            let Some((&oldest, _)) = self.known.iter().min_by_key(|(_, e)| e.used) else { return };
            self.known.remove(&oldest);
        }
    }
}

fn key(meta: &Metadata) -> Key {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
}

/// Where the mapped file can be opened: by the mapping itself, which leads to the very file, also to one that has been deleted or is in
/// another mount namespace; by its path there; by the same path here, once the process is gone. A path must lead to the inode that is mapped.
fn locate(pid: u32, mapping: &Mapping) -> Option<(PathBuf, Metadata)> {
    let Mapping { start, end, inode, path, .. } = mapping;
    let by_mapping = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
    if let Ok(meta) = fs::metadata(&by_mapping) {
        return meta.is_file().then_some((by_mapping, meta));
    }
    let by_path = [format!("/proc/{pid}/root{path}"), path.clone()];
    by_path.into_iter().find_map(|path| {
        let meta = fs::metadata(&path).ok()?;
        (meta.ino() == *inode && meta.is_file()).then(|| (path.into(), meta))
    })
}
