//! One hash over everything that the kernel objects are made of.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{FLAGS, PACKAGE, STRIP};
use crate::sh;

/// Crates of this workspace that the objects are made of.
const CRATES: [&str; 2] = [PACKAGE, "tcptrace-common"];
/// Tables of the workspace's manifest that change what the compiler does.
const TABLES: [&str; 3] = ["[workspace.package]", "[profile.release]", "[profile.release.package.tcptrace-ebpf]"];

/// SHA-256 over the crates' files, the locked versions of all their dependencies, the manifest tables that matter, and the flags.
///
/// # Errors
/// A file cannot be read, or there is no sha256sum.
pub fn hash() -> Result<String> {
    let root = sh::root();
    let mut files = Vec::new();
    for name in CRATES {
        list(&root.join(name), &mut files)?;
    }
    files.sort();
    let relative = files.iter().map(|file| file.strip_prefix(&root)).collect::<Result<Vec<_>, _>>()?;
    let mut text = sh::read(Command::new("sha256sum").current_dir(&root).args(relative))?;
    text += &locked(&fs::read_to_string(root.join("Cargo.lock"))?)?;
    text += &tables(&fs::read_to_string(root.join("Cargo.toml"))?);
    text += &FLAGS.join("\n");
    text += &STRIP.join("\n");
    sum(&text)
}

fn sum(text: &str) -> Result<String> {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("sha256sum")?;
    child.stdin.take().context("sha256sum")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    // Too short if there is none.
    let hash = String::from_utf8(output.stdout)?.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(hash.len() == 64, "sha256sum printed no hash");
    Ok(hash)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The lock file's entries of the kernel crate and of everything that it depends on, in the file's order.
fn locked(lock: &str) -> Result<String> {
    let entries: Vec<&str> = lock.split("[[package]]").skip(1).collect();
    let name = |entry: &str| {
        let line = entry.lines().find(|line| line.starts_with("name = "))?;
        Some(line.trim_start_matches("name = ").trim_matches('"').to_owned())
    };
    let mut wanted = BTreeSet::from([PACKAGE.to_owned()]);
    loop {
        let known = wanted.len();
        for entry in &entries {
            if name(entry).is_some_and(|name| wanted.contains(&name)) {
                // `"name",`, or `"name version",` where there are several versions: then all of them are taken.
                let lines = entry.lines().filter_map(|line| line.strip_prefix(" \""));
                wanted.extend(lines.filter_map(|line| line.split([' ', '"']).next().map(str::to_owned)));
            }
        }
        if wanted.len() == known {
            break;
        }
    }
    ensure!(wanted.len() > 1, "Cargo.lock does not name what the kernel crate depends on");
    Ok(entries.iter().filter(|entry| name(entry).is_some_and(|name| wanted.contains(&name))).copied().collect())
}

/// The manifest's [`TABLES`].
fn tables(manifest: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = TABLES.contains(&line.trim());
        }
        if inside && !line.trim().is_empty() {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"clap\"\nversion = \"4.0.0\"\n\n\
        [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\ndependencies = [\n \"cty\",\n]\n\n\
        [[package]]\nname = \"cty\"\nversion = \"0.2.2\"\n\n\
        [[package]]\nname = \"tcptrace-ebpf\"\nversion = \"0.1.0\"\ndependencies = [\n \"aya-ebpf 0.2.1\",\n]\n";

    #[test]
    fn the_lock_file_counts_as_far_as_the_kernel_crate_depends_on_it() {
        let found = locked(LOCK).unwrap();
        assert!(found.contains("aya-ebpf") && found.contains("cty") && !found.contains("clap"), "{found}");
        assert_eq!(found, locked(&LOCK.replace("4.0.0", "4.0.1")).unwrap());
        assert_ne!(found, locked(&LOCK.replace("0.2.2", "0.2.3")).unwrap());
    }

    #[test]
    fn a_lock_file_without_the_kernel_crate_is_an_error() {
        assert!(locked("version = 4\n").is_err());
    }

    #[test]
    fn only_tables_that_change_the_objects_count() {
        let manifest = "[workspace]\nmembers = []\n[profile.release]\nlto = true\n\n[profile.dev]\ndebug = 0\n";
        assert_eq!(tables(manifest), "[profile.release]\nlto = true\n");
    }

    #[test]
    fn the_hash_is_sha256() {
        assert_eq!(sum("abc").unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
