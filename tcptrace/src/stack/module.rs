//! One ELF file of x86-64: what unwinding and naming need of it.

use std::{collections::HashMap, fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use framehop::ExplicitModuleSectionInfo;
use object::{
    Endianness,
    elf::{EM_X86_64, FileHeader64, PF_X, PT_LOAD, SHF_COMPRESSED, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB},
    read::{
        ReadCache,
        elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _},
    },
};

use super::{
    call::{self, ends_with_call},
    lines::{Lines, Place},
    maps::Mapping,
    symbols::{self, Symbols},
};

/// More of unwind tables is not read, bytes.
const MOST_UNWIND: u64 = 128 << 20;
/// More debug information is not read, bytes.
const MOST_DEBUG: u64 = 128 << 20;
/// Most addresses whose names are kept.
const MOST_NAMED: usize = 1 << 14;
/// A page, as the kernel rounds segments.
const PAGE: u64 = 4096;

/// Unwind tables as the unwinder takes them, with their bytes.
pub type Unwind = framehop::Module<Arc<[u8]>>;

/// See the module.
pub struct Module {
    file: File,
    /// Executable segments.
    code: Vec<Segment>,
    sections: ExplicitModuleSectionInfo<Arc<[u8]>>,
    /// Of the latest place that it was mapped at: some have no index of their own.
    unwind: Option<(u64, Unwind)>,
    symbols: Symbols,
    /// Where debug information is in the file, until it is read.
    debug: HashMap<String, Range<u64>>,
    lines: Option<Lines>,
    named: HashMap<u64, Arc<[Place]>>,
    /// Bytes that it takes.
    pub bytes: u64,
}

struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

impl Module {
    /// Read a file.
    ///
    /// # Errors
    /// It cannot be read, is no ELF file, or of another machine.
    pub fn read(file: File) -> io::Result<Self> {
        let cache = ReadCache::new(&file);
        let elf = |e: object::Error| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
        let header = FileHeader64::<Endianness>::parse(&cache).map_err(elf)?;
        let endian = header.endian().map_err(elf)?;
        if endian != Endianness::Little || header.e_machine(endian) != EM_X86_64 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let code = header.program_headers(endian, &cache).map_err(elf)?;
        let code = code.iter().filter(|s| s.p_type(endian) == PT_LOAD && s.p_flags(endian) & PF_X != 0);
        let code =
            code.map(|s| Segment { offset: s.p_offset(endian), address: s.p_vaddr(endian), size: s.p_filesz(endian) });
        let code: Vec<Segment> = code.collect();
        let table = header.sections(endian, &cache).map_err(elf)?;
        let mut places = HashMap::new();
        let mut debug = HashMap::new();
        for section in table.iter() {
            let Ok(name) = table.section_name(endian, section) else { continue };
            let (offset, size) = (section.sh_offset(endian), section.sh_size(endian));
            let plain =
                section.sh_type(endian) != SHT_NOBITS && section.sh_flags(endian) & u64::from(SHF_COMPRESSED) == 0;
            let (Ok(name), true, Some(end)) = (std::str::from_utf8(name), plain, offset.checked_add(size)) else {
                continue;
            };
            if name.starts_with(".debug_") {
                debug.insert(name.to_owned(), offset..end);
            } else {
                places.insert(name, (offset..end, section.sh_addr(endian)));
            }
        }
        if debug.values().map(|range| range.end - range.start).sum::<u64>() > MOST_DEBUG {
            debug.clear();
        }
        let mut bytes = 0;
        let mut take = |name: &str| {
            let (range, address) = places.get(name)?;
            let data = read_range(&file, range, MOST_UNWIND)?;
            bytes += data.len() as u64;
            Some((*address..*address + data.len() as u64, data))
        };
        let eh_frame = take(".eh_frame");
        let eh_frame_hdr = take(".eh_frame_hdr");
        let svma = |name: &str| places.get(name).map(|(range, address)| *address..*address + (range.end - range.start));
        let debug_frame = debug.get(".debug_frame").filter(|_| eh_frame.is_none());
        let sections = ExplicitModuleSectionInfo {
            base_svma: code.iter().map(|s| s.address).min().unwrap_or(0),
            text_svma: svma(".text"),
            got_svma: svma(".got"),
            debug_frame: debug_frame.and_then(|range| read_range(&file, range, MOST_UNWIND)),
            eh_frame_svma: eh_frame.as_ref().map(|(svma, _)| svma.clone()),
            eh_frame: eh_frame.map(|(_, data)| data),
            eh_frame_hdr_svma: eh_frame_hdr.as_ref().map(|(svma, _)| svma.clone()),
            eh_frame_hdr: eh_frame_hdr.map(|(_, data)| data),
            ..ExplicitModuleSectionInfo::default()
        };
        let mut symbols = Symbols::default();
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let size = |s: &_| object::read::elf::SectionHeader::sh_size(s, endian);
            let fits = table.iter().filter(|s| s.sh_type(endian) == kind).all(|s| size(s) <= symbols::MOST_BYTES);
            if symbols.is_empty() && fits {
                symbols = Symbols::read(endian, &cache, &table, kind);
            }
        }
        drop(cache);
        bytes += symbols.bytes();
        let (unwind, lines, named) = (None, None, HashMap::new());
        Ok(Self { file, code, sections, unwind, symbols, debug, lines, named, bytes })
    }

    /// The address in the file that `address` of a mapping of it stands for.
    pub fn stated(&self, mapping: &Mapping, address: u64) -> Option<u64> {
        Some(address.wrapping_sub(self.bias(mapping)?))
    }

    /// How much higher than stated it is mapped.
    fn bias(&self, mapping: &Mapping) -> Option<u64> {
        let is_in = |s: &&Segment| s.offset & !(PAGE - 1) <= mapping.offset && mapping.offset < s.offset + s.size;
        let segment = self.code.iter().find(is_in)?;
        Some(mapping.start.wrapping_sub(mapping.offset).wrapping_add(segment.offset).wrapping_sub(segment.address))
    }

    /// Is there a call right before this (stated) address?
    pub fn is_behind_call(&self, stated: u64) -> bool {
        let inside = |s: &&Segment| s.address <= stated && stated - s.address <= s.size;
        let Some(segment) = self.code.iter().find(inside) else { return false };
        let at = stated - segment.address;
        let mut before = [0; call::LONGEST];
        let len = call::LONGEST.min(at as usize);
        let before = &mut before[..len];
        self.file.read_exact_at(before, segment.offset + at - len as u64).is_ok() && ends_with_call(before)
    }

    /// Its unwind tables, for where it is mapped.
    pub fn unwind(&mut self, mapping: &Mapping) -> Option<Unwind> {
        if let Some((start, unwind)) = &self.unwind
            && *start == mapping.start
            && unwind.avma_range().end == mapping.end
        {
            return Some(unwind.clone());
        }
        let base = self.bias(mapping)?.wrapping_add(self.sections.base_svma);
        let range = mapping.start..mapping.end;
        let unwind = Unwind::new(mapping.path.clone(), range, base, self.sections.clone());
        self.unwind = Some((mapping.start, unwind.clone()));
        Some(unwind)
    }

    /// The functions at this (stated) address, the innermost first; one without a name if there is nothing to know.
    pub fn places(&mut self, stated: u64) -> Arc<[Place]> {
        if let Some(places) = self.named.get(&stated) {
            return Arc::clone(places);
        }
        if !self.debug.is_empty() {
            let (file, bytes) = (&self.file, &mut self.bytes);
            let debug = std::mem::take(&mut self.debug);
            self.lines = Lines::new(|name| {
                let data = read_range(file, debug.get(name)?, MOST_DEBUG)?;
                *bytes += data.len() as u64;
                Some(data)
            });
        }
        let mut places = self.lines.as_ref().map_or_else(Vec::new, |lines| lines.places(stated));
        if places.is_empty() {
            places.push(Place::default());
        }
        // Debug information may have no more than the last part of a name.
        if let Some(outermost) = places.last_mut()
            && let Some(name) = self.symbols.name(&self.file, stated)
        {
            outermost.function = Some(addr2line::demangle_auto(name.into(), None).into_owned());
        }
        if self.named.len() >= MOST_NAMED {
            self.named.clear();
        }
        let places: Arc<[Place]> = places.into();
        self.named.insert(stated, Arc::clone(&places));
        places
    }
}

/// These bytes of a file; None: there are none, too many, or they cannot be read.
fn read_range(file: &File, range: &Range<u64>, most: u64) -> Option<Arc<[u8]>> {
    let len = range.end.checked_sub(range.start).filter(|len| (1..=most).contains(len))?;
    // What a damaged header promises is not allocated.
    if file.metadata().ok()?.len() < range.end {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes.into())
}
