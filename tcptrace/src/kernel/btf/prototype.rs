//! Prototypes of kernel functions and of tracepoints: names in, kinds of arguments by position out.

use std::collections::HashMap;

use super::{Btf, Error, kind};

/// Arguments and result of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Number of the function's type, or of the tracepoint's.
    pub number: u32,
    /// By position.
    pub args: Vec<Type>,
    /// [`Type::Void`] when it returns nothing.
    pub returns: Type,
}

/// What a value is, as far as a hook must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing; also an argument list that goes on (`...`).
    Void,
    /// Pointer to a struct or union of this name; empty: to anything else.
    Pointer(String),
    /// Integer, boolean or enumerator.
    Integer,
    /// Anything else, for example a struct by value.
    Other,
}

impl Btf {
    /// Prototypes of functions, by name, in one pass over all types. Functions that the kernel does not describe are missing:
    /// those that were inlined everywhere, and those whose compiled arguments are not those of the source.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn functions(&self, names: &[&str]) -> Result<HashMap<String, Prototype>, Error> {
        self.prototypes(names, kind::FUNC)
    }

    /// Prototypes of tracepoints (`btf_trace_NAME`), by name, without the first argument, which programs do not get.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn tracepoints(&self, names: &[&str]) -> Result<HashMap<String, Prototype>, Error> {
        let types: Vec<_> = names.iter().map(|name| format!("{TRACE}{name}")).collect();
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        let found = self.prototypes(&types, kind::TYPEDEF)?;
        Ok(found
            .into_iter()
            .map(|(name, mut prototype)| {
                prototype.args.drain(..1.min(prototype.args.len()));
                (name[TRACE.len()..].to_owned(), prototype)
            })
            .collect())
    }

    fn prototypes(&self, names: &[&str], wanted: u32) -> Result<HashMap<String, Prototype>, Error> {
        let mut found = HashMap::new();
        for (number, &at) in (1..).zip(&self.types[1..]) {
            if self.info(at)?.0 != wanted {
                continue;
            }
            let name = self.name(self.word(at)?)?;
            let Some(name) = names.iter().find(|n| n.as_bytes() == name) else { continue };
            if let Some(prototype) = self.prototype(number, self.word(at + 8)?)? {
                found.entry((*name).to_owned()).or_insert(prototype);
            }
        }
        Ok(found)
    }

    /// Of a function type, or of a pointer to one.
    fn prototype(&self, number: u32, ty: u32) -> Result<Option<Prototype>, Error> {
        let mut ty = self.strip(ty)?;
        if self.kind(ty)? == kind::PTR {
            ty = self.strip(self.word(self.at(ty)? + 8)?)?;
        }
        if self.kind(ty)? != kind::FUNC_PROTO {
            return Ok(None);
        }
        let at = self.at(ty)?;
        let (_, count) = self.info(at)?;
        let args = (0..count).map(|i| self.type_of(self.word(at + 12 + 8 * i + 4)?)).collect::<Result<_, _>>()?;
        Ok(Some(Prototype { number, args, returns: self.type_of(self.word(at + 8)?)? }))
    }

    fn type_of(&self, ty: u32) -> Result<Type, Error> {
        let ty = self.strip(ty)?;
        Ok(match self.kind(ty)? {
            0 => Type::Void,
            kind::INT | kind::ENUM | kind::ENUM64 => Type::Integer,
            kind::PTR => {
                let to = self.strip(self.word(self.at(ty)? + 8)?)?;
                match self.kind(to)? {
                    kind::STRUCT | kind::UNION | kind::FWD => {
                        let name = self.name(self.word(self.at(to)?)?)?;
                        Type::Pointer(String::from_utf8_lossy(name).into_owned())
                    }
                    _ => Type::Pointer(String::new()),
                }
            }
            _ => Type::Other,
        })
    }
}

/// The kernel describes a tracepoint's arguments by a type of this name.
const TRACE: &str = "btf_trace_";
