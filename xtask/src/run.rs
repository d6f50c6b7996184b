//! `cargo xtask run`: build tcptrace as the person who asks, run it as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::sh;

/// Build the release binary and become it; its exit status is this program's.
///
/// # Errors
/// The build failed, or the binary cannot be started as root. Does not return otherwise.
pub fn run(args: &[OsString]) -> Result<bool> {
    sh::run(sh::cargo().args(["build", "--release", "--package", "tcptrace"]))?;
    let binary = sh::target_dir()?.join("release/tcptrace");
    let mut command = sh::as_root(&binary)?;
    if args.is_empty() {
        command.arg("trace");
    }
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("cannot start `{}`", sh::shown(&command)))
}
