//! `cargo xtask bpf`: kernel programs' source in, `tcptrace/bpf/NAME.o` and `BUILD.toml` out; or the proof that they agree.
//!
//! The objects are committed, so that stable Rust alone builds tcptrace. They come out the same, byte for byte, from any
//! directory and any cargo home, as long as compiler and linker are the recorded ones.

mod manifest;
mod sources;
mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use manifest::Manifest;
use serde_json::Value;
pub use toolchain::{Toolchain, find as find_toolchain, install_clippy};

use crate::sh;

const PACKAGE: &str = "tcptrace-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// Where the committed objects are, from the workspace.
const COMMITTED: &str = "tcptrace/bpf";

/// Compiler flags, part of the source hash. `debuginfo=2` makes the type information that `#[btf_map]` needs. The linker keeps copies in
/// an order that only network cards' compilers care about; for that it makes every clearing of a few bytes the call of a loop over
/// bytes, each turn of which the verifier follows: a quarter of all that it did.
const FLAGS: [&str; 4] = [
    "--cfg=bpf_target_arch=\"x86_64\"",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
];

/// What is cut away after linking. DWARF is of no use to the kernel. `.BTF.ext` is line numbers for verifier messages, more than
/// half of what is left; no program here needs it to load (no CO-RE relocations, no global functions). The uncut object stays
/// under the target directory.
const STRIP: [&str; 5] = ["--strip-debug", "--remove-section", ".BTF.ext", "--remove-section", ".rel.BTF.ext"];

/// How far `check` goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Compare hashes; needs no toolchain.
    Hashes,
    /// Also rebuild.
    Rebuild,
}

/// What `check` found; anything else is an error.
pub enum Checked {
    /// The committed objects belong to this source.
    Same,
    /// They belong to this source, but another compiler or linker is here than the recorded one, so the bytes cannot be compared:
    /// the tests have to run with the objects in this directory too.
    Rebuilt(PathBuf),
}

/// Build every object and write it, with `BUILD.toml`, to `tcptrace/bpf`.
///
/// # Errors
/// No toolchain can be had, or the programs do not build.
pub fn build() -> Result<()> {
    let toolchain = find_toolchain(true)?.context("no compiler for the kernel programs")?;
    let fresh = compile(&toolchain)?;
    let committed = sh::root().join(COMMITTED);
    fs::create_dir_all(&committed)?;
    for old in objects_in(&committed)? {
        fs::remove_file(old)?;
    }
    for object in objects_in(&fresh)? {
        let name = object.file_name().context("object")?;
        let size = fs::copy(&object, committed.join(name))?;
        eprintln!("{COMMITTED}/{}: {size} bytes", name.display());
    }
    let manifest = Manifest::of(&toolchain, sources::hash()?, &committed)?;
    fs::write(committed.join(manifest::FILE), manifest.to_toml())?;
    Ok(())
}

/// Prove that the committed objects come from this source.
///
/// # Errors
/// They do not, or it cannot be found out.
pub fn check(depth: Depth) -> Result<Checked> {
    let committed = sh::root().join(COMMITTED);
    let recorded = Manifest::read(&committed.join(manifest::FILE))?;
    let again = "run `cargo xtask bpf` and commit what it writes";
    ensure!(
        recorded.sources == sources::hash()?,
        "the kernel programs' sources, locked dependencies or build flags are not those of {COMMITTED}: {again}"
    );
    ensure!(
        recorded.objects == manifest::hashes(&committed)?,
        "an object in {COMMITTED} is not the one in {}: {again}",
        manifest::FILE
    );
    if depth == Depth::Hashes {
        return Ok(Checked::Same);
    }
    let toolchain = find_toolchain(true)?.context("no compiler for the kernel programs")?;
    let fresh = compile(&toolchain)?;
    if !recorded.built_by(&toolchain) {
        eprintln!(
            "recorded: {}; here: {}: the bytes may differ, so the kernel tests have to run with the rebuilt objects: \
             TCPTRACE_BPF_DIR={}",
            recorded.built_with(),
            toolchain.describe(),
            fresh.display()
        );
        return Ok(Checked::Rebuilt(fresh));
    }
    let rebuilt = manifest::hashes(&fresh)?;
    for (name, hash) in &rebuilt {
        match recorded.objects.get(name) {
            Some(same) if same == hash => {}
            _ => bail!("{COMMITTED}/{name}.o is not what its source builds to ({}): {again}", fresh.display()),
        }
    }
    ensure!(rebuilt.len() == recorded.objects.len(), "{COMMITTED} holds an object that no source builds: {again}");
    eprintln!("{} object(s), the same byte for byte", rebuilt.len());
    Ok(Checked::Same)
}

/// A cargo command with everything that the kernel programs' target needs.
///
/// # Errors
/// The workspace's metadata or the toolchain's directory cannot be read.
pub fn cargo(toolchain: &Toolchain, verb: &str, more_flags: &[&str]) -> Result<Command> {
    let mut command = sh::cargo();
    if let Some(own) = &toolchain.cargo {
        command = Command::new(own);
        command.current_dir(sh::root());
    }
    let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
    for (from, to) in [(sh::root(), "/src"), (cargo_home()?, "/cargo"), (toolchain.library.clone(), "/rust")] {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    flags.extend(more_flags.iter().map(|&flag| flag.to_owned()));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_BUILD_") || name.starts_with("RUSTC_") {
            command.env_remove(name);
        }
    }
    command
        .args([verb, "--package", PACKAGE, "--bins", "--release", "--locked", "--ignore-rust-version"])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(sh::target_dir()?.join("bpf/cargo"))
        .env("RUSTC", &toolchain.rustc)
        .env("PATH", sh::path_with(std::slice::from_ref(&toolchain.linker_dir))?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_INCREMENTAL", "0");
    if toolchain.cargo.is_some() {
        command.arg("-Zbuild-std=core");
    } else {
        // Unstable features on a stable compiler, for these crates alone: aya_ebpf's own, and asm_experimental_arch.
        let crates = std::iter::once("aya_ebpf".to_owned()).chain(binaries()?);
        command.env("RUSTC_BOOTSTRAP", crates.map(|name| name.replace('-', "_")).collect::<Vec<_>>().join(","));
    }
    Ok(command)
}

/// Build and cut the objects; the directory that holds nothing else.
fn compile(toolchain: &Toolchain) -> Result<PathBuf> {
    sh::run(&mut cargo(toolchain, "build", &[])?)?;
    let built = sh::target_dir()?.join("bpf/cargo").join(TARGET).join("release");
    let out = sh::target_dir()?.join("bpf/objects");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    for name in binaries()? {
        let object = out.join(format!("{name}.o"));
        sh::run(Command::new(&toolchain.objcopy).args(STRIP).arg(built.join(&name)).arg(&object))?;
    }
    Ok(out)
}

/// Names of the kernel crate's binaries, each an object.
fn binaries() -> Result<Vec<String>> {
    let metadata = sh::read(sh::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata: packages")?;
    let package = packages.iter().find(|p| p["name"] == PACKAGE).context("cargo metadata: the kernel crate")?;
    let targets = package["targets"].as_array().context("cargo metadata: targets")?;
    let binaries = targets.iter().filter(|t| t["kind"].as_array().is_some_and(|kinds| kinds.contains(&"bin".into())));
    let mut names: Vec<String> = binaries.filter_map(|t| t["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    ensure!(!names.is_empty(), "the kernel crate has no binaries");
    Ok(names)
}

fn objects_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut objects: Vec<PathBuf> = fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    objects.retain(|path| path.extension().is_some_and(|extension| extension == "o"));
    objects.sort();
    Ok(objects)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"))
}
