//! Addresses as records have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of a record; what a socket of both families sees of IPv4 (`::ffff:10.0.0.1`) is the IPv4 address.
#[must_use]
pub fn address(family: u16, bytes: &[u8; 16]) -> IpAddr {
    if family == 2 {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(*bytes)).to_canonical()
    }
}
