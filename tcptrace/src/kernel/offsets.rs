//! Kernel type information in, the offsets that the kernel programs read by out.
//!
//! The list is [`FIELDS`] and [`BITFIELDS`] in `tcptrace-common`. A field that this kernel lacks, or has in a width that its
//! reader cannot load, stays [`ABSENT`](tcptrace_common::offsets::ABSENT): the verifier removes its reader, `doctor` names
//! it. Only what tcptrace cannot work without is an error.

use tcptrace_common::offsets::{BITFIELDS, Bitfields, Bits, FIELDS, Offsets, Spec, structure};

use super::{
    Error,
    btf::{self, Btf},
    prototypes::Prototypes,
};

/// (field, the one that serves in its place): the first is not missed where the second exists.
const STAND_INS: [(&str, &str); 3] = [
    // sock.sk_ino came with Linux 6.18 ("net: lockless sock_i_ino()"); before, the number is read from the socket's inode.
    ("sk_ino", "socket_inode"),
    ("socket_inode", "sk_ino"),
    // Linux 6.12 has no tcp_sock.syn_fastopen_child yet, 6.18 has: before, a child by Fast Open is known by its SYN's data.
    ("syn_fastopen_child", "syn_data_acked"),
];

/// What the kernel programs are told about this kernel.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// For the global of the fields.
    pub offsets: Offsets,
    /// For the global of the bitfields.
    pub bitfields: Bitfields,
    /// Numbers of the structs' types, by [`structure`](tcptrace_common::offsets::structure); 0 where it is unknown, or not needed.
    pub types: Vec<u32>,
    /// Number of `bpf_rdonly_cast`, where programs can call it.
    pub cast: Option<u32>,
    /// Fields that this kernel cannot give, in the order of the lists.
    pub absent: Vec<Absent>,
    /// Arguments of the functions that may be hooked.
    pub prototypes: Prototypes,
    /// Number of the reason for a drop at a full accept queue; kernels before 6.18 have none.
    pub overflow_reason: Option<u32>,
    /// Number of the reason for a RST that no socket stands behind; kernels before 6.10 have none.
    pub no_socket_reason: Option<u32>,
    /// Number of the reason for a drop for which no socket could be found; kernels before 5.17 have none.
    pub no_socket_drop: Option<u32>,
}

/// A field that a reader does without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its name in [`Offsets`] or the last name of its path in [`Bitfields`].
    pub name: &'static str,
    /// Struct and path in the kernel.
    pub field: String,
    /// Why, for example `no such member` or `8 bytes wide`.
    pub reason: String,
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.field, self.reason)
    }
}

/// Read the running kernel's type information and resolve every field; both.
///
/// # Errors
/// [`Error::Btf`] where it cannot be read or is malformed; otherwise as [`resolve`].
pub fn from_running_kernel() -> Result<(Resolved, Btf), Error> {
    let types = Btf::read(btf::VMLINUX).map_err(malformed)?;
    Ok((resolve(&types)?, types))
}

/// Resolve every field of [`FIELDS`] and [`BITFIELDS`].
///
/// # Errors
/// [`Error::KernelUnsupported`] naming the first required field that is missing; [`Error::Btf`] if the type information
/// contradicts itself.
pub fn resolve(btf: &Btf) -> Result<Resolved, Error> {
    let mut offsets = Offsets::UNKNOWN;
    let mut bitfields = [Bits::UNKNOWN; BITFIELDS.len()];
    let mut types = vec![0; FIELDS.len()];
    let mut absent = Vec::new();
    for (index, spec) in FIELDS.iter().enumerate() {
        match place(btf, spec)? {
            Ok((number, offset)) => {
                types[structure(spec.structure)] = number;
                offsets.set(index, offset);
            }
            Err(reason) => {
                absent.push(Absent { name: spec.name, field: format!("{}.{}", spec.structure, spec.path), reason });
            }
        }
    }
    for (bits, (structure, path)) in bitfields.iter_mut().zip(BITFIELDS) {
        match place_bits(btf, structure, path)? {
            Ok(found) => *bits = found,
            Err(reason) => {
                let name = path.rsplit('.').next().unwrap_or(path);
                absent.push(Absent { name, field: format!("{structure}.{path}"), reason });
            }
        }
    }
    forgive(&mut absent);
    let number = |of, name| -> Result<Option<u32>, Error> {
        Ok(btf.enumerator(of, name).map_err(malformed)?.and_then(|number| u32::try_from(number).ok()))
    };
    let overflow = number("skb_drop_reason", "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW")?;
    let prototypes = Prototypes::read(btf).map_err(malformed)?;
    Ok(Resolved {
        offsets,
        bitfields: Bitfields::from_array(bitfields),
        types,
        cast: prototypes.cast(),
        absent,
        // Told of no listener, it says nothing.
        overflow_reason: overflow.filter(|_| prototypes.drops_name_sockets()),
        no_socket_reason: number("sk_rst_reason", "SK_RST_REASON_NO_SOCKET")?,
        no_socket_drop: number("skb_drop_reason", "SKB_DROP_REASON_NO_SOCKET")?,
        prototypes,
    })
}

/// Strike out what another field stands in for.
fn forgive(absent: &mut Vec<Absent>) {
    for (name, stand_in) in STAND_INS {
        if !absent.iter().any(|a| a.name == stand_in) {
            absent.retain(|a| a.name != name);
        }
    }
}

/// Number of a struct's type and byte offset of a field, or why its reader must do without it.
fn place(btf: &Btf, spec: &Spec) -> Result<Result<(u32, u32), String>, Error> {
    let reason = match btf.place(spec.structure, spec.path) {
        Ok((_, field)) if field.bit_width.is_some() => "a bitfield here".to_owned(),
        Ok((_, field)) if !spec.sizes.contains(&field.size) => format!("{} bytes wide here", field.size),
        Ok((number, field)) => return Ok(Ok((number, field.bit_offset / 8))),
        Err(error) if error.is_absent() => absence(&error),
        Err(error) => return Err(malformed(error)),
    };
    if spec.required {
        return Err(Error::KernelUnsupported {
            what: format!("tcptrace must read {}.{} ({reason})", spec.structure, spec.path),
            remedy: "tcptrace works on Linux 5.15 and later; a newer tcptrace may know this kernel".to_owned(),
        });
    }
    Ok(Err(reason))
}

/// Byte, shift and mask of a bitfield. A field of one whole byte is one too: the kernel changes one into the other.
fn place_bits(btf: &Btf, structure: &str, path: &str) -> Result<Result<Bits, String>, Error> {
    let field = match btf.field(structure, path) {
        Ok(field) => field,
        Err(error) if error.is_absent() => return Ok(Err(absence(&error))),
        Err(error) => return Err(malformed(error)),
    };
    let (shift, width) = (field.bit_offset % 8, field.bit_width.unwrap_or(field.size.saturating_mul(8)));
    if width == 0 || width > 8 - shift {
        return Ok(Err(format!("{width} bits wide here, in more than one byte")));
    }
    Ok(Ok(Bits { offset: field.bit_offset / 8, shift, mask: (1 << width) - 1 }))
}

fn absence(error: &btf::Error) -> String {
    if matches!(error, btf::Error::NoStruct(_)) { "no such struct".to_owned() } else { "no such field".to_owned() }
}

pub(super) fn malformed(source: btf::Error) -> Error {
    Error::Btf { path: btf::VMLINUX.to_owned(), source }
}

#[cfg(test)]
mod tests;
