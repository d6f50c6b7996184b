//! Kernel packages of other Debian suites: the machine's own mirror in, an unpacked kernel out. apt works in a directory of its own
//! here, and nothing is installed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::kernels::{Kernel, newest};
use crate::sh;

/// Older package lists are fetched again.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Keys of every suite that Debian still serves (package debian-archive-keyring).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
pub struct Unpacked {
    /// Its package, for example `linux-image-6.1.0-50-cloud-amd64`.
    pub package: String,
    /// Package version, for example `6.1.176-1`.
    pub version: String,
    /// The bootable image.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// The newest release of `kernel`, fetched unless it is in `cache`, unpacked there.
///
/// # Errors
/// This machine has no Debian mirror, the mirror lacks the suite or the package, or apt fails.
pub fn fetch(kernel: &Kernel, cache: &Path) -> Result<Unpacked> {
    let apt = Apt::open(kernel, &cache.join("apt").join(&kernel.name))?;
    let names = apt.read("apt-cache", &["pkgnames", "linux-image-"])?;
    let package = newest(names.lines(), &kernel.package)
        .with_context(|| format!("{} have no {}", kernel.suites.join(", "), kernel.package))?;
    let show = apt.read("apt-cache", &["show", "--no-all-versions", package])?;
    let version = show.lines().find_map(|line| line.strip_prefix("Version: ")).context("apt-cache show: Version")?;
    let release = package.strip_prefix("linux-image-").context("the package of an image")?;
    let place = cache.join("kernels").join(format!("{release}_{}", version.replace(['~', ':'], "-")));
    if !place.is_dir() {
        // From 7.0 on the image package only depends on those that hold image and modules.
        let depends = apt.read("apt-cache", &["depends", "--important", package])?;
        let mut packages: Vec<&str> = depends
            .lines()
            .filter_map(|l| l.trim().strip_prefix("Depends: "))
            .filter(|p| p.ends_with(release))
            .collect();
        packages.push(package);
        eprintln!("fetching {package} {version}");
        let debs = apt.dir.join("debs");
        remove(&debs)?;
        fs::create_dir_all(&debs)?;
        sh::run(apt.command("apt-get").args(["-qq", "download"]).args(&packages).current_dir(&debs))?;
        let half = place.with_extension("part");
        remove(&half)?;
        fs::create_dir_all(&half)?;
        for deb in fs::read_dir(&debs)? {
            sh::run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&half))?;
        }
        remove(&debs)?;
        fs::rename(&half, &place)?;
    }
    let modules = ["lib/modules", "usr/lib/modules"].map(|dir| place.join(dir).join(release));
    let modules = modules.into_iter().find(|dir| dir.is_dir()).context("the package has no modules")?;
    // Beside the modules from 7.0 on.
    let images = [place.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|file| file.is_file()).context("the package has no vmlinuz")?;
    Ok(Unpacked { package: package.to_owned(), version: version.to_owned(), image, modules })
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// apt with a state of its own.
struct Apt {
    dir: PathBuf,
    options: Vec<OsString>,
}

impl Apt {
    /// Package lists of the kernel's suites, from the machine's mirror.
    fn open(kernel: &Kernel, dir: &Path) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let text = sh::read(Command::new("apt-get").args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)"]))
            .context("this machine's Debian mirror")?;
        let own: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let sources = sources(&own, &kernel.suites);
        ensure!(!sources.is_empty(), "apt knows no Debian mirror here");
        let at = |name: &str| dir.join(name).into_os_string();
        let option = |name: &str, value: OsString| {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            option
        };
        let options = vec![
            option("Dir::State", dir.into()),
            option("Dir::State::lists", at("lists")),
            option("Dir::State::status", at("status")),
            option("Dir::Cache", at("cache")),
            option("Dir::Etc::sourcelist", at("sources.list")),
            option("Dir::Etc::sourceparts", at("parts")),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            // A suite that is out of support is not signed anew.
            "Acquire::Check-Valid-Until=false".into(),
        ];
        let apt = Self { dir: dir.to_owned(), options };
        fs::write(dir.join("status"), "")?;
        let (list, stamp) = (dir.join("sources.list"), dir.join("updated"));
        let same = fs::read_to_string(&list).is_ok_and(|before| before == sources);
        let age = fs::metadata(&stamp).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if !same || age.is_none_or(|age| age > FRESH) {
            fs::write(&list, &sources)?;
            // A suite without a security suite on this mirror is a warning; none at all shows as a missing package.
            let updated = apt.command("apt-get").args(["-qq", "update"]).output().context("apt-get update")?;
            if updated.status.success() {
                fs::write(&stamp, "")?;
            } else {
                eprintln!("{}", String::from_utf8_lossy(&updated.stderr).trim());
            }
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }

    fn read(&self, program: &str, args: &[&str]) -> Result<String> {
        sh::read(self.command(program).args(args))
    }
}

/// A `sources.list` for `suites`: each from where the machine has its own suite of that kind (`…-security` or not), by suite.
fn sources(own: &BTreeMap<&str, &str>, suites: &[String]) -> String {
    let signed = if Path::new(KEYRING).exists() { format!(" signed-by={KEYRING}") } else { String::new() };
    let security = |suite: &str| suite.ends_with("-security");
    let mut text = String::new();
    for suite in suites {
        // The shortest name is the release itself, not its updates or backports.
        let same = own.iter().filter(|(own, _)| security(own) == security(suite));
        if let Some((_, uri)) = same.min_by_key(|(own, _)| own.len()) {
            text.push_str(&format!("deb [arch=amd64{signed}] {uri} {suite} main\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_come_from_the_same_place_as_the_machines_own() {
        let own = BTreeMap::from([
            ("bookworm", "http://a/debian/"),
            ("bookworm-security", "http://a/debian-security/"),
            ("bookworm-updates", "http://b/debian/"),
        ]);
        let text = sources(&own, &["trixie".to_owned(), "trixie-security".to_owned()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("] http://a/debian/ trixie main"), "{text}");
        assert!(lines[1].ends_with("] http://a/debian-security/ trixie-security main"), "{text}");
        assert_eq!(sources(&BTreeMap::new(), &["trixie".to_owned()]), "");
    }
}
