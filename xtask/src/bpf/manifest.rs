//! `BUILD.toml`: what the committed objects were built from and with.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{FLAGS, STRIP, Toolchain, objects_in};
use crate::sh;

/// Its name, beside the objects.
pub const FILE: &str = "BUILD.toml";

/// Its content.
pub struct Manifest {
    /// `rustc --version`, whole.
    rustc: String,
    /// LLVM of the compiler.
    rustc_llvm: String,
    /// Version of bpf-linker.
    linker: String,
    /// LLVM of bpf-linker and of llvm-objcopy.
    linker_llvm: String,
    /// [`super::sources::hash`].
    pub sources: String,
    /// Object name without `.o` → SHA-256.
    pub objects: BTreeMap<String, String>,
}

/// SHA-256 of every object in a directory, by name without `.o`.
///
/// # Errors
/// The directory cannot be read, or there is no sha256sum.
pub fn hashes(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for object in objects_in(dir)? {
        let line = sh::read(Command::new("sha256sum").arg(&object))?;
        let hash = line.split_whitespace().next().context("sha256sum printed nothing")?.trim_start_matches('\\');
        let name = object.file_stem().context("object")?.to_string_lossy().into_owned();
        found.insert(name, hash.to_owned());
    }
    Ok(found)
}

impl Manifest {
    /// Describe the objects in `dir`, just built by `toolchain`.
    ///
    /// # Errors
    /// As [`hashes`].
    pub fn of(toolchain: &Toolchain, sources: String, dir: &Path) -> Result<Self> {
        Ok(Self {
            rustc: toolchain.version.clone(),
            rustc_llvm: toolchain.llvm.clone(),
            linker: toolchain.linker_version.clone(),
            linker_llvm: toolchain.linker_llvm.clone(),
            sources,
            objects: hashes(dir)?,
        })
    }

    /// Whether this toolchain must build the same bytes.
    pub fn built_by(&self, toolchain: &Toolchain) -> bool {
        self.rustc == toolchain.version
            && self.rustc_llvm == toolchain.llvm
            && self.linker == toolchain.linker_version
            && self.linker_llvm == toolchain.linker_llvm
    }

    /// One line: compiler and linker.
    pub fn built_with(&self) -> String {
        let Self { rustc, rustc_llvm, linker, linker_llvm, .. } = self;
        format!("{rustc} with LLVM {rustc_llvm}, bpf-linker {linker} with LLVM {linker_llvm}")
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let Self { rustc, rustc_llvm, linker, linker_llvm, sources, objects } = self;
        let quoted = |words: &[&str]| words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "# Written by `cargo xtask bpf`: what the objects beside this file were built with and from.\n\n\
             [compiler]\nrustc = {rustc:?}\nrustc-llvm = {rustc_llvm:?}\nflags = [{}]\n\n\
             [linker]\nbpf-linker = {linker:?}\nlinker-llvm = {linker_llvm:?}\nobjcopy = [{}]\n\n\
             [sources]\nsources = {sources:?}\n\n[sha256]\n",
            quoted(&FLAGS),
            quoted(&STRIP),
        );
        for (name, hash) in objects {
            writeln!(text, "{name} = {hash:?}").expect("a String takes everything");
        }
        text
    }

    /// Read the file back: the lines that [`Manifest::to_toml`] writes, by their keys.
    ///
    /// # Errors
    /// It cannot be read, or a key is missing.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let (head, objects) = text.split_once("[sha256]").context("no [sha256]")?;
        let pair = |line: &str| {
            let (key, value) = line.split_once(" = ")?;
            Some((key.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
        };
        let head: BTreeMap<String, String> = head.lines().filter_map(pair).collect();
        let get = |key: &str| head.get(key).cloned().with_context(|| format!("no {key}"));
        Ok(Self {
            rustc: get("rustc")?,
            rustc_llvm: get("rustc-llvm")?,
            linker: get("bpf-linker")?,
            linker_llvm: get("linker-llvm")?,
            sources: get("sources")?,
            objects: objects.lines().filter_map(pair).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let manifest = Manifest {
            rustc: "rustc 1.96.0 (0123 2026-05-25)".into(),
            rustc_llvm: "22.1.8".into(),
            linker: "0.13.0".into(),
            linker_llvm: "22.1.7".into(),
            sources: "ab12".into(),
            objects: [("core".to_owned(), "cd34".to_owned()), ("fentry".to_owned(), "ef56".to_owned())].into(),
        };
        let read = Manifest::parse(&manifest.to_toml()).unwrap();
        assert_eq!(read.built_with(), manifest.built_with());
        assert_eq!(read.sources, "ab12");
        assert_eq!(read.objects, manifest.objects);
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = Manifest::parse("[compiler]\nrustc = \"x\"\n[sha256]\n").err().unwrap();
        assert_eq!(error.to_string(), "no rustc-llvm");
    }
}
