//! Files whose names are those of another with a number behind: `FILE.0001`, `FILE.0002`.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::say;
use crate::{
    error::{Error, Result},
    recording::{self, Writer},
};

/// Hands out the names in order; none is used that is taken.
#[derive(Debug)]
pub struct Numbered {
    path: PathBuf,
    next: u64,
}

/// A file that was made here.
#[derive(Debug)]
pub struct Made {
    /// Its name.
    pub path: PathBuf,
    /// Device and inode number.
    file: Option<(u64, u64)>,
}

impl Numbered {
    /// The first number will be above all that are taken.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut highest = 0;
        // One that cannot be listed may take files all the same.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (name, ours) = (entry.file_name(), path.file_name().unwrap_or_default());
            let number =
                name.as_encoded_bytes().strip_prefix(ours.as_encoded_bytes()).and_then(|n| n.strip_prefix(b"."));
            let number = number.and_then(|n| std::str::from_utf8(n).ok()).filter(|n| n.len() >= 4);
            highest = highest.max(number.and_then(|n| n.parse::<u32>().ok()).unwrap_or(0));
        }
        Self { path: path.to_owned(), next: u64::from(highest) + 1 }
    }

    /// The name of the next.
    #[must_use]
    pub fn name(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{:04}", self.next));
        name.into()
    }

    /// Create the next.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(&mut self) -> Result<(Writer, Made)> {
        loop {
            let path = self.name();
            self.next += 1;
            match Writer::create_new(&path) {
                Ok(writer) => {
                    let file = fs::metadata(&path).ok().map(|file| (file.dev(), file.ino()));
                    return Ok((writer, Made { path, file }));
                }
                Err(recording::Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e.of(&path.display().to_string())),
            }
        }
    }
}

impl Made {
    /// Delete it, unless it is another file by now.
    pub fn delete(self) {
        let same = fs::metadata(&self.path).is_ok_and(|now| self.file == Some((now.dev(), now.ino())));
        if same && let Err(source) = fs::remove_file(&self.path) {
            say(&Error::io(format!("delete {}", self.path.display()), source).to_string());
        }
    }
}
