//! Filter options ↔ text: from the command line, and to and from the `Start` fact of a recording.

use std::{fmt::Display, fs, os::unix::fs::MetadataExt, str::FromStr};

use super::{Filter, Sides, users};
use crate::model::{Role, State};

impl Filter {
    /// Demand one more option, by its long name without dashes; `value` is a comma-separated list. Values of an option that
    /// is given twice are alternatives.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "port" => list(&mut self.ports.either, value),
            "lport" => list(&mut self.ports.local, value),
            "rport" => list(&mut self.ports.remote, value),
            "addr" => list(&mut self.addrs.either, value),
            "laddr" => list(&mut self.addrs.local, value),
            "raddr" => list(&mut self.addrs.remote, value),
            "netns" => each(&mut self.netns, value, netns_number),
            "pid" => each(&mut self.pids, value, |s| match s.parse() {
                Ok(0) | Err(_) => Err(format!("`{s}` is not a process id")),
                Ok(pid) => Ok(pid),
            }),
            "follow" => match value {
                "children" => {
                    self.follow = true;
                    Ok(())
                }
                _ => Err(format!("`{value}` is not `children`")),
            },
            "comm" => each(&mut self.comms, value, |s| Ok(s.to_owned())),
            "uid" => each(&mut self.uids, value, users::uid),
            "cgroup" => each(&mut self.cgroups, value, |s| Ok(cgroup_path(s))),
            "container" => each(&mut self.containers, value, |s| Ok(s.to_owned())),
            "unit" => each(&mut self.units, value, |s| Ok(s.to_owned())),
            "role" => each(&mut self.roles, value, role),
            "state" => each(&mut self.states, value, state),
            "failed" if value == "true" => {
                self.failed = true;
                Ok(())
            }
            "min-us" => duration_us(value).map(|us| self.min_us = Some(us)),
            _ => Err(format!("unknown filter `{name}`")),
        }
        .map_err(|e| format!("--{name}: {e}"))
    }

    /// The options with their values, in a fixed order; [`Filter::from_pairs`] reads them.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut pair = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                pairs.push((name.to_owned(), values.join(",")));
            }
        };
        sides(&mut pair, ["port", "lport", "rport"], &self.ports);
        sides(&mut pair, ["addr", "laddr", "raddr"], &self.addrs);
        pair("netns", texts(&self.netns));
        pair("pid", texts(&self.pids));
        pair("follow", if self.follow { vec!["children".to_owned()] } else { Vec::new() });
        pair("comm", names(&self.comms));
        pair("uid", texts(&self.uids));
        pair("cgroup", names(&self.cgroups));
        pair("container", names(&self.containers));
        pair("unit", names(&self.units));
        pair("role", self.roles.iter().map(|r| r.name().to_owned()).collect());
        pair("state", self.states.iter().map(|s| s.name().to_owned()).collect());
        pair("failed", if self.failed { vec!["true".to_owned()] } else { Vec::new() });
        pair("min-us", self.min_us.iter().map(|us| format!("{us}us")).collect());
        pairs
    }

    /// The filters of a recording.
    ///
    /// # Errors
    /// A filter that this version does not know, or cannot read.
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<Self, String> {
        let mut filter = Self::default();
        for (name, value) in pairs {
            filter.set(name, value)?;
        }
        Ok(filter)
    }
}

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// What [`split`] makes these of.
fn names(values: &[String]) -> Vec<String> {
    values.iter().map(|name| name.replace('\\', "\\\\").replace(',', "\\,")).collect()
}

fn sides<T: Display>(pair: &mut impl FnMut(&str, Vec<String>), names: [&str; 3], sides: &Sides<T>) {
    for (name, values) in names.into_iter().zip([&sides.either, &sides.local, &sides.remote]) {
        pair(name, texts(values));
    }
}

fn list<T: FromStr<Err = String>>(to: &mut Vec<T>, value: &str) -> Result<(), String> {
    each(to, value, str::parse)
}

fn each<T>(to: &mut Vec<T>, value: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<(), String> {
    for item in split(value) {
        if item.is_empty() {
            return Err(format!("an empty value in `{value}`"));
        }
        to.push(parse(&item)?);
    }
    Ok(())
}

/// At commas; `\,` is a comma in a name.
fn split(value: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => items.push(String::new()),
            c => items.last_mut().expect("never empty").push(match c {
                '\\' => chars.next().unwrap_or('\\'),
                c => c,
            }),
        }
    }
    items
}

/// A path below the mount, with a slash in front; one that begins with the usual place of the mount is taken as it is meant.
fn cgroup_path(text: &str) -> String {
    let below = match text.strip_prefix("/sys/fs/cgroup") {
        Some(below) if below.is_empty() || below.starts_with('/') => below,
        _ => text,
    };
    format!("/{}", below.trim_matches('/'))
}

/// `500us`, `10ms`, `2s`, `5m`, `1h`, or a number of microseconds.
fn duration_us(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[end..] {
        "" | "us" | "µs" => Some(1),
        "ms" => Some(1000),
        "s" => Some(1_000_000),
        "m" => Some(60_000_000),
        "h" => Some(3_600_000_000),
        _ => None,
    };
    let us = text[..end].parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    us.ok_or_else(|| format!("`{text}` is not a time such as 500us, 10ms or 2s"))
}

fn role(text: &str) -> Result<Role, String> {
    [Role::Client, Role::Server, Role::Listener]
        .into_iter()
        .find(|r| r.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("`{text}` is not a role: client, server or listener"))
}

/// As Linux and `ss` write it, in either case, with `-` or `_`: `close-wait`, `CLOSE_WAIT`; `SYN_RCVD` and the like of the
/// RFC are not accepted, one name for one thing.
fn state(text: &str) -> Result<State, String> {
    let name = text.replace('-', "_").to_ascii_uppercase();
    State::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
        let names: Vec<_> = State::ALL.iter().map(|s| s.name()).collect();
        format!("`{text}` is not a TCP state: {}", names.join(" "))
    })
}

/// A network namespace → its inode number. Given as that number, as a path (`/proc/1/ns/net`) or by the name that
/// `ip netns` gave it.
///
/// # Errors
/// There is no such file.
pub fn netns_number(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return if number == 0 { Err("0 is not a network namespace".into()) } else { Ok(number) };
    }
    // What `readlink /proc/PID/ns/net` prints.
    if let Some(number) = text.strip_prefix("net:[").and_then(|t| t.strip_suffix(']')?.parse().ok()) {
        return Ok(number);
    }
    let path = if text.contains('/') { text.to_owned() } else { format!("/run/netns/{text}") };
    let inode = fs::metadata(&path).map(|m| u32::try_from(m.ino()));
    let reason = match inode {
        Ok(Ok(number)) => return Ok(number),
        Ok(Err(_)) => "no namespace is there".to_owned(),
        Err(e) => crate::error::reason(&e),
    };
    Err(format!("no network namespace `{text}` ({path}: {reason}); give a number, a path or a name of `ip netns list`"))
}
