//! The command line as clap sees it. Nothing else does: see [`super::Config`].

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter as Complete;

use super::{
    complete,
    examples::{
        COMPLETIONS_HELP, CONNS_HELP, DOCTOR_HELP, EXPLAIN_HELP, HELP, QUEUES_HELP, RECORD_HELP, REPORT_HELP,
        TRACE_HELP, WATCH_HELP,
    },
};
use crate::{group::Key, kernel::signal::Tier, model::Severity, recording::ring::Room, sink::text::TimeMode};

/// Traces the kernel's own TCP state machine.
#[derive(Debug, Parser)]
#[command(
    name = "tcptrace",
    version,
    about,
    after_help = HELP,
    max_term_width = 100,
    arg_required_else_help = false
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every state change of every TCP connection, one line each, as it happens
    #[command(after_help = TRACE_HELP)]
    Trace(Connections),
    /// Every connection, one line or its ladder when it is over
    #[command(after_help = CONNS_HELP)]
    Conns(Conns),
    /// Every listener: both queues, their peaks, what became of each SYN
    #[command(after_help = QUEUES_HELP)]
    Queues(Queues),
    /// Trouble only, with evidence and advice: SYN floods, full accept queues, leaks of CLOSE_WAIT ...
    #[command(after_help = WATCH_HELP)]
    Watch(Watch),
    /// Write what the kernel says to a file, to be looked at later with --from
    #[command(after_help = RECORD_HELP)]
    Record(Record),
    /// What a recording comes to, on one page: totals, the busiest, the slowest, what looks wrong
    #[command(after_help = REPORT_HELP)]
    Report(Report),
    /// What this kernel offers, what is degraded, what to change
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),
    /// What a TCP state, a term or a finding means, and what to do about it
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
    /// Print the completions of a shell: commands, options, processes, ports, containers
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the reference of the JSON objects
    #[command(hide = true)]
    DocsEvents,
    /// Print all of `explain` in Markdown
    #[command(hide = true)]
    DocsExplain,
    /// Print a manual page, or the names of all
    #[command(hide = true)]
    DocsMan {
        /// For example tcptrace.1
        name: Option<String>,
    },
}

/// `trace` and `conns`.
#[derive(Debug, Args)]
pub struct Connections {
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub requests: Requests,
    #[command(flatten)]
    pub stacks: Stacks,
    #[command(flatten)]
    pub processes: Processes,
}

/// Where in their programs sockets are opened.
#[derive(Debug, Args)]
pub struct Stacks {
    /// Where in its program each socket was opened or accepted: the user-space stack, 1,000 a second at most
    #[arg(long, help_heading = "Source")]
    pub stacks: bool,
}

impl Stacks {
    /// Copies of stacks a second that are wanted at most.
    pub fn rate(&self) -> u64 {
        /// Each costs microseconds in the kernel and tens of them to unwind.
        const MOST: u64 = 1000;
        if self.stacks { MOST } else { 0 }
    }
}

/// Processes with all that descend from them.
#[derive(Debug, Args)]
pub struct Processes {
    /// What descends from the processes of --pid, too, from now on
    #[arg(short, long, requires = "pid", help_heading = "Filters (lists: a,b,c)")]
    pub follow: bool,
    /// Run COMMAND as this user, by name or number [default: who called sudo, or you]
    #[arg(long, value_name = "USER", requires = "command", help_heading = "Source")]
    pub user: Option<String>,
    /// Run COMMAND, and trace its sockets and those of all that descends from it
    #[arg(last = true, value_name = "COMMAND", help_heading = "Source")]
    pub command: Vec<OsString>,
}

/// `conns`.
#[derive(Debug, Args)]
pub struct Conns {
    #[command(flatten)]
    pub connections: Connections,
    /// Count connections that have these in common in place of telling of each: comm,rport
    #[arg(
        long,
        value_name = "KEYS",
        value_delimiter = ',',
        value_parser = key,
        add = Complete::new(complete::keys),
        conflicts_with_all = ["requests", "ladder", "stacks"],
        help_heading = "Output"
    )]
    pub by: Vec<Key>,
    /// Draw the handshake and the teardown between the two ends; both on this host: one ladder
    #[arg(long, help_heading = "Output")]
    pub ladder: bool,
}

/// `queues`.
#[derive(Debug, Args)]
pub struct Queues {
    #[command(flatten)]
    pub show: Show,
    /// One interval, then end
    #[arg(long, conflicts_with = "count", help_heading = "Source")]
    pub once: bool,
    /// How long an interval is: 500ms, 1s, 1m
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration,
        default_value = "1s",
        conflicts_with = "from",
        help_heading = "Source"
    )]
    pub interval: Duration,
}

/// `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub stacks: Stacks,
    /// Limits of rules, rules on and off, other limits at some ports: see --print-config
    #[arg(long, value_name = "FILE", help_heading = "Rules")]
    pub config: Option<PathBuf>,
    /// Print every rule and limit with its default, as such a file
    #[arg(long, exclusive = true, help_heading = "Rules")]
    pub print_config: bool,
    /// Run CMD with sh for each finding that fires or is resolved, with it as JSON on standard input
    #[arg(long, value_name = "CMD", help_heading = "Rules")]
    pub exec: Option<String>,
    /// End with status 10 if a finding was so bad, or worse
    #[arg(long, value_enum, value_name = "SEVERITY", help_heading = "Rules")]
    pub fail_on: Option<FailOn>,
}

/// `--fail-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    Info,
    Warning,
    Critical,
}

impl From<FailOn> for Severity {
    fn from(least: FailOn) -> Self {
        match least {
            FailOn::Info => Self::Info,
            FailOn::Warning => Self::Warning,
            FailOn::Critical => Self::Critical,
        }
    }
}

/// Single half-open requests.
#[derive(Debug, Args)]
pub struct Requests {
    /// Tell of every half-open request, not only of those that come to nothing
    #[arg(long, help_heading = "Output")]
    pub requests: bool,
    /// Requests told of singly a second, at most; the rest is counted
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Source"
    )]
    pub request_rate: u64,
}

#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    pub filters: Filters,
    /// Show a recording instead of the live kernel; - is standard input
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    pub from: Option<PathBuf>,
    /// Record to FILE, too
    #[arg(long, value_name = "FILE", conflicts_with = "from", help_heading = "Source")]
    pub record: Option<PathBuf>,
    /// Size of the kernel's buffers, all CPUs together: 512K, 16M
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "from", help_heading = "Source")]
    pub buffer: Option<u64>,
    /// Best kind of hooks in the kernel to use; auto: the best that work
    #[arg(long, value_enum, value_name = "KIND", default_value_t, conflicts_with = "from", help_heading = "Source")]
    pub tier: HookTier,
    /// End after this time: 500ms, 10s, 2m, 1h
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Source")]
    pub duration: Option<Duration>,
    /// End after N printed transitions (trace), connections or ladders (conns), intervals (queues) or findings (watch)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Source")]
    pub count: Option<u64>,
    /// One JSON object a line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Times: wall clock (local or utc), seconds since boot (mono), since the line before (delta)
    #[arg(long, value_enum, value_name = "MODE", default_value_t, help_heading = "Output")]
    pub time: Time,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = "Output")]
    pub color: Color,
    /// A line every second on stderr: events, sockets, losses, CPU time
    #[arg(long, help_heading = "Output")]
    pub stats: bool,
    #[command(flatten)]
    pub noise: Noise,
}

#[derive(Debug, Args)]
pub struct Record {
    /// File to create or replace; - is standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Keep only the latest in memory, by size, by time or both (64M, 5m, 64M,5m); write it at the end and on SIGUSR1
    #[arg(long, value_name = "SIZE|TIME", value_parser = room, conflicts_with = "rotate", help_heading = "Files")]
    pub ring: Option<Room>,
    /// Go on in another file, FILE.0001, FILE.0002 ..., when one has this size, age or either
    #[arg(long, value_name = "SIZE|TIME", value_parser = room, help_heading = "Files")]
    pub rotate: Option<Room>,
    /// Delete the oldest of the files that --rotate made when there are more than N
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Files"
    )]
    pub keep: Option<u32>,
    #[command(flatten)]
    pub filters: Filters,
    /// Size of the kernel's buffers, all CPUs together: 512K, 16M
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Source")]
    pub buffer: Option<u64>,
    /// Best kind of hooks in the kernel to use; auto: the best that work
    #[arg(long, value_enum, value_name = "KIND", default_value_t, help_heading = "Source")]
    pub tier: HookTier,
    /// End after this time: 500ms, 10s, 2m, 1h
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Source")]
    pub duration: Option<Duration>,
    /// Listeners' queues too, every second, for `queues --from`
    #[arg(long, help_heading = "Source")]
    pub queues: bool,
    #[command(flatten)]
    pub requests: Requests,
    #[command(flatten)]
    pub stacks: Stacks,
    #[command(flatten)]
    pub processes: Processes,
    #[command(flatten)]
    pub noise: Noise,
}

/// `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// The recording; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub filters: Filters,
    /// Write a page for browsers to OUT in place of the text; - is standard output
    #[arg(long, value_name = "OUT", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// One JSON object; with --html beside the page
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Entries of each list
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=1000),
        help_heading = "Output"
    )]
    pub top: u16,
    /// Times: wall clock (local or utc), seconds since boot (mono)
    #[arg(long, value_enum, value_name = "MODE", default_value_t, help_heading = "Output")]
    pub time: Time,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = "Output")]
    pub color: Color,
    #[command(flatten)]
    pub noise: Noise,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// Best kind of hooks in the kernel to try; auto: the best that work
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub tier: HookTier,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// A state, as Linux or ss names it, a rule of `watch`, or a term
    #[arg(value_name = "STATE|RULE|TERM", add = Complete::new(complete::pages))]
    pub name: Vec<String>,
    /// One JSON object for each page
    #[arg(long)]
    pub json: bool,
    /// Bold headings and names, colours of ladders; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

#[derive(Debug, Args)]
pub struct Noise {
    /// Tell of impossible transitions and records that were not understood
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// No summary on stderr
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
}

macro_rules! filters {
    ($($(#[doc = $doc:literal])* $(#[arg($($arg:tt)*)])? $name:ident: $value:literal,)*) => {
        /// Lists are separated by commas; an option given twice adds to the list.
        #[derive(Debug, Args)]
        #[command(next_help_heading = "Filters (lists: a,b,c)")]
        pub struct Filters {
            $($(#[doc = $doc])* #[arg(long, value_name = $value, $($($arg)*)?)] pub $name: Vec<String>,)*
            /// conns: what was refused, reset, timed out or given up, not what ended by FINs or is open
            #[arg(long)]
            pub failed: bool,
            /// conns: what lasted so long at least; microseconds, or 500us, 10ms, 2s
            #[arg(long, value_name = "TIME")]
            pub min_us: Option<String>,
        }

        impl Filters {
            /// (long name, value) of each that was given.
            pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
                std::iter::empty()
                    $(.chain(self.$name.iter().map(|v| (stringify!($name), v.as_str()))))*
                    .chain(self.failed.then_some(("failed", "true")))
                    .chain(self.min_us.iter().map(|v| ("min-us", v.as_str())))
            }
        }
    };
}

filters! {
    /// Either port: 443 or 80,443,8000-8100
    #[arg(add = Complete::new(complete::ports))]
    port: "PORTS",
    /// Local port
    #[arg(add = Complete::new(complete::local_ports))]
    lport: "PORTS",
    /// Remote port
    #[arg(add = Complete::new(complete::remote_ports))]
    rport: "PORTS",
    /// Either address: 10.0.0.0/8 or ::1
    addr: "ADDRS",
    /// Local address
    laddr: "ADDRS",
    /// Remote address
    raddr: "ADDRS",
    /// Network namespace: a number, a path such as /proc/1/ns/net, or a name of `ip netns`
    netns: "NS",
    /// Process that owns the socket
    #[arg(short)]
    pid: "PIDS",
    /// Name of that process, as ps shows it
    #[arg(add = Complete::new(complete::comms))]
    comm: "NAMES",
    /// User of that process: names or numbers
    uid: "USERS",
    /// cgroup of that process, and all below it: /system.slice
    #[arg(add = Complete::new(complete::cgroups))]
    cgroup: "PATHS",
    /// Container of that process: name, id or the beginning of an id (4 digits at least)
    #[arg(add = Complete::new(complete::containers))]
    container: "NAMES",
    /// systemd unit of that process: nginx or nginx.service
    #[arg(add = Complete::new(complete::units))]
    unit: "NAMES",
    /// client, server or listener
    #[arg(add = Complete::new(complete::roles))]
    role: "ROLES",
    /// Show only changes from or to a state; conns: connections that were ever in it
    #[arg(add = Complete::new(complete::states))]
    state: "STATES",
}

/// `--time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Time {
    #[default]
    Local,
    Utc,
    Mono,
    Delta,
}

impl From<Time> for TimeMode {
    fn from(time: Time) -> Self {
        match time {
            Time::Local => Self::Local,
            Time::Utc => Self::Utc,
            Time::Mono => Self::Mono,
            Time::Delta => Self::Delta,
        }
    }
}

/// `--tier`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HookTier {
    #[default]
    Auto,
    Fentry,
    Kprobe,
    Tracepoint,
}

impl From<HookTier> for Tier {
    fn from(tier: HookTier) -> Self {
        match tier {
            HookTier::Auto | HookTier::Fentry => Self::Fentry,
            HookTier::Kprobe => Self::Kprobe,
            HookTier::Tracepoint => Self::Tracepoint,
        }
    }
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// Shells that can ask for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// A number and what follows it; None if there is none or it is too large, which the caller says in words.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn key(text: &str) -> Result<Key, String> {
    text.parse()
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = split(text).and_then(|(n, unit)| {
        let ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        n.checked_mul(ms).filter(|&ms| ms > 0)
    });
    parsed.map(Duration::from_millis).ok_or_else(|| "not a time such as 500ms, 10s, 2m or 1h".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let parsed = split(text).and_then(|(n, unit)| {
        let shift = match unit.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            _ => return None,
        };
        n.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
    });
    parsed.ok_or_else(|| "not a size such as 512K or 16M".to_owned())
}

/// A size, a time, or both. `5m` is a time here, `5M` a size.
fn room(text: &str) -> Result<Room, String> {
    let mut room = Room::default();
    for part in text.split(',') {
        let twice = match duration(part) {
            Ok(time) => room.ns.replace(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)).is_some(),
            Err(_) => {
                let bytes = size(part).map_err(|_| "not a size such as 64M, nor a time such as 5m".to_owned())?;
                room.bytes.replace(bytes).is_some()
            }
        };
        if twice {
            return Err("two sizes or two times".to_owned());
        }
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms() {
        let minutes = |n: u64| Some(n * 60_000_000_000);
        assert_eq!(room("64M"), Ok(Room { bytes: Some(64 << 20), ns: None }));
        assert_eq!(room("5m"), Ok(Room { bytes: None, ns: minutes(5) }));
        assert_eq!(room("5m,1G"), Ok(Room { bytes: Some(1 << 30), ns: minutes(5) }));
        for wrong in ["", "0", "0s", "5m,", "5m,6m", "1M,2M", "five"] {
            assert!(room(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "0s", "5", "s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!((size("4096"), size("512K"), size("16MiB")), (Ok(4096), Ok(512 << 10), Ok(16 << 20)));
        for wrong in ["", "0", "1 parsec", "-1", "18446744073709551615G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
