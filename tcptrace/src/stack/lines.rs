//! Debug information of a file: addresses in, functions that were inlined there, files and lines out.

use std::{borrow::Cow, sync::Arc};

use addr2line::Context;
use gimli::{Dwarf, EndianArcSlice, Error, LittleEndian, SectionId};

type Reader = EndianArcSlice<LittleEndian>;

/// See the module.
pub struct Lines(Context<Reader>);

/// A function at an address, and where in its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its name, demangled.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u32>,
}

impl Lines {
    /// Of a file whose sections `section` gives. None: it has no debug information, or none that can be read.
    pub fn new(mut section: impl FnMut(&str) -> Option<Arc<[u8]>>) -> Option<Self> {
        section(SectionId::DebugInfo.name()).filter(|bytes| !bytes.is_empty())?;
        let load = |id: SectionId| -> Result<Reader, Error> {
            Ok(EndianArcSlice::new(section(id.name()).unwrap_or_else(|| Arc::from([])), LittleEndian))
        };
        Context::from_dwarf(Dwarf::load(load).ok()?).ok().map(Self)
    }

    /// The functions at this address, the innermost of those that were inlined first. None at all: nothing is known of it.
    pub fn places(&self, address: u64) -> Vec<Place> {
        let mut places = Vec::new();
        let Ok(mut frames) = self.0.find_frames(address).skip_all_loads() else { return places };
        // What is damaged further on leaves what came before.
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|f| f.demangle().ok().map(Cow::into_owned));
            let location = frame.location.as_ref();
            places.push(Place {
                function: name,
                file: location.and_then(|l| l.file).map(str::to_owned),
                line: location.and_then(|l| l.line),
            });
        }
        places
    }
}
