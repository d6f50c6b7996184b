//! The kernel's own counters and counts of sockets of a network namespace: text of procfs in, names and values out.

use std::{fs, io};

use crate::frame::fact;

/// Those of [`fact::COUNTERS`] that the kernel has, of the namespace that the calling thread is in, in that order.
pub(super) fn read() -> io::Result<Vec<(String, u64)>> {
    let mut text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    text += &fs::read_to_string("/proc/thread-self/net/snmp")?;
    Ok(parse(&text))
}

/// Those of [`fact::GAUGES`] of the same namespace.
pub(super) fn gauges() -> io::Result<Vec<(String, u64)>> {
    let mut text = fs::read_to_string("/proc/thread-self/net/sockstat")?;
    // A kernel without IPv6 has none.
    text += &fs::read_to_string("/proc/thread-self/net/sockstat6").unwrap_or_default();
    Ok(parse_gauges(&text))
}

/// `TCP: inuse 3 orphan 0 tw 2 alloc 4 mem 1`; what stands in two lines is added.
fn parse_gauges(text: &str) -> Vec<(String, u64)> {
    let mut found = [None; fact::GAUGES.len()];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if !matches!(words.next(), Some("TCP:" | "TCP6:")) {
            continue;
        }
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if let (Some(i), Ok(n)) = (fact::GAUGES.iter().position(|g| *g == name), value.parse::<u64>()) {
                found[i] = Some(found[i].unwrap_or(0) + n);
            }
        }
    }
    fact::GAUGES.iter().zip(found).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
}

/// Lines come in pairs: `TcpExt: NAME NAME …`, then `TcpExt: VALUE VALUE …`.
fn parse(text: &str) -> Vec<(String, u64)> {
    let mut found = [None; fact::COUNTERS.len()];
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        // MPTcpExt has counters of the same names.
        if !matches!(pairs.next(), Some(("TcpExt:" | "Tcp:", section)) if names.starts_with(section)) {
            continue;
        }
        for (name, value) in pairs {
            if let Some(i) = fact::COUNTERS.iter().position(|c| *c == name) {
                found[i] = value.parse::<u64>().ok();
            }
        }
    }
    fact::COUNTERS.iter().zip(found).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn sections_and_order() {
        let text = "TcpExt: SyncookiesSent ListenDrops ListenOverflows TW\nTcpExt: 7 5 3 60\n\
                    IpExt: InNoRoutes ListenDrops\nIpExt: 0 99\n\
                    MPTcpExt: ListenDrops\nMPTcpExt: 98\n\
                    Tcp: RtoAlgorithm MaxConn PassiveOpens RetransSegs\nTcp: 1 -1 18446744073709551615 4\n";
        let wanted = [
            ("ListenOverflows", 3),
            ("ListenDrops", 5),
            ("SyncookiesSent", 7),
            ("PassiveOpens", u64::MAX),
            ("RetransSegs", 4),
        ];
        assert_eq!(parse(text), named(&wanted));
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(parse("TcpExt: ListenDrops ListenOverflows\nTcpExt: x\n"), []);
        assert_eq!(parse("TcpExt: ListenDrops\n"), []);
        assert_eq!(parse("TcpExt: ListenDrops\nTcp: 5\n"), []);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn sockets_of_both_families_are_added() {
        let text = "sockets: used 9\nTCP: inuse 3 orphan 1 tw 2 alloc 4 mem 1\nUDP: inuse 7 mem 0\nTCP6: inuse 4\nFRAG: inuse 1\n";
        assert_eq!(parse_gauges(text), named(&[("inuse", 7), ("orphan", 1), ("tw", 2)]));
        assert_eq!(parse_gauges("TCP: inuse\n"), []);
    }

    #[test]
    fn this_kernel_has_gauges() {
        let names: Vec<_> = gauges().expect("procfs").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, fact::GAUGES);
    }

    #[test]
    fn this_kernel_has_them() {
        let names: Vec<_> = read().expect("procfs").into_iter().map(|(name, _)| name).collect();
        for name in ["ListenOverflows", "ListenDrops", "SyncookiesSent", "PassiveOpens", "RetransSegs"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}
