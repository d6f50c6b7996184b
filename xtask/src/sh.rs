//! Child processes: run, capture, elevate. A failure names the command and how it ended.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// The workspace's directory: cargo says where xtask's manifest is.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Cargo's target directory, wherever it was set to: this program runs from `<target>/<profile>/xtask`.
///
/// # Errors
/// The running binary's path cannot be read.
pub fn target_dir() -> Result<PathBuf> {
    let exe = env::current_exe().context("where this binary is")?;
    Ok(exe.ancestors().nth(2).context("this binary is not inside a target directory")?.to_owned())
}

/// The cargo that runs this task, started in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for this program by `cargo run`; a child cargo makes its own.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Run to the end; its output goes where ours goes.
///
/// # Errors
/// It could not be started, or ended with another status than 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// Run to the end and return its standard output, trimmed. Its messages are shown only on failure.
///
/// # Errors
/// As [`run`]; also output that is not UTF-8.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether it can be started and ends with status 0. Silent.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Where an executable is: in PATH, or where administrators' programs are on Debian, which not every PATH names.
pub fn which(name: &str) -> Option<PathBuf> {
    // Without a PATH there are the two.
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs as root: itself when this process does, else through sudo, which keeps the environment.
///
/// # Errors
/// Neither root nor sudo.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = which("sudo") else {
        let program = program.as_ref().to_string_lossy().into_owned();
        bail!("`{program}` needs root, and there is no sudo: install it, or run this as root (`su -`)");
    };
    let mut command = Command::new(sudo);
    command.arg("-E").arg("--").arg(program);
    Ok(command)
}

/// PATH with `dirs` in front.
///
/// # Errors
/// A directory's name holds a colon.
pub fn path_with(dirs: &[PathBuf]) -> Result<OsString> {
    // Without a PATH there are `dirs`.
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(dirs.iter().cloned().chain(env::split_paths(&path))).context("PATH")
}
