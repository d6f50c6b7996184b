//! Ranges of ports.

use std::{fmt, str::FromStr};

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// At least 1.
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
}

impl Ports {
    /// In the range?
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for Ports {
    type Err = String;

    /// `80` or `8000-8100`.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |s: &str| s.parse::<u16>().ok().filter(|&p| p != 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not a port or a range of ports such as 8000-8100")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}
