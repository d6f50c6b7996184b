//! Why a program cannot be used, in a few words for `doctor`.

use std::io;

use aya::programs::{ProgramError, kprobe::KProbeError};

/// The classes are those that were seen: a missing symbol is a BTF error, a program type that the kernel refuses leaves the verifier's
/// log empty, a kernel without kprobes has no device for them.
pub(super) fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::Btf(_) => "this kernel has no such symbol".to_owned(),
        ProgramError::LoadError { io_error, verifier_log } => match complaint(&verifier_log.to_string()) {
            Some(line) => format!("refused by the verifier: {line}"),
            None => format!("refused by this kernel: {}", plain(io_error)),
        },
        ProgramError::KProbeError(error) => format!("cannot be attached: {}", root(error)),
        other => format!("cannot be attached: {}", root(other)),
    }
}

/// Does it say that the kernel refuses this kind of program, whatever the program is attached to?
pub(super) fn is_of_the_kind(error: &ProgramError) -> bool {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            io_error.kind() == io::ErrorKind::PermissionDenied && complaint(&verifier_log.to_string()).is_none()
        }
        // The device through which all of them are attached.
        ProgramError::KProbeError(KProbeError::FileError { filename, io_error }) => {
            io_error.kind() == io::ErrorKind::NotFound && filename.ends_with("devices/kprobe/type")
        }
        _ => false,
    }
}

/// The verifier's last word that is not a statistic.
fn complaint(log: &str) -> Option<&str> {
    let footer = ["processed ", "stack depth ", "verification time "];
    log.lines().rev().find(|line| !line.is_empty() && !footer.iter().any(|f| line.starts_with(f)))
}

/// The innermost error.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    plain(inner)
}

/// The system's words without `(os error 2)`.
fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}
