//! Names of functions by address: `.symtab`, or what is left of it in `.dynsym`.

use std::{cmp::Reverse, fs::File, os::unix::fs::FileExt as _};

use object::{
    Endianness,
    elf::{FileHeader64, SHN_UNDEF, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE},
    read::{
        ReadRef,
        elf::{SectionHeader as _, SectionTable, Sym as _},
    },
};

/// A larger symbol table is not read, bytes.
pub const MOST_BYTES: u64 = 256 << 20;
/// Longest name that is read, bytes.
const LONGEST: usize = 16 << 10;

/// A function; its name stays in the file.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    size: u32,
    name: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Symbols {
    /// By address.
    sorted: Vec<Symbol>,
    /// Where in the file names begin.
    names_at: u64,
}

impl Symbols {
    /// Those of one of a file's tables, `SHT_SYMTAB` or `SHT_DYNSYM`; none if it has no such table.
    pub fn read<'a, R: ReadRef<'a>>(
        endian: Endianness,
        data: R,
        sections: &SectionTable<'a, FileHeader64<Endianness>, R>,
        kind: u32,
    ) -> Self {
        let Ok(table) = sections.symbols(endian, data, kind) else { return Self::default() };
        let Ok(names) = sections.section(table.string_section()) else { return Self::default() };
        let is_function = |s: &&object::elf::Sym64<Endianness>| {
            matches!(s.st_type(), STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE)
                && s.st_shndx(endian) != SHN_UNDEF
                && s.st_name(endian) != 0
                && s.st_value(endian) != 0
        };
        let symbol = |s: &object::elf::Sym64<Endianness>| Symbol {
            address: s.st_value(endian),
            size: u32::try_from(s.st_size(endian)).unwrap_or(u32::MAX),
            name: s.st_name(endian),
        };
        let mut sorted: Vec<Symbol> = table.iter().filter(is_function).map(symbol).collect();
        sorted.sort_unstable_by_key(|s| s.address);
        sorted.shrink_to_fit();
        Self { sorted, names_at: names.sh_offset(endian) }
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        (self.sorted.len() * size_of::<Symbol>()) as u64
    }

    /// The function that has this address, as the symbol table spells it. One whose size is not told reaches up to the next one.
    pub fn name(&self, file: &File, address: u64) -> Option<String> {
        let behind = self.sorted.partition_point(|s| s.address <= address);
        let start = self.sorted[..behind].last()?.address;
        let first = self.sorted[..behind].partition_point(|s| s.address < start);
        let fitting = self.sorted[first..behind].iter().filter(|s| s.size == 0 || address - start < u64::from(s.size));
        let names = fitting.filter_map(|s| Some((s.size == 0, self.read_name(file, s.name)?)));
        // Of several names the plainest: connect, not __connect.
        let underscores = |name: &str| name.len() - name.trim_start_matches('_').len();
        names
            .min_by_key(|(sizeless, name)| (*sizeless, underscores(name), name.len(), Reverse(name.clone())))
            .map(|n| n.1)
    }

    fn read_name(&self, file: &File, at: u32) -> Option<String> {
        let mut name = vec![0; 256];
        loop {
            let read = file.read_at(&mut name, self.names_at + u64::from(at)).ok()?;
            if let Some(end) = name[..read].iter().position(|&b| b == 0) {
                return (end > 0).then(|| String::from_utf8_lossy(&name[..end]).into_owned());
            }
            if read < name.len() || name.len() >= LONGEST {
                return None;
            }
            name.resize(LONGEST, 0);
        }
    }
}
