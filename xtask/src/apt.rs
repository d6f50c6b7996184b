//! Debian packages: install what is missing, nothing else.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sh;

/// A package, and the executable by which it is known to be there (on other distributions too), if it has one.
pub type Package = (&'static str, Option<&'static str>);

/// Install those of `packages` that are missing: as root directly, else through sudo.
///
/// # Errors
/// Something is missing and this is not a Debian, neither root nor sudo, or apt-get fails.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().filter(|package| !present(package)).map(|(name, _)| *name).collect();
    install(&missing)
}

/// Install packages that are known to be missing.
///
/// # Errors
/// As [`ensure`].
pub fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    ensure!(
        sh::which("apt-get").is_some(),
        "missing: {list}; this system has no apt-get: install them with its own package manager"
    );
    eprintln!("installing {list}");
    // Package lists may be absent or older than the archive; refreshing them first would slow every other run.
    if apt_install(missing).is_err() {
        update()?;
        apt_install(missing).with_context(|| format!("cannot install {list}"))?;
    }
    Ok(())
}

/// Whether the archive offers a package, by the lists as they are.
pub fn offers(package: &str) -> bool {
    sh::read(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
        .is_ok_and(|policy| policy.lines().any(|l| l.trim().starts_with("Candidate:") && !l.contains("(none)")))
}

/// Refresh the package lists.
///
/// # Errors
/// Neither root nor sudo, or apt-get fails.
pub fn update() -> Result<()> {
    sh::run(apt()?.args(["-q", "update"]))
}

fn present((package, executable): &Package) -> bool {
    executable.is_some_and(|name| sh::which(name).is_some())
        || sh::read(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
            .is_ok_and(|status| status == "installed")
}

fn apt() -> Result<Command> {
    let mut command = sh::as_root("env")?;
    // Run level 1: a web server that is only a test's peer must not start on this host.
    command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]);
    Ok(command)
}

fn apt_install(packages: &[&str]) -> Result<()> {
    sh::run(apt()?.args(["-q", "-y", "--no-install-recommends", "install"]).args(packages))
}
