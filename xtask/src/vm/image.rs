//! The initramfs of a guest: programs, their libraries and a minimum of configuration in, a cpio archive out.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, modules::Module};
use crate::sh;

/// Where the test binary is in a guest.
pub const TESTS: &str = "/tests";

/// What the live tests run beside tcptrace, and what these run.
const PROGRAMS: [&str; 14] = [
    "busybox",
    "cat",
    "curl",
    "env",
    "ip",
    "mount",
    "nginx",
    "setpriv",
    "sh",
    "ss",
    "stdbuf",
    "tcpstates",
    "umount",
    "unshare",
];
/// Preloaded by `stdbuf`.
const STDBUF: [&str; 2] = ["/usr/libexec/coreutils/libstdbuf.so", "/usr/lib/coreutils/libstdbuf.so"];
/// Directories that something expects. A merged /usr, as Debian has it.
const DIRECTORIES: [&str; 15] = [
    "dev",
    "etc",
    "modules",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/sbin",
    "var",
    "var/empty",
    "var/lib",
];
const LINKS: [(&str, &str); 4] = [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];
const CONFIGURATION: [(&str, &str); 5] = [
    ("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/protocols", "tcp 6 TCP\nudp 17 UDP\nsctp 132 SCTP\n"),
];

/// The part that every guest shares: `tests` as [`TESTS`], `tcptrace` at `place`, where the tests look for it.
///
/// # Errors
/// A program is missing or cannot be read.
pub fn base(tests: &Path, tcptrace: &Path, place: &Path) -> Result<Vec<u8>> {
    let mut image = Image::default();
    DIRECTORIES.iter().for_each(|dir| image.directory(Path::new(dir)));
    LINKS.iter().for_each(|(link, to)| image.archive.link(link, to));
    CONFIGURATION.iter().for_each(|(path, text)| image.archive.file(path, 0o644, text.as_bytes()));
    image.archive.file("init", 0o755, include_bytes!("init.sh"));
    for program in PROGRAMS {
        let file = sh::which(program).with_context(|| format!("`{program}` is not installed"))?;
        image.program(&file, &file, false)?;
    }
    for file in STDBUF.iter().map(Path::new).filter(|file| file.is_file()) {
        image.program(file, file, false)?;
    }
    image.program(tests, Path::new(TESTS), true)?;
    image.program(tcptrace, place, true)?;
    Ok(image.archive.finish())
}

/// What differs from guest to guest: its kernel's modules, and the plan that `/init` follows.
pub fn own(modules: &[Module], plan: &str) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("plan", 0o644, plan.as_bytes());
    let order: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    archive.file("modules/order", 0o644, order.join("\n").as_bytes());
    for module in modules {
        archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.content);
    }
    archive.finish()
}

#[derive(Default)]
struct Image {
    archive: Archive,
    there: BTreeSet<PathBuf>,
}

impl Image {
    /// `dir` and what is above it.
    fn directory(&mut self, dir: &Path) {
        let mut above: Vec<&Path> = dir.ancestors().filter(|dir| dir.parent().is_some()).collect();
        above.reverse();
        for dir in above {
            if self.there.insert(dir.to_owned()) {
                self.archive.directory(&dir.to_string_lossy());
            }
        }
    }

    /// `file` at the path `place`, with the libraries that it needs; without debug information if `strip`.
    fn program(&mut self, file: &Path, place: &Path, strip: bool) -> Result<()> {
        self.file(file, place, strip)?;
        let ldd = Command::new("ldd").arg(file).output().context("ldd")?;
        for library in libraries(&String::from_utf8_lossy(&ldd.stdout)) {
            self.file(Path::new(library), Path::new(library), false)?;
        }
        Ok(())
    }

    fn file(&mut self, file: &Path, place: &Path, strip: bool) -> Result<()> {
        let place = merged(place);
        if !self.there.insert(place.clone()) {
            return Ok(());
        }
        let content = if strip { stripped(file)? } else { fs::read(file)? };
        let mode = fs::metadata(file)?.permissions().mode() & 0o777;
        if let Some(dir) = place.parent() {
            self.directory(dir);
        }
        self.archive.file(&place.to_string_lossy(), mode, &content);
        Ok(())
    }
}

/// A path inside the archive: relative, and below usr/ what is there on a system with a merged /usr.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if LINKS.iter().any(|(link, _)| path.starts_with(link)) { Path::new("usr").join(path) } else { path.to_owned() }
}

fn stripped(file: &Path) -> Result<Vec<u8>> {
    let copy = tempfile(file)?;
    sh::run(Command::new("strip").arg("-o").arg(&copy).arg(file))?;
    let content = fs::read(&copy)?;
    fs::remove_file(&copy)?;
    Ok(content)
}

fn tempfile(file: &Path) -> Result<PathBuf> {
    let name = file.file_name().context("a file")?.to_string_lossy();
    let dir = sh::target_dir()?.join("vm");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{name}.{}", std::process::id())))
}

/// Absolute paths in what ldd prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the loader without an arrow.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_absolute_paths() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<&str> = libraries(ldd).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tnot a dynamic executable\n").count(), 0);
    }

    #[test]
    fn everything_is_below_usr() {
        assert_eq!(merged(Path::new("/lib64/ld.so")), Path::new("usr/lib64/ld.so"));
        assert_eq!(merged(Path::new("/usr/bin/ss")), Path::new("usr/bin/ss"));
        assert_eq!(merged(Path::new("/library/x")), Path::new("library/x"));
    }
}
