//! Ours against the kernel's: counters of a network namespace and `sk_drops`, between two moments of rest.
//!
//! Only what the loaded signals claim to see exactly is compared. What each counter counts (Linux 6.1 to 7.2):
//!
//! | counter | where | ours |
//! |---|---|---|
//! | ListenOverflows | `tcp_conn_request`, `tcp_v4/v6_syn_recv_sock`: accept queue full | full at SYN + full at ACK |
//! | ListenDrops | every `tcp_listendrop`: both overflows, SYN queue full, no memory or route | all drops of SYNs and final ACKs |
//! | TCPReqQFullDrop | `tcp_syn_flood_action` without cookies | SYN queue full, without the `tcp_max_syn_backlog` rule |
//! | TCPReqQFullDoCookies | `tcp_syn_flood_action` with cookies, before the accept queue is looked at | cookies sent; not comparable where SYNs were dropped after it |
//! | SyncookiesSent | `cookie_init_sequence` | cookies sent |
//! | SyncookiesRecv | `cookie_v4/v6_check`, before the child is made | cookies that became connections; not comparable where a child could not be made |
//! | EmbryonicRsts | `tcp_check_req`: RST, SYN in the window, abort on overflow | RSTs |
//! | PassiveOpens | `tcp_create_openreq_child`: every child, phantoms too | completed + phantoms |
//! | `sk_drops` | every `tcp_listendrop` of one listener, and every segment that `tcp_check_req` lets go | as ListenDrops, + segments not taken. RSTs and FINs that are of no connection count there, too, and pass no hook |
//!
//! SyncookiesFailed and TCPDeferAcceptDrop pass no hook.

use std::collections::BTreeMap;

use tcptrace_common::queue::{ListenerTotals, drop};

use super::super::signals::Signals;
use crate::{frame::fact, model::Residual};

/// Counts of all listeners of a network namespace, as far as the kernel has a counter for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    completed: u64,
    phantoms: u64,
    cookies_sent: u64,
    cookies_ok: u64,
    dropped: [u64; drop::COUNT],
    by_rule: u64,
}

impl Sums {
    pub fn add(&mut self, t: &ListenerTotals) {
        self.completed += t.completed;
        self.phantoms += t.phantoms;
        self.cookies_sent += t.cookies_sent;
        self.cookies_ok += t.cookies_ok;
        self.dropped.iter_mut().zip(t.dropped).for_each(|(sum, n)| *sum += n);
        self.by_rule += t.by_rule;
    }

    fn since(&self, base: &Self) -> Self {
        let mut dropped = self.dropped;
        dropped.iter_mut().zip(base.dropped).for_each(|(n, before)| *n -= before);
        Self {
            completed: self.completed - base.completed,
            phantoms: self.phantoms - base.phantoms,
            cookies_sent: self.cookies_sent - base.cookies_sent,
            cookies_ok: self.cookies_ok - base.cookies_ok,
            dropped,
            by_rule: self.by_rule - base.by_rule,
        }
    }

    /// SYNs and final ACKs that went through `tcp_listendrop`.
    pub fn listen_drops(&self) -> u64 {
        [drop::SYN_QUEUE_FULL, drop::ACCEPT_QUEUE_FULL_SYN, drop::ACCEPT_QUEUE_FULL_ACK, drop::OTHER]
            .iter()
            .map(|&i| self.dropped[i])
            .sum()
    }
}

/// Counters and sums of the same moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Moment {
    pub counters: BTreeMap<String, u64>,
    pub sums: Sums,
    /// Nothing happened between the reading of the two.
    pub rest: bool,
}

/// What `sk_drops` of a listener should have grown by.
pub(super) fn listener_drops(t: &ListenerTotals) -> u64 {
    let mut sums = Sums::default();
    sums.add(t);
    sums.listen_drops() + t.not_taken
}

/// What a namespace's counters should have grown by between two moments, for those that `signals` see exactly.
pub(super) fn compare(netns: u32, base: &Moment, now: &Moment, signals: &Signals, out: &mut Vec<Residual>) {
    let ours = now.sums.since(&base.sums);
    let d = ours.dropped;
    let (at_syn, at_ack) = (d[drop::ACCEPT_QUEUE_FULL_SYN], d[drop::ACCEPT_QUEUE_FULL_ACK]);
    let syn = signals.syn_outcome;
    let made = signals.accept_queue && signals.cookies && signals.fast_open;
    let claims: [_; fact::AUDITED.len()] = [
        ("ListenOverflows", syn && signals.overflow, at_syn + at_ack),
        ("ListenDrops", syn && signals.overflow, ours.listen_drops()),
        ("TCPReqQFullDrop", syn, d[drop::SYN_QUEUE_FULL].saturating_sub(ours.by_rule)),
        ("TCPReqQFullDoCookies", signals.cookies && syn && at_syn + d[drop::OTHER] == 0, ours.cookies_sent),
        ("SyncookiesSent", signals.cookies, ours.cookies_sent),
        ("SyncookiesRecv", signals.cookies && signals.overflow && at_ack == 0, ours.cookies_ok),
        ("EmbryonicRsts", signals.half_open, d[drop::RST]),
        ("PassiveOpens", made, ours.completed + ours.phantoms),
    ];
    for (name, claimed, ours) in claims {
        let growth = now.counters.get(name).zip(base.counters.get(name)).map(|(now, base)| now.saturating_sub(*base));
        if let Some(kernel) = growth.filter(|&kernel| claimed && (kernel != 0 || ours != 0)) {
            out.push(Residual { netns, counter: name.to_owned(), listener: None, kernel, ours });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Signals {
        Signals {
            half_open: true,
            syn_outcome: true,
            accept_queue: true,
            overflow: true,
            cookies: true,
            fast_open: true,
            ..Signals::default()
        }
    }

    fn moment(counters: &[(&str, u64)], sums: Sums) -> Moment {
        Moment { counters: counters.iter().map(|&(n, v)| (n.to_owned(), v)).collect(), sums, rest: true }
    }

    fn compared(counters: &[(&str, u64)], sums: Sums, signals: &Signals) -> Vec<(String, u64, u64)> {
        let base: Vec<_> = counters.iter().map(|&(n, _)| (n, 5)).collect();
        let now: Vec<_> = counters.iter().map(|&(n, v)| (n, v + 5)).collect();
        let mut out = Vec::new();
        compare(1, &moment(&base, Sums::default()), &moment(&now, sums), signals, &mut out);
        out.into_iter().map(|r| (r.counter, r.kernel, r.ours)).collect()
    }

    #[test]
    fn each_counter_is_compared_with_what_it_counts() {
        let sums = Sums {
            completed: 10,
            phantoms: 2,
            cookies_sent: 4,
            cookies_ok: 3,
            dropped: [7, 0, 0, 6, 9, 0, 0],
            by_rule: 1,
        };
        let counters = [
            ("ListenOverflows", 0),
            ("ListenDrops", 7),
            ("TCPReqQFullDrop", 6),
            ("TCPReqQFullDoCookies", 4),
            ("SyncookiesSent", 4),
            ("SyncookiesRecv", 3),
            ("EmbryonicRsts", 6),
            ("PassiveOpens", 12),
        ];
        let got = compared(&counters, sums, &all());
        assert_eq!(got.len(), 7, "one is zero on both sides: {got:?}");
        assert!(got.iter().all(|(name, _, _)| fact::AUDITED.contains(&name.as_str())), "{got:?}");
        assert_eq!(counters.map(|(name, _)| name), fact::AUDITED);
        assert!(got.iter().all(|(_, kernel, ours)| kernel == ours), "{got:?}");
    }

    #[test]
    fn a_listener_drops_what_its_requests_do_not_take() {
        let mut totals: ListenerTotals = zerocopy::FromZeros::new_zeroed();
        totals.dropped[drop::SYN_QUEUE_FULL] = 2;
        totals.dropped[drop::ACCEPT_QUEUE_FULL_SYN] = 3;
        assert_eq!(listener_drops(&totals), 5);
        // A RST counts once, a final ACK that met a full accept queue twice.
        totals.dropped[drop::RST] = 1;
        totals.dropped[drop::ACCEPT_QUEUE_FULL_ACK] = 1;
        totals.not_taken = 2;
        assert_eq!(listener_drops(&totals), 8);
    }

    #[test]
    fn what_is_counted_elsewhere_too_is_not_claimed() {
        let sums = Sums { cookies_sent: 4, cookies_ok: 2, dropped: [0, 1, 1, 0, 0, 0, 0], ..Sums::default() };
        let counters = [("TCPReqQFullDoCookies", 5), ("SyncookiesRecv", 3), ("ListenDrops", 3), ("ListenOverflows", 2)];
        assert_eq!(
            compared(&counters, sums, &all()),
            [("ListenOverflows".to_owned(), 2, 2), ("ListenDrops".to_owned(), 3, 2)]
        );
        assert_eq!(compared(&counters, sums, &Signals::default()), []);
    }
}
