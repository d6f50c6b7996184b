//! Describes each JSON object once: [`object!`] makes the struct, its encoder and its part of the event reference.

use super::encode::{Out, Value};

/// A field of an object, or several.
pub trait Field {
    /// For the documentation.
    const KIND: Kind;
    /// Append `,"name":value` (`key` is `,"name":`) if it is known.
    fn put(&self, key: &'static str, out: &mut Out);
}

/// See [`Field::KIND`].
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One value, always there.
    Always(&'static str),
    /// One value, absent where it is not known.
    Known(&'static str),
    /// Fields of its own.
    Fields(&'static [Doc]),
}

/// Name, type, meaning.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// Of the field.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Lines of its comment.
    pub doc: &'static [&'static str],
}

/// An object's part of the event reference.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// `type`.
    pub name: &'static str,
    /// Lines of its comment.
    pub doc: &'static [&'static str],
    /// In the order of the JSON.
    pub fields: &'static [Doc],
}

impl<T: Value> Field for T {
    const KIND: Kind = if T::MAY_BE_ABSENT { Kind::Known(T::JSON) } else { Kind::Always(T::JSON) };
    #[inline(always)]
    fn put(&self, key: &'static str, out: &mut Out) {
        if self.is_known() {
            out.raw(key.as_bytes());
            self.write(out);
        }
    }
}

impl<T: Value> Field for Option<T> {
    const KIND: Kind = Kind::Known(T::JSON);
    #[inline(always)]
    fn put(&self, key: &'static str, out: &mut Out) {
        if let Some(value) = self {
            value.put(key, out);
        }
    }
}

/// Fields that several objects share, or, with `= "type"`, an object.
macro_rules! object {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident $(<$life:lifetime>)? $(= $json:literal)? {
            $($(#[doc = $field_doc:literal])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub struct $name $(<$life>)? {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl $(<$life>)? $name $(<$life>)? {
            const FIELDS: &'static [$crate::sink::json::object::Doc] = &[$($crate::sink::json::object::Doc {
                name: stringify!($field),
                kind: <$type as $crate::sink::json::object::Field>::KIND,
                doc: &[$($field_doc),*],
            }),*];

            #[inline(always)]
            fn fields(&self, out: &mut $crate::sink::json::encode::Out) {
                $($crate::sink::json::object::Field::put(&self.$field, concat!(",\"", stringify!($field), "\":"), out);)*
            }
        }

        object!(@ $name $(<$life>)? [$($doc),*] $($json)?);
    };
    (@ $name:ident $(<$life:lifetime>)? [$($doc:literal),*] $json:literal) => {
        impl $(<$life>)? $name $(<$life>)? {
            /// Its part of the event reference.
            pub const REFERENCE: $crate::sink::json::object::Reference =
                $crate::sink::json::object::Reference { name: $json, doc: &[$($doc),*], fields: Self::FIELDS };

            /// Append it as a line; `mono_ns` is CLOCK_MONOTONIC.
            #[inline]
            pub fn encode(&self, mono_ns: u64, buffer: &mut Vec<u8>, encoder: &mut $crate::sink::json::encode::Encoder) {
                let mut out = $crate::sink::json::encode::Out { buffer, encoder };
                out.raw(concat!("{\"v\":1,\"type\":\"", $json, "\",").as_bytes());
                out.head(mono_ns);
                self.fields(&mut out);
                out.raw(b"}\n");
            }
        }
    };
    (@ $name:ident $(<$life:lifetime>)? [$($doc:literal),*]) => {
        impl $(<$life>)? $crate::sink::json::object::Field for $name $(<$life>)? {
            const KIND: $crate::sink::json::object::Kind = $crate::sink::json::object::Kind::Fields(Self::FIELDS);
            #[inline(always)]
            fn put(&self, _: &'static str, out: &mut $crate::sink::json::encode::Out) {
                self.fields(out);
            }
        }
    };
}
pub(super) use object;
