//! Why a program cannot be used, in a few words for `doctor`.

use aya::programs::ProgramError;

/// The classes are those that were seen: a missing symbol is a BTF error, a program type that the kernel refuses leaves the verifier's
/// log empty, a kernel without kprobes has no device for them.
pub(super) fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::Btf(_) => "this kernel has no such symbol".to_owned(),
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let footer = ["processed ", "stack depth ", "verification time "];
            match log.lines().rev().find(|line| !line.is_empty() && !footer.iter().any(|f| line.starts_with(f))) {
                Some(line) => format!("refused by the verifier: {line}"),
                None => format!("refused by this kernel: {}", plain(io_error)),
            }
        }
        ProgramError::KProbeError(error) => format!("cannot be attached: {}", root(error)),
        other => format!("cannot be attached: {}", root(other)),
    }
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
