//! Address prefixes. A v4-mapped address is the IPv4 address that it holds.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Addresses that share their first `len` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bits behind `len` are zero; never v4-mapped.
    pub addr: IpAddr,
    /// Up to 32 or 128.
    pub len: u8,
}

impl Prefix {
    /// Clears the bits behind `len`; None if there are not so many.
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        match addr {
            IpAddr::V4(a) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Some(Self { addr: IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask)), len })
            }
            IpAddr::V6(a) if len <= 128 => {
                if let (Some(v4), 96..) = (a.to_ipv4_mapped(), len) {
                    return Self::new(IpAddr::V4(v4), len - 96);
                }
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Some(Self { addr: IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask)), len })
            }
            _ => None,
        }
    }

    /// `addr` must not be v4-mapped. The other family's addresses are never in it.
    #[must_use]
    pub fn contains(self, addr: IpAddr) -> bool {
        Self::new(addr, self.len).is_some_and(|p| p == self)
    }

    /// Is all of `other` in it?
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// `10.0.0.0/8`, `2001:db8::/32`, or one address.
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (addr, len) = match text.split_once('/') {
                Some((addr, len)) => (addr, Some(len.parse().ok()?)),
                None => (text, None),
            };
            let addr: IpAddr = addr.parse().ok()?;
            Self::new(addr, len.unwrap_or(if addr.is_ipv4() { 32 } else { 128 }))
        };
        parse().ok_or_else(|| format!("`{text}` is not an address or a prefix such as 10.0.0.0/8 or 2001:db8::/32"))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.addr.is_ipv4() { 32 } else { 128 };
        if self.len == whole { write!(f, "{}", self.addr) } else { write!(f, "{}/{}", self.addr, self.len) }
    }
}
