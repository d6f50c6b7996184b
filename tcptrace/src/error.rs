//! What can go wrong, each with its exit status and the way out. [`Error`]'s text is one line; [`Error::hint`] is the way out.

use std::io;

/// Everything that ends tcptrace with a status other than 0, and [`Error::ClosedPipe`], which does not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A configuration makes no sense, or cannot be read.
    #[error("{0}")]
    Config(String),
    /// There is no page of that name.
    #[error("there is no state, rule or term `{asked}`{}", listed(.nearest))]
    NoPage {
        /// As given, made safe for a terminal.
        asked: String,
        /// Names of pages that may have been meant.
        nearest: Vec<&'static str>,
    },
    /// The kernel refused for want of a capability.
    #[error("{operation} is not permitted: {capability} is missing")]
    NotPermitted {
        /// What was tried.
        operation: String,
        /// What is needed: `CAP_BPF`, `CAP_PERFMON` …
        capability: String,
    },
    /// The kernel cannot do it.
    #[error("this kernel cannot do it: {missing}")]
    KernelUnsupported {
        /// What it lacks, and since which version kernels have it.
        missing: String,
    },
    /// A filter asks for what only the cgroup v2 hierarchy tells.
    #[error("--{option}: no cgroup v2 hierarchy is mounted here")]
    NoCgroups {
        /// Its name, without dashes.
        option: &'static str,
    },
    /// Loading the kernel programs failed. The text ends with the way out.
    #[error("{message}")]
    Kernel {
        /// Everything about it.
        message: String,
        /// What it means to a script.
        status: u8,
    },
    /// The file is something else.
    #[error("{path} is not a tcptrace recording")]
    NotARecording {
        /// As given.
        path: String,
    },
    /// The file was written by a newer tcptrace.
    #[error("{path} is a recording of format {found}; this tcptrace reads up to {known}")]
    NewerVersion {
        /// As given.
        path: String,
        /// Format of the file.
        found: u32,
        /// Newest format that this version reads.
        known: u32,
    },
    /// Something is missing in the recording; what there is has been shown.
    #[error("{path}: {what}")]
    Damaged {
        /// As given.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody reads the output any more: the end of the work, not a failure.
    #[error("the reader of the output is gone")]
    ClosedPipe,
    /// The command behind `--` could not be run.
    #[error("cannot run `{name}`: {}", reason(.source))]
    Command {
        /// As given.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation}: {}", reason(.source))]
    Io {
        /// What was tried, with the file's name: "write stdout", "open trace.tcpt".
        operation: String,
        /// Why not.
        source: io::Error,
    },
}

/// For everything that can fail in the collector.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`], or [`Error::ClosedPipe`] where that is what it is.
    pub fn io(operation: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::Io { operation: operation.into(), source }
    }

    /// Status that the process exits with.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Kernel { status, .. } => *status,
            Self::ClosedPipe => 0,
            Self::Io { .. } | Self::NotARecording { .. } | Self::NewerVersion { .. } | Self::Damaged { .. } => 1,
            Self::Usage(_) | Self::Config(_) | Self::NoPage { .. } => 2,
            Self::NotPermitted { .. } => 3,
            Self::KernelUnsupported { .. } | Self::NoCgroups { .. } => 4,
            // As shells have it.
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Command { .. } => 126,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Usage(_) => Some("`tcptrace --help` shows what there is"),
            Self::Config(_) => Some("`tcptrace watch --print-config` prints one with every rule and limit"),
            Self::NoPage { .. } => Some("`tcptrace explain` lists all"),
            Self::NotPermitted { .. } => Some("run it as root; `tcptrace doctor` shows which capabilities it needs"),
            Self::KernelUnsupported { .. } => Some("`tcptrace doctor` shows what this kernel offers"),
            Self::NoCgroups { .. } => Some(
                "`mount -t cgroup2 none DIRECTORY` mounts it; processes have to be in cgroups of it, as systemd puts them",
            ),
            Self::NotARecording { .. } => Some("`tcptrace record FILE` makes one"),
            Self::NewerVersion { .. } => Some("read it with the tcptrace that made it, or a newer one"),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room, or write elsewhere")
            }
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("give the name of a program in PATH, or its path")
            }
            Self::Command { .. } | Self::Io { .. } | Self::ClosedPipe | Self::Kernel { .. } | Self::Damaged { .. } => {
                None
            }
        }
    }

    /// The one line for stderr.
    #[must_use]
    pub fn line(&self) -> String {
        match self.hint() {
            Some(hint) => format!("tcptrace: {self}; {hint}"),
            None => format!("tcptrace: {self}"),
        }
    }
}

/// ` (nearest: a, b)`
fn listed(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(" (nearest: {})", names.join(", ")) }
}

/// The system's words without `(os error 28)`.
pub(crate) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_one_line_with_the_way_out() {
        let e = Error::io("write stdout", io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(e.line(), "tcptrace: cannot write stdout: No space left on device; make room, or write elsewhere");
        assert_eq!(e.exit_status(), 1);
    }

    #[test]
    fn a_closed_pipe_is_the_end_of_the_work() {
        let e = Error::io("write stdout", io::Error::from_raw_os_error(libc::EPIPE));
        assert_eq!(e.exit_status(), 0);
    }

    #[test]
    fn statuses_of_the_contract() {
        let permitted = Error::NotPermitted { operation: "bpf()".into(), capability: "CAP_BPF".into() };
        let unsupported = Error::KernelUnsupported { missing: "no BTF".into() };
        assert_eq!(
            [Error::Usage(String::new()).exit_status(), permitted.exit_status(), unsupported.exit_status()],
            [2, 3, 4]
        );
    }
}
