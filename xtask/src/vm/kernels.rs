//! Which kernels are tested: `kernels.toml` in, [`Kernel`]s out; and which of a suite's packages is the newest.

use std::cmp::Ordering;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// One entry of `kernels.toml`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// What it is called on the command line.
    pub name: String,
    /// Debian suites that have it.
    pub suites: Vec<String>,
    /// Package with one `*` in its name.
    pub package: String,
    /// What is asserted.
    pub expect: Expect,
    /// Features that tests may miss, as they call them.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// What tcptrace does on a kernel.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The live tests pass.
    Works,
    /// Status 4 and one line.
    Refused,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    kernel: Vec<Kernel>,
}

/// The committed list.
///
/// # Errors
/// It is not as it should be, or has no kernel called `name`.
pub fn chosen(name: Option<&str>) -> Result<Vec<Kernel>> {
    choose(parse(include_str!("kernels.toml"))?, name)
}

fn choose(all: Vec<Kernel>, name: Option<&str>) -> Result<Vec<Kernel>> {
    let Some(name) = name else { return Ok(all) };
    match all.iter().find(|kernel| kernel.name == name) {
        Some(kernel) => Ok(vec![kernel.clone()]),
        None => {
            let names: Vec<&str> = all.iter().map(|kernel| kernel.name.as_str()).collect();
            bail!("no kernel is called `{name}`: {}", names.join(", "))
        }
    }
}

fn parse(text: &str) -> Result<Vec<Kernel>> {
    let list: List = toml::from_str(text).context("kernels.toml")?;
    for kernel in &list.kernel {
        ensure!(kernel.package.split('*').count() == 2, "kernels.toml: `{}` wants one `*`", kernel.package);
        ensure!(!kernel.suites.is_empty(), "kernels.toml: {} has no suite", kernel.name);
    }
    Ok(list.kernel)
}

/// The newest of those `names` that `pattern` (with one `*`) matches: numbers in them are compared as numbers.
pub fn newest<'a>(names: impl Iterator<Item = &'a str>, pattern: &str) -> Option<&'a str> {
    let (before, after) = pattern.split_once('*')?;
    names
        .filter(|name| {
            name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|middle| {
                // Flavours such as -rt or -unsigned begin with a letter.
                middle.starts_with(|c: char| c.is_ascii_digit()) && !middle.contains('-')
            })
        })
        .max_by(|a, b| compare(a, b))
}

fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_list_is_sound() {
        let all = chosen(None).expect("sound");
        let refused: Vec<_> = all.iter().filter(|k| k.expect == Expect::Refused).map(|k| k.name.as_str()).collect();
        assert_eq!(refused, ["5.10"]);
        assert_eq!(all.iter().filter(|k| k.expect == Expect::Works).count(), 3);
        assert_eq!(chosen(Some("6.12")).expect("there").len(), 1);
        let error = chosen(Some("2.6")).expect_err("not there").to_string();
        assert_eq!(error, "no kernel is called `2.6`: 5.10, 6.1, 6.12, newest");
    }

    #[test]
    fn mistakes_are_told() {
        let entry = |rest: &str| format!("[[kernel]]\nname = \"a\"\nsuites = [\"s\"]\nexpect = \"works\"\n{rest}\n");
        assert!(parse(&entry("package = \"linux-*\"")).is_ok());
        assert!(parse(&entry("package = \"linux\"")).is_err());
        assert!(parse(&entry("package = \"linux-*\"\nsuite = \"s\"")).is_err());
        assert!(parse(&entry("package = \"linux-*\"").replace("works", "flies")).is_err());
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-51-rt-cloud-amd64",
            "linux-image-6.12.9+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-7.0.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
        ];
        let newest = |pattern| newest(names.into_iter(), pattern);
        assert_eq!(newest("linux-image-6.1.0-*-cloud-amd64"), Some(names[1]));
        assert_eq!(newest("linux-image-6.12.*+deb13-cloud-amd64"), Some(names[4]));
        assert_eq!(newest("linux-image-*+deb13-cloud-amd64"), Some(names[5]));
        assert_eq!(newest("linux-image-5.*-cloud-amd64"), None);
    }
}
