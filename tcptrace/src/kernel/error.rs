//! Why tcptrace cannot trace on this host, in words for the person who runs it.

use super::btf;

/// See [`Error::exit_status`] for what each means to a script.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A capability is missing, or the kernel refuses for another reason that an administrator can change.
    #[error("not permitted: {what}; {remedy}")]
    NotPermitted {
        /// What is missing, for example `CAP_BPF`.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// This kernel cannot do it.
    #[error("this kernel cannot do it: {what}; {remedy}")]
    KernelUnsupported {
        /// What is missing, for example a field of a struct.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The kernel's type information cannot be read or makes no sense.
    #[error("this kernel cannot do it: {path}: {source}; tcptrace needs the kernel's own type information (BTF)")]
    Btf {
        /// Where it was read from.
        path: String,
        /// What is wrong with it.
        source: btf::Error,
    },
    /// A hook that everything rests on cannot be used.
    #[error("this kernel cannot do it: no hook for `{signal}` ({reason}); see `tcptrace doctor`")]
    Signal {
        /// Name of the signal.
        signal: &'static str,
        /// Why its last candidate was refused.
        reason: String,
    },
    /// Something else went wrong while loading.
    #[error("{operation} failed: {source}; see `tcptrace doctor`")]
    Load {
        /// What was being done.
        operation: &'static str,
        /// What was reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The committed kernel objects do not fit this program.
    #[error("the kernel object lacks `{0}`; rebuild it with `cargo xtask bpf`")]
    Object(&'static str),
    /// Two of the committed kernel objects do not fit each other.
    #[error("the kernel objects define the map `{0}` differently; rebuild them with `cargo xtask bpf`")]
    Maps(String),
}

impl Error {
    /// Something failed while loading; [`Error::NotPermitted`] where the kernel said EPERM or EACCES.
    pub(crate) fn load(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        let mut cause: Option<&dyn std::error::Error> = Some(&*source);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::PermissionDenied
            {
                return Self::NotPermitted {
                    what: format!("{operation}: the kernel refuses bpf() ({})", crate::error::reason(io)),
                    remedy:
                        "a seccomp filter or a security module may forbid it: run tcptrace outside of the container or \
                             sandbox, or allow bpf() in it"
                            .to_owned(),
                };
            }
            cause = error.source();
        }
        Self::Load { operation, source }
    }

    pub(crate) fn missing(name: &'static str) -> Self {
        Self::Object(name)
    }

    /// 3: not permitted; 4: this kernel cannot do it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotPermitted { .. } => 3,
            Self::KernelUnsupported { .. } | Self::Btf { .. } | Self::Signal { .. } => 4,
            Self::Load { .. } | Self::Object(_) | Self::Maps(_) => 1,
        }
    }
}

impl From<Error> for crate::error::Error {
    fn from(e: Error) -> Self {
        Self::Kernel { message: e.to_string(), status: e.exit_status() }
    }
}
