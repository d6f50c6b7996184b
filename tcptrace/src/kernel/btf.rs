//! Reads the kernel's own type information (BTF, Documentation/bpf/btf.rst): bytes in, places of fields out.
//!
//! Only what the collector asks for: a struct and a dotted path to a [`Field`], whether a function exists, the value of an
//! enumerator. Malformed input is an [`enum@Error`], never a panic or an endless loop: every read is checked against the
//! buffer, and every walk has a limit.

use std::{fs::File, io::Read as _, path::Path, ptr::NonNull};

use rustix::mm;

mod extract;
pub mod prototype;

/// Where the kernel shows its own type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// `f_type` of sysfs (include/uapi/linux/magic.h).
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;
/// A kernel's type information has 5 to 15 MB.
const MAX_BYTES: u64 = 1 << 30;
/// Typedefs and qualifiers in a row, nested anonymous members, dimensions of an array: the kernel has fewer than ten.
const MAX_DEPTH: u32 = 32;
/// Members that one look-up may visit. The kernel's largest struct has a few hundred.
const MAX_VISITS: u32 = 1 << 18;

mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Why a look-up failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The bytes are not BTF, or contradict themselves.
    #[error("malformed type information: {0}")]
    Malformed(&'static str),
    /// No struct or union of that name.
    #[error("no struct {0}")]
    NoStruct(String),
    /// The struct has no such member.
    #[error("struct {structure} has no member {path}")]
    NoMember {
        /// Struct that was asked for.
        structure: String,
        /// The whole path.
        path: String,
    },
}

impl Error {
    /// The type information is sound and says that the kernel lacks what was asked for.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoStruct(_) | Self::NoMember { .. })
    }
}

/// Place of a field in its struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bits from the start of the struct to the field's lowest bit.
    pub bit_offset: u32,
    /// Bytes of the field's type, also for a bitfield.
    pub size: u32,
    /// Bits of a bitfield; `None` for any other field, which starts at a whole byte.
    pub bit_width: Option<u32>,
}

/// Parsed type information.
#[derive(Debug)]
pub struct Btf {
    data: Data,
    /// Offset of each type in `data`; the first stands for `void`.
    types: Vec<u32>,
    /// (hash of the name, type) of every struct and union.
    structs: Vec<(u32, u32)>,
    /// Names: the part of `data` that holds them.
    strings: std::ops::Range<usize>,
}

/// The file's bytes.
#[derive(Debug)]
enum Data {
    Read(Vec<u8>),
    Mapped(NonNull<u8>, usize),
}

impl Data {
    /// Map the kernel's own, which takes no copy; `None` before Linux 6.16, which can only read it, 4 KB a call. Whatever else
    /// is wrong shows when it is read.
    fn map(file: &File) -> Option<Self> {
        let meta = file.metadata().ok()?;
        let size = meta.len();
        // Any other file could be cut short while it is mapped.
        if rustix::fs::fstatfs(file).ok()?.f_type != SYSFS_MAGIC || size == 0 || size > MAX_BYTES {
            return None;
        }
        // SAFETY: a new private mapping at an address of the kernel's choice. Files in sysfs cannot be truncated, and the
        // running kernel's type information never changes.
        let map = unsafe {
            mm::mmap(std::ptr::null_mut(), size as usize, mm::ProtFlags::READ, mm::MapFlags::PRIVATE, file, 0).ok()?
        };
        Some(Self::Mapped(NonNull::new(map.cast())?, size as usize))
    }
}

impl std::ops::Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            // SAFETY: mapped by `map` with this length until `drop`.
            Self::Mapped(start, len) => unsafe { std::slice::from_raw_parts(start.as_ptr(), *len) },
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Self::Mapped(start, len) = self {
            // SAFETY: mapped by `map` with this length, and nothing borrows from it any more. Failure leaks it, no more.
            let _ = unsafe { mm::munmap(start.as_ptr().cast(), *len) };
        }
    }
}

/// A member as its struct has it.
struct Member {
    bit_offset: u32,
    /// 0: not a bitfield, or one that its type describes.
    bit_width: u32,
    ty: u32,
}

impl Btf {
    /// Read and parse a file, as a rule [`VMLINUX`].
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Malformed`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = File::open(path)?;
        if let Some(map) = Data::map(&file) {
            return Self::new(map);
        }
        // One byte more than sysfs announces, so that the end is found without growing the buffer.
        let size = file.metadata()?.len().min(MAX_BYTES) as usize;
        let mut data = Vec::with_capacity(size + 1);
        file.take(MAX_BYTES + 1).read_to_end(&mut data)?;
        Self::parse(data)
    }

    /// Parse raw BTF (little-endian).
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything but a sound header and a sequence of known types that fills its section.
    pub fn parse(data: Vec<u8>) -> Result<Self, Error> {
        Self::new(Data::Read(data))
    }

    /// What was parsed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    fn new(data: Data) -> Result<Self, Error> {
        if data.len() as u64 > MAX_BYTES {
            return Err(Error::Malformed("too large"));
        }
        let head = |at: usize| word(&data, at).map(|w| w as usize);
        let magic = word(&data, 0)?;
        if magic & 0xffff != 0xeb9f || magic >> 16 & 0xff != 1 {
            return Err(Error::Malformed("not BTF version 1 in little-endian byte order"));
        }
        let start = head(4)?;
        let (types_at, types_end) = (start + head(8)?, start + head(8)? + head(12)?);
        let strings = start + head(16)?..start + head(16)? + head(20)?;
        if start < 24 || types_end > data.len() || strings.end > data.len() {
            return Err(Error::Malformed("a section lies outside of the file"));
        }
        let mut btf =
            Self { types: Vec::with_capacity((types_end - types_at) / 20), structs: Vec::new(), strings, data };
        // Type 0 is `void` and has no bytes; nothing reads at its offset, see `kind`.
        btf.types.push(u32::MAX);
        let mut at = types_at;
        while at < types_end {
            let (kind, count) = btf.info(at as u32)?;
            let size = 12
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count as usize,
                    kind::ENUM | kind::FUNC_PROTO => 8 * count as usize,
                    kind::PTR
                    | kind::FWD
                    | kind::TYPEDEF
                    | kind::VOLATILE
                    | kind::CONST
                    | kind::RESTRICT
                    | kind::FUNC
                    | kind::FLOAT
                    | kind::TYPE_TAG => 0,
                    _ => return Err(Error::Malformed("a kind of type that this version does not know")),
                };
            if types_end - at < size {
                return Err(Error::Malformed("a type is cut off"));
            }
            if matches!(kind, kind::STRUCT | kind::UNION) {
                let name = btf.name(word(&btf.data, at)?)?;
                if !name.is_empty() {
                    btf.structs.push((hash(name), btf.types.len() as u32));
                }
            }
            btf.types.push(at as u32);
            at += size;
        }
        Ok(btf)
    }

    /// Place of the member at `path` in the struct or union `structure`: names with dots between them, `[3]` after an array's.
    /// Members of anonymous members count as the struct's own. A pointer ends the path.
    ///
    /// # Errors
    /// [`Error::NoStruct`], [`Error::NoMember`], [`Error::Malformed`].
    pub fn field(&self, structure: &str, path: &str) -> Result<Field, Error> {
        self.place(structure, path).map(|(_, field)| field)
    }

    /// [`Btf::field`] behind the number of its struct's type.
    ///
    /// # Errors
    /// The same.
    pub fn place(&self, structure: &str, path: &str) -> Result<(u32, Field), Error> {
        let mut failure = Error::NoStruct(structure.to_owned());
        let wanted = hash(structure.as_bytes());
        // Two structs can share a name (drivers do that): the first that has the whole path is meant.
        for &(_, id) in self.structs.iter().filter(|&&(hash, _)| hash == wanted) {
            if !self.is_named(self.at(id)?, structure)? {
                continue;
            }
            if let Some(field) = self.walk(id, path)? {
                return Ok((id, field));
            }
            failure = Error::NoMember { structure: structure.to_owned(), path: path.to_owned() };
        }
        Err(failure)
    }

    /// Value of an enumerator; an empty `enumeration` searches the anonymous ones. `None` where the kernel lacks it.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<Option<i64>, Error> {
        for &at in &self.types[1..] {
            let (kind, count) = self.info(at)?;
            let size = match kind {
                kind::ENUM => 8,
                kind::ENUM64 => 12,
                _ => continue,
            };
            if !self.is_named(at, enumeration)? {
                continue;
            }
            for i in 0..count {
                let entry = at + 12 + size * i;
                if self.is_named(entry, name)? {
                    let low = self.word(entry + 4)?;
                    let signed = self.word(at + 4)? >> 31 != 0;
                    return Ok(Some(match (kind, signed) {
                        (kind::ENUM, true) => i64::from(low as i32),
                        (kind::ENUM, false) => i64::from(low),
                        _ => (u64::from(self.word(entry + 8)?) << 32 | u64::from(low)) as i64,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Number of types, `void` included.
    #[must_use]
    pub fn types(&self) -> usize {
        self.types.len()
    }

    fn walk(&self, structure: u32, path: &str) -> Result<Option<Field>, Error> {
        let (mut ty, mut bit_offset, mut bit_width) = (structure, 0u32, 0);
        let mut visits = MAX_VISITS;
        for part in path.split('.') {
            let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
            ty = self.strip(ty)?;
            if name.is_empty() || !matches!(self.kind(ty)?, kind::STRUCT | kind::UNION) {
                return Ok(None);
            }
            let Some(member) = self.member(ty, name, 0, &mut visits)? else { return Ok(None) };
            (ty, bit_width) = (member.ty, member.bit_width);
            bit_offset = add(bit_offset, member.bit_offset)?;
            for index in indices.split_inclusive(']') {
                let index = index.strip_prefix('[').and_then(|i| i.strip_suffix(']'));
                // What is no number is no element.
                let Some(index) = index.and_then(|i| i.parse::<u32>().ok()) else { return Ok(None) };
                ty = self.strip(ty)?;
                if self.kind(ty)? != kind::ARRAY {
                    return Ok(None);
                }
                let at = self.at(ty)?;
                if index >= self.word(at + 20)? {
                    return Ok(None);
                }
                ty = self.word(at + 12)?;
                let bits = u64::from(self.size(ty)?) * 8 * u64::from(index);
                bit_offset =
                    add(bit_offset, u32::try_from(bits).map_err(|_| Error::Malformed("an array is too large"))?)?;
            }
        }
        self.finish(ty, bit_offset, bit_width).map(Some)
    }

    fn finish(&self, ty: u32, mut bit_offset: u32, mut bit_width: u32) -> Result<Field, Error> {
        let ty = self.strip(ty)?;
        let size = self.size(ty)?;
        if bit_width == 0 && self.kind(ty)? == kind::INT {
            // The older way to say it: an integer type that is narrower than its bytes.
            let int = self.word(self.at(ty)? + 12)?;
            let bits = int & 0xff;
            if bits != 0 && bits < size.saturating_mul(8) {
                bit_width = bits;
                bit_offset = add(bit_offset, int >> 16 & 0xff)?;
            }
        }
        if bit_width == 0 && !bit_offset.is_multiple_of(8) {
            return Err(Error::Malformed("a field starts inside a byte"));
        }
        Ok(Field { bit_offset, size, bit_width: (bit_width != 0).then_some(bit_width) })
    }

    /// Look a member up, in anonymous members too.
    fn member(&self, structure: u32, name: &str, depth: u32, visits: &mut u32) -> Result<Option<Member>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Malformed("anonymous members are nested without end"));
        }
        let at = self.at(structure)?;
        let (_, count) = self.info(at)?;
        let wide = self.word(at + 4)? >> 31 != 0;
        for i in 0..count {
            *visits = visits.checked_sub(1).ok_or(Error::Malformed("a struct has too many members"))?;
            let entry = at + 12 + 12 * i;
            let place = self.word(entry + 8)?;
            let (bit_width, bit_offset) = if wide { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            let ty = self.word(entry + 4)?;
            if self.is_named(entry, name)? {
                return Ok(Some(Member { bit_offset, bit_width, ty }));
            }
            if self.is_named(entry, "")? {
                let ty = self.strip(ty)?;
                if matches!(self.kind(ty)?, kind::STRUCT | kind::UNION)
                    && let Some(mut inner) = self.member(ty, name, depth + 1, visits)?
                {
                    inner.bit_offset = add(inner.bit_offset, bit_offset)?;
                    return Ok(Some(inner));
                }
            }
        }
        Ok(None)
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, mut ty: u32) -> Result<u32, Error> {
        for _ in 0..MAX_DEPTH {
            match self.kind(ty)? {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    ty = self.word(self.at(ty)? + 8)?;
                }
                _ => return Ok(ty),
            }
        }
        Err(Error::Malformed("typedefs without end"))
    }

    /// Bytes of a type.
    fn size(&self, ty: u32) -> Result<u32, Error> {
        let (mut ty, mut factor) = (ty, 1u32);
        for _ in 0..MAX_DEPTH {
            ty = self.strip(ty)?;
            let size = match self.kind(ty)? {
                kind::PTR => 8,
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                    self.word(self.at(ty)? + 8)?
                }
                kind::ARRAY => {
                    let at = self.at(ty)?;
                    factor =
                        factor.checked_mul(self.word(at + 20)?).ok_or(Error::Malformed("an array is too large"))?;
                    ty = self.word(at + 12)?;
                    continue;
                }
                _ => return Err(Error::Malformed("a field's type has no size")),
            };
            return size.checked_mul(factor).ok_or(Error::Malformed("an array is too large"));
        }
        Err(Error::Malformed("arrays nested without end"))
    }

    fn kind(&self, ty: u32) -> Result<u32, Error> {
        if ty == 0 { Ok(0) } else { Ok(self.info(self.at(ty)?)?.0) }
    }

    fn at(&self, ty: u32) -> Result<u32, Error> {
        match self.types.get(ty as usize) {
            Some(&at) if ty != 0 => Ok(at),
            _ => Err(Error::Malformed("a reference to a type that is not there")),
        }
    }

    /// (kind, number of members) of the type at an offset. The upper bits of both are zero before Linux 7.2.
    fn info(&self, at: u32) -> Result<(u32, u32), Error> {
        let info = self.word(at + 4)?;
        Ok((info >> 24 & 0x7f, info & 0xff_ffff))
    }

    fn word(&self, at: u32) -> Result<u32, Error> {
        word(&self.data, at as usize)
    }

    /// Does the entry at an offset, whose first word is a name, have this one?
    fn is_named(&self, at: u32, name: &str) -> Result<bool, Error> {
        let strings = &self.data[self.strings.clone()];
        let start = self.word(at)? as usize;
        let rest = strings.get(start..).ok_or(Error::Malformed("a name lies outside of its section"))?;
        Ok(rest.get(name.len()) == Some(&0) && rest.starts_with(name.as_bytes()))
    }

    fn name(&self, start: u32) -> Result<&[u8], Error> {
        let strings = &self.data[self.strings.clone()];
        let rest = strings.get(start as usize..).ok_or(Error::Malformed("a name lies outside of its section"))?;
        let end = rest.iter().position(|&b| b == 0).ok_or(Error::Malformed("a name without an end"))?;
        Ok(&rest[..end])
    }
}

fn word(data: &[u8], at: usize) -> Result<u32, Error> {
    data.get(at..).and_then(|d| d.first_chunk()).map(|b| u32::from_le_bytes(*b)).ok_or(Error::Malformed("cut off"))
}

fn add(a: u32, b: u32) -> Result<u32, Error> {
    a.checked_add(b).ok_or(Error::Malformed("a field lies beyond all memory"))
}

/// FNV-1a.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests;
