//! The command line as clap sees it. Nothing else does: see [`super::Config`].

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kernel::signal::Tier;

/// Traces the kernel's own TCP state machine.
#[derive(Debug, Parser)]
#[command(name = "tcptrace", version, about, max_term_width = 100, arg_required_else_help = false)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every state change of every TCP connection, one line each, as it happens
    #[command(after_help = TRACE_HELP)]
    Trace(Connections),
    /// Every connection, one line when it is over
    #[command(after_help = CONNS_HELP)]
    Conns(Connections),
    /// Every listener: both queues, their peaks, what became of each SYN
    #[command(after_help = QUEUES_HELP)]
    Queues(Queues),
    /// Write what the kernel says to a file, to be looked at later with --from
    #[command(after_help = RECORD_HELP)]
    Record(Record),
    /// What this kernel offers, what is degraded, what to change
    Doctor(Doctor),
    /// Print the reference of the JSON objects
    #[command(hide = true)]
    DocsEvents,
}

const TRACE_HELP: &str = "\
Examples:
  tcptrace trace                          everything on this host
  tcptrace trace --port 443 --comm nginx  one service
  tcptrace trace --state CLOSE_WAIT       who enters and leaves a state
  tcptrace trace --json --from day.rec    a recording, for programs
Marks:
  → this end connected   ← the peer did   ↔ not known
  ~ concluded, not seen  * was there before the trace began";

const CONNS_HELP: &str = "\
Examples:
  tcptrace conns                          everything on this host
  tcptrace conns --raddr 10.0.0.0/8 --role client
                                          what this host asks of others
  tcptrace conns --json --record day.rec  for programs, and to look at again
Marks:
  → this end connected   ← the peer did   ↔ not known
  ~ concluded, not seen  * was there before the trace began
  SHAKE handshake   RTT round-trip time   ↑↓ payload out and in   RTX segments sent again";

const QUEUES_HELP: &str = "\
Examples:
  tcptrace queues                         every listener, repainted every second
  tcptrace queues --once --lport 443      one look at one service
  tcptrace queues --interval 10s --json   for programs
Queues:
  n/peak/max  entries now, most in the interval, limit (full: more than that)
  DONE  connections put into the accept queue   ACC  taken from it
  WAIT  time in the accept queue: half, 99 %, longest
  ~ concluded, not seen  * was there before the trace began";

const RECORD_HELP: &str = "\
Examples:
  tcptrace record day.rec --duration 10m
  tcptrace record - | ssh admin 'cat > day.rec'
  tcptrace conns --from day.rec";

/// `trace` and `conns`.
#[derive(Debug, Args)]
pub struct Connections {
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub requests: Requests,
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
    /// End after N printed transitions (trace), connections (conns) or intervals (queues)
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
        }

        impl Filters {
            /// (long name, value) of each that was given.
            pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
                std::iter::empty()$(.chain(self.$name.iter().map(|v| (stringify!($name), v.as_str()))))*
            }
        }
    };
}

filters! {
    /// Either port: 443 or 80,443,8000-8100
    port: "PORTS",
    /// Local port
    lport: "PORTS",
    /// Remote port
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
    comm: "NAMES",
    /// client, server or listener
    role: "ROLES",
    /// Show only changes from or to a state; conns: connections that were ever in it
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

/// A number and what follows it; None if there is none or it is too large, which the caller says in words.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
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

#[cfg(test)]
mod tests {
    use super::*;

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
