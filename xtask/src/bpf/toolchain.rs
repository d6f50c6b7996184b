//! A compiler that has `core` for the kernel programs' target, and the linker that fits it: find them or install them.
//!
//! Debian's compiler comes with such a `core` and is preferred; a rustup nightly with rust-src builds its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::TARGET;
use crate::{apt, sh};

const LINKER_VERSION: &str = "0.13.0";
/// Versions of LLVM that this bpf-linker can be built for, oldest first.
const LINKER_LLVM: [u32; 3] = [21, 22, 23];

/// (compiler, its `core` for BPF, its clippy): Debian names them `-web` where a newer Rust than the release's own is kept for
/// browsers.
const DEBIAN: [[&str; 3]; 2] =
    [["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"], ["rustc", "libstd-rust-dev-bpf", "rust-clippy"]];

/// Everything that builds the objects.
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// `rustc --version`.
    pub version: String,
    /// The compiler's LLVM, for example `22.1.8`.
    pub llvm: String,
    /// Where its standard library's sources were, as they appear in debug information.
    pub library: PathBuf,
    /// Its own cargo, if `core` has to be built.
    pub cargo: Option<PathBuf>,
    /// Its clippy, if there is one.
    pub clippy: Option<PathBuf>,
    /// Directory of bpf-linker.
    pub linker_dir: PathBuf,
    /// bpf-linker's version.
    pub linker_version: String,
    /// bpf-linker's LLVM, and objcopy's.
    pub linker_llvm: String,
    /// llvm-objcopy.
    pub objcopy: PathBuf,
}

impl Toolchain {
    /// One line: compiler and linker, as in `BUILD.toml`.
    pub fn describe(&self) -> String {
        let Self { version, llvm, linker_version, linker_llvm, .. } = self;
        format!("{version} with LLVM {llvm}, bpf-linker {linker_version} with LLVM {linker_llvm}")
    }
}

/// Find a toolchain; with `install`, get what is missing (Debian packages, and bpf-linker into the target directory).
/// None: nothing is here and nothing was to be installed.
///
/// # Errors
/// An installation failed, or what is here does not answer.
pub fn find(install: bool) -> Result<Option<Toolchain>> {
    let mut compiler = match debian()? {
        Some(compiler) => Some(compiler),
        None => nightly(),
    };
    if compiler.is_none() && install {
        install_debian()?;
        compiler = Some(debian()?.context("Debian's compiler has no core for BPF")?);
    }
    let Some(compiler) = compiler else { return Ok(None) };
    let Some(llvm) = linker_llvm(compiler.llvm_major()?, install)? else { return Ok(None) };
    let Some(linker_dir) = linker(llvm, install)? else { return Ok(None) };
    let bin = llvm_dir(llvm).join("bin");
    let linker_version = sh::read(Command::new(linker_dir.join("bpf-linker")).arg("--version"))?;
    Ok(Some(Toolchain {
        version: compiler.version,
        llvm: compiler.llvm,
        library: compiler.library,
        cargo: compiler.cargo,
        clippy: compiler.clippy,
        rustc: compiler.rustc,
        linker_dir,
        // There is always a last word.
        linker_version: linker_version.rsplit(' ').next().unwrap_or_default().to_owned(),
        linker_llvm: sh::read(Command::new(bin.join("llvm-config")).arg("--version"))?,
        objcopy: bin.join("llvm-objcopy"),
    }))
}

struct Compiler {
    rustc: PathBuf,
    version: String,
    llvm: String,
    library: PathBuf,
    cargo: Option<PathBuf>,
    clippy: Option<PathBuf>,
}

impl Compiler {
    fn of(rustc: &Path, cargo: Option<PathBuf>, clippy: &Path, library: impl Fn(&str) -> PathBuf) -> Result<Self> {
        let verbose = sh::read(Command::new(rustc).arg("-vV"))?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:").context("rustc -vV: release")?;
        Ok(Self {
            rustc: rustc.to_owned(),
            version: verbose.lines().next().context("rustc -vV printed nothing")?.to_owned(),
            llvm: field("LLVM version:").context("rustc -vV: LLVM version")?.to_owned(),
            library: library(release),
            cargo,
            clippy: clippy.is_file().then(|| clippy.to_owned()),
        })
    }

    fn llvm_major(&self) -> Result<u32> {
        self.llvm.split('.').next().and_then(|major| major.parse().ok()).context("LLVM version")
    }
}

/// Debian's compiler, if it and its `core` for BPF are installed. Never rustup's, which has none.
fn debian() -> Result<Option<Compiler>> {
    let rustc = Path::new("/usr/bin/rustc");
    let core = Path::new("/usr/lib/rustlib").join(TARGET).join("lib");
    if !rustc.is_file() || !holds(&core, "libcore-") {
        return Ok(None);
    }
    let library = |release: &str| Path::new("/usr/src").join(format!("rustc-{release}"));
    Compiler::of(rustc, None, Path::new("/usr/bin/clippy-driver"), library).map(Some)
}

/// Rustup's nightly, if it is installed with rust-src and works; otherwise Debian's is looked for.
fn nightly() -> Option<Compiler> {
    let sysroot = sh::read(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"])).ok()?;
    let bin = Path::new(&sysroot).join("bin");
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust");
    if !source.join("library/core").is_dir() {
        return None;
    }
    let driver = bin.join("clippy-driver");
    Compiler::of(&bin.join("rustc"), Some(bin.join("cargo")), &driver, |_| source.clone()).ok()
}

fn holds(dir: &Path, prefix: &str) -> bool {
    let mut entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
}

fn install_debian() -> Result<()> {
    let offered = || DEBIAN.iter().find(|[_, core, _]| apt::offers(core));
    if offered().is_none() && sh::which("apt-get").is_some() {
        apt::update()?;
    }
    let packages = offered().context(
        "no compiler for the kernel programs: this system offers no Debian package with core for BPF. \
         Install one with `rustup toolchain install nightly --component rust-src`",
    )?;
    apt::ensure(&packages.map(|name| (name, None)))
}

fn llvm_dir(major: u32) -> PathBuf {
    format!("/usr/lib/llvm-{major}").into()
}

/// Install Debian's clippy beside Debian's compiler, where that one is used and the archive has it.
///
/// # Errors
/// The installation failed.
pub fn install_clippy() -> Result<()> {
    let Some(compiler) = debian()? else { return Ok(()) };
    if compiler.clippy.is_some() {
        return Ok(());
    }
    let installed = |package: &str| sh::succeeds(Command::new("dpkg").args(["-s", package]));
    match DEBIAN.iter().find(|[rustc, ..]| installed(rustc)) {
        Some([.., clippy]) if apt::offers(clippy) => apt::install(&[clippy]),
        _ => Ok(()),
    }
}

/// The LLVM for bpf-linker: not older than the compiler's, or it could not read the compiler's output; the oldest such, for one
/// that is too new may drop what the compiler's wrote.
fn linker_llvm(compiler: u32, install: bool) -> Result<Option<u32>> {
    let fit = || LINKER_LLVM.into_iter().filter(|&major| major >= compiler);
    let complete = |dir: &Path| {
        ["include/llvm-c/Core.h", "bin/llvm-config", "bin/llvm-objcopy"].iter().all(|f| dir.join(f).exists())
    };
    if let Some(major) = fit().find(|&major| complete(&llvm_dir(major))) {
        return Ok(Some(major));
    }
    if !install {
        return Ok(None);
    }
    let package = |major: u32| format!("llvm-{major}-dev");
    let offered = fit().find(|&major| apt::offers(&package(major)));
    let major = offered.with_context(|| {
        format!(
            "no LLVM for bpf-linker {LINKER_VERSION}: this system offers no llvm-N-dev with N from {compiler} to 23"
        )
    })?;
    apt::install(&[&package(major)])?;
    Ok(Some(major))
}

/// The directory of bpf-linker, built for that LLVM into the target directory.
fn linker(llvm: u32, install: bool) -> Result<Option<PathBuf>> {
    let tools = sh::target_dir()?.join("tools");
    let place = tools.join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}"));
    let dir = place.join("bin");
    if sh::succeeds(Command::new(dir.join("bpf-linker")).arg("--version")) {
        return Ok(Some(dir));
    }
    if !install {
        return Ok(None);
    }
    let build = tools.join("build");
    eprintln!("building bpf-linker {LINKER_VERSION} for LLVM {llvm}");
    let feature = format!("llvm-{llvm}");
    sh::run(
        sh::cargo()
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"])
            .args(["--features", &feature, "--no-track", "--quiet", "--root"])
            .arg(&place)
            .env("LLVM_PREFIX", llvm_dir(llvm))
            .env("CARGO_TARGET_DIR", &build)
            .env_remove("RUSTFLAGS"),
    )?;
    fs::remove_dir_all(build)?;
    ensure!(dir.join("bpf-linker").is_file(), "cargo installed no bpf-linker");
    Ok(Some(dir))
}
