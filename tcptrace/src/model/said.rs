//! Sentences about what was seen, in parts: names from outside stay apart until a sink escapes them.

use super::{Process, comm_str};

/// A part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// Our own words, numbers and addresses.
    Text(String),
    /// From outside, not escaped.
    Name(Box<[u8]>),
    /// A duration, microseconds.
    Us(u64),
}

/// A sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said(pub Vec<Piece>);

impl Said {
    /// It begins with our own words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(vec![Piece::Text(text.into())])
    }

    /// Our own words follow.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.0.push(Piece::Text(text.into()));
        self
    }

    /// A name from outside follows.
    #[must_use]
    pub fn name(mut self, name: &[u8]) -> Self {
        self.0.push(Piece::Name(name.into()));
        self
    }

    /// A duration follows, microseconds.
    #[must_use]
    pub fn us(mut self, us: u64) -> Self {
        self.0.push(Piece::Us(us));
        self
    }

    /// ` (nginx[80])` follows, where that is known.
    #[must_use]
    pub fn owner(self, owner: Option<&Process>) -> Self {
        let Some(owner) = owner else { return self };
        self.text(" (").name(comm_str(&owner.comm)).text(format!("[{}])", owner.pid))
    }
}

/// `1 SYN`, `2 SYNs`.
#[must_use]
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
