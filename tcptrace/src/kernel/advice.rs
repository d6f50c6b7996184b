//! What of a host's present settings will be trouble one day: values in, advice out. Pure.

use serde::Serialize;

/// A setting that should be another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The sysctl.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// What that means.
    pub means: String,
    /// What to do.
    pub advice: String,
    /// The rule that will find the trouble.
    pub rule: &'static str,
}

/// A queue of so many is what Linux itself has had by default since 5.4.
const SOMAXCONN: u64 = 4096;
/// Fewer than this are soon used up by one busy client.
const PORTS: u64 = 16_384;
/// Less is too little for a busy server; Linux takes more by itself on all but the smallest machines.
const SYN_BACKLOG: u64 = 512;
const TIME_WAITS: u64 = 16_384;
const ORPHANS: u64 = 4096;

/// What `value` (of a sysctl, None where the host lacks it) comes to.
#[must_use]
pub fn advice(value: &dyn Fn(&str) -> Option<String>) -> Vec<Advice> {
    let number = |name: &str| value(name).and_then(|text| text.trim().parse::<u64>().ok());
    let mut found = Vec::new();
    let mut add = |setting: &'static str, rule: &'static str, means: String, advice: &str| {
        let value = value(setting).unwrap_or_default();
        found.push(Advice { setting, value, means, advice: advice.to_owned(), rule });
    };
    let syncookies = number("net.ipv4.tcp_syncookies");
    match syncookies {
        Some(0) => add(
            "net.ipv4.tcp_syncookies",
            "syn-flood",
            "a SYN flood that fills the SYN queue turns all new clients away".to_owned(),
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        Some(2) => add(
            "net.ipv4.tcp_syncookies",
            "syn-flood",
            "every connection is made by a cookie, flood or not, and loses options where timestamps are off".to_owned(),
            "sysctl -w net.ipv4.tcp_syncookies=1: cookies only when the SYN queue is full",
        ),
        _ => {}
    }
    if number("net.ipv4.tcp_timestamps") == Some(0) && syncookies != Some(0) {
        add(
            "net.ipv4.tcp_timestamps",
            "syn-flood",
            "connections made by a SYN cookie have neither window scaling nor SACK, and TIME_WAIT ports are not reused"
                .to_owned(),
            "sysctl -w net.ipv4.tcp_timestamps=1",
        );
    }
    if let Some(n) = number("net.core.somaxconn").filter(|n| *n < SOMAXCONN) {
        add(
            "net.core.somaxconn",
            "backlog-too-small",
            format!("whatever listen() asks for, an accept queue holds {} at most", n + 1),
            "sysctl -w net.core.somaxconn=4096, then restart the servers: listen() reads it",
        );
    }
    if let Some(n) = number("net.ipv4.tcp_max_syn_backlog").filter(|n| *n < SYN_BACKLOG) {
        let means = if syncookies == Some(0) {
            format!(
                "without cookies, SYNs of clients that were not seen before are dropped when {} requests wait",
                n - n / 4
            )
        } else {
            format!("a bound of {n} requests is for very small machines")
        };
        add("net.ipv4.tcp_max_syn_backlog", "syn-flood", means, "sysctl -w net.ipv4.tcp_max_syn_backlog=4096");
    }
    if number("net.ipv4.tcp_abort_on_overflow") == Some(1) {
        add(
            "net.ipv4.tcp_abort_on_overflow",
            "accept-overflow",
            "a client whose final ACK meets a full accept queue is reset, where it would else try again".to_owned(),
            "sysctl -w net.ipv4.tcp_abort_on_overflow=0, unless clients are known to retry at once elsewhere",
        );
    }
    if let Some(n) = value("net.ipv4.ip_local_port_range").and_then(|range| ports(&range)).filter(|n| *n < PORTS) {
        add(
            "net.ipv4.ip_local_port_range",
            "ephemeral-ports",
            format!("connect() has {n} ports for each address that it connects to"),
            "sysctl -w net.ipv4.ip_local_port_range='10240 60999', as far as no server listens there",
        );
    }
    if let Some(n) = number("net.ipv4.tcp_max_tw_buckets").filter(|n| *n < TIME_WAITS) {
        add(
            "net.ipv4.tcp_max_tw_buckets",
            "time-wait-pressure",
            format!(
                "more than {n} connections in TIME_WAIT are cut off, and late segments of theirs can disturb new ones"
            ),
            "sysctl -w net.ipv4.tcp_max_tw_buckets=65536 or more",
        );
    }
    if let Some(n) = number("net.ipv4.tcp_max_orphans").filter(|n| *n < ORPHANS) {
        add(
            "net.ipv4.tcp_max_orphans",
            "fin-wait2-orphans",
            format!("more than {n} connections that their process has closed are reset before their data is delivered"),
            "sysctl -w net.ipv4.tcp_max_orphans=8192 or more; each takes up to 64 KB",
        );
    }
    if let Some(s) = number("net.ipv4.tcp_fin_timeout").filter(|s| *s > 60) {
        add(
            "net.ipv4.tcp_fin_timeout",
            "fin-wait2-orphans",
            format!("a connection whose peer never closes lives {s} s longer than its process wants it"),
            "sysctl -w net.ipv4.tcp_fin_timeout=60",
        );
    }
    found
}

/// How many ports a range has: `32768 60999`.
fn ports(range: &str) -> Option<u64> {
    let mut ends = range.split_whitespace().map(|n| n.parse::<u64>().ok());
    let (first, last) = (ends.next()??, ends.next()??);
    (last + 1).checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[(&str, &str)]) -> Vec<&'static str> {
        let value = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        advice(&value).into_iter().map(|a| a.setting).collect()
    }

    #[test]
    fn what_linux_has_by_default_is_fine() {
        let defaults = [
            ("net.ipv4.tcp_syncookies", "1"),
            ("net.ipv4.tcp_timestamps", "1"),
            ("net.core.somaxconn", "4096"),
            ("net.ipv4.tcp_max_syn_backlog", "1024"),
            ("net.ipv4.tcp_abort_on_overflow", "0"),
            ("net.ipv4.ip_local_port_range", "32768\t60999"),
            ("net.ipv4.tcp_max_tw_buckets", "131072"),
            ("net.ipv4.tcp_max_orphans", "65536"),
            ("net.ipv4.tcp_fin_timeout", "60"),
        ];
        assert!(of(&defaults).is_empty(), "{:?}", of(&defaults));
        assert!(of(&[]).is_empty(), "what is not known is not judged");
    }

    #[test]
    fn each_is_found() {
        for (setting, value) in [
            ("net.ipv4.tcp_syncookies", "0"),
            ("net.ipv4.tcp_syncookies", "2"),
            ("net.ipv4.tcp_timestamps", "0"),
            ("net.core.somaxconn", "128"),
            ("net.ipv4.tcp_max_syn_backlog", "128"),
            ("net.ipv4.tcp_abort_on_overflow", "1"),
            ("net.ipv4.ip_local_port_range", "50000 51000"),
            ("net.ipv4.tcp_max_tw_buckets", "1024"),
            ("net.ipv4.tcp_max_orphans", "100"),
            ("net.ipv4.tcp_fin_timeout", "300"),
        ] {
            assert_eq!(of(&[(setting, value)]), [setting], "{value}");
        }
    }
}
