//! The kernel's own counters of a network namespace: the text of `/proc/net/netstat` and `/proc/net/snmp` in, names and values out.

use std::{fs, io};

use crate::frame::fact;

/// Those of [`fact::COUNTERS`] that the kernel has, of the namespace that the calling thread is in, in that order.
pub(super) fn read() -> io::Result<Vec<(String, u64)>> {
    let mut text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    text += &fs::read_to_string("/proc/thread-self/net/snmp")?;
    Ok(parse(&text))
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
    fn this_kernel_has_them() {
        let names: Vec<_> = read().expect("procfs").into_iter().map(|(name, _)| name).collect();
        for name in ["ListenOverflows", "ListenDrops", "SyncookiesSent", "PassiveOpens", "RetransSegs"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}
