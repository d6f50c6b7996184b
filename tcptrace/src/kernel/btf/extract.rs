//! The type information of a few names, with the numbers that the whole gives them: what a loader needs that takes from it nothing but
//! where programs attach, and that would make 60 MB in small pieces of the whole.

use std::collections::HashSet;

use super::{Btf, Error, kind};

/// Bytes of the header.
const HEADER: u32 = 24;

impl Btf {
    /// Raw BTF that has the functions and typedefs of these names in their places, without what they are made of; in the place of
    /// any type before them there is a forward declaration without a name.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn extract(&self, names: &HashSet<String>) -> Result<Vec<u8>, Error> {
        let mut types = Vec::with_capacity(12 * self.types.len());
        let mut strings = vec![0];
        let mut end = 0;
        for &at in &self.types[1..] {
            let (kind, _) = self.info(at)?;
            let name = match kind {
                kind::FUNC | kind::TYPEDEF => std::str::from_utf8(self.name(self.word(at)?)?).unwrap_or_default(),
                _ => "",
            };
            let kept = !name.is_empty() && names.contains(name);
            let (at, kind) = if kept { (strings.len() as u32, kind) } else { (0, kind::FWD) };
            if kept {
                strings.extend(name.as_bytes());
                strings.push(0);
            }
            for word in [at, kind << 24, 0] {
                types.extend(word.to_le_bytes());
            }
            if kept {
                end = types.len();
            }
        }
        types.truncate(end);
        let (length, strings_length) = (types.len() as u32, strings.len() as u32);
        let header = [0x0001_eb9f, HEADER, 0, length, length, strings_length];
        let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.append(&mut types);
        bytes.append(&mut strings);
        Ok(bytes)
    }
}
