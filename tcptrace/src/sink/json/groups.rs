//! The object about connections that have something in common.

use std::{io::Write, net::IpAddr};

use super::{
    encode::{Inner, Out, Text, Value},
    object::object,
};
use crate::{
    group::{self, Group, Groups, Key, Quantiles},
    model::End,
};

object! {
    /// Connections that have something in common (`conns --by`), at the end of the trace; the largest group first. It has the fields
    /// that were asked for; one of them is absent where these connections have none, or it is not known.
    pub struct GroupObject<'a> = "group" {
        /// Microseconds that connections were counted for.
        elapsed_us: u64,
        /// Owner: name of the thread-group leader.
        comm: Option<Text<'a>>,
        /// Owner: thread group.
        pid: Option<u64>,
        /// Owner: user id.
        uid: Option<u64>,
        /// `client`, `server` or `listener`.
        role: Option<Text<'a>>,
        /// Local address, IPv4 where it is v4-mapped.
        laddr: Option<IpAddr>,
        /// Local port.
        lport: Option<u64>,
        /// Remote address, IPv4 where it is v4-mapped.
        raddr: Option<IpAddr>,
        /// Remote port.
        rport: Option<u64>,
        /// Network namespace.
        netns: Option<u64>,
        /// Container of the owner: its name, or its id.
        container: Option<Text<'a>>,
        /// Pod of that container: its name, or its uid.
        pod: Option<Text<'a>>,
        /// systemd unit of the owner.
        unit: Option<Text<'a>>,
        /// cgroup of the owner.
        cgroup: Option<Text<'a>>,
        /// How they ended, as in `connection`.
        end: Option<Text<'a>>,
        /// `true`: connections of all groups that there was no room for, beyond the first 100,000.
        other: Option<bool>,
        /// Connections.
        count: u64,
        /// Connections a second.
        per_second: Rate,
        /// How many ended how, by the names of `end` in `connection`; `unknown`: the records that would tell were lost.
        ends: Ends<'a>,
        /// Lifetimes: `p50`, `p99`, each within 3 %. Of connections that began and ended in the trace.
        duration_us: Option<Quantiles>,
        /// Handshakes, likewise.
        handshake_us: Option<Quantiles>,
        /// Smoothed round-trip times at the end, likewise.
        srtt_us: Option<Quantiles>,
        /// Payload bytes sent, retransmitted ones included, as far as counters are known.
        bytes_sent: u64,
        /// Payload bytes received in order, likewise.
        bytes_received: u64,
    }
}

impl<'a> GroupObject<'a> {
    /// One for each group, in their order.
    pub(super) fn all(elapsed_us: u64, groups: &'a Groups) -> impl Iterator<Item = Self> {
        let known = groups.sorted().into_iter().map(move |(values, group)| {
            Self::new(elapsed_us, |key| groups.keys().iter().position(|k| *k == key).map(|i| &values[i]), group)
        });
        let other = groups.other().map(|group| Self { other: Some(true), ..Self::new(elapsed_us, |_| None, group) });
        known.chain(other)
    }

    fn new(elapsed_us: u64, value: impl Fn(Key) -> Option<&'a group::Value>, group: &'a Group) -> Self {
        let number = |key| match value(key) {
            Some(group::Value::Number(n)) => Some(*n),
            _ => None,
        };
        let text = |key| match value(key) {
            Some(group::Value::Text(text)) => Some(Text(text)),
            _ => None,
        };
        let address = |key| match value(key) {
            Some(group::Value::Address(addr)) => Some(*addr),
            _ => None,
        };
        Self {
            elapsed_us,
            comm: text(Key::Comm),
            pid: number(Key::Pid),
            uid: number(Key::Uid),
            role: text(Key::Role),
            laddr: address(Key::Laddr),
            lport: number(Key::Lport),
            raddr: address(Key::Raddr),
            rport: number(Key::Rport),
            netns: number(Key::Netns),
            container: text(Key::Container),
            pod: text(Key::Pod),
            unit: text(Key::Unit),
            cgroup: text(Key::Cgroup),
            end: text(Key::End),
            other: None,
            count: group.count,
            per_second: Rate { n: group.count, us: elapsed_us },
            ends: Ends(group),
            duration_us: group.lifetime.quantiles(),
            handshake_us: group.handshake.quantiles(),
            srtt_us: group.rtt.quantiles(),
            bytes_sent: group.bytes_sent,
            bytes_received: group.bytes_received,
        }
    }
}

impl Value for IpAddr {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        write!(out.buffer, "\"{self}\"").expect("a Vec takes everything");
    }
}

/// `n` in `us` microseconds, a second: three digits behind the point.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// How many.
    pub n: u64,
    /// In so many microseconds.
    pub us: u64,
}

impl Value for Rate {
    const JSON: &'static str = "number";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        self.us > 0
    }
    fn write(&self, out: &mut Out) {
        let thousandths = u128::from(self.n) * 1_000_000_000 / u128::from(self.us);
        write!(out.buffer, "{}.{:03}", thousandths / 1000, thousandths % 1000).expect("a Vec takes everything");
    }
}

/// `{"fin":1190,"refused":14}`.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a>(pub &'a Group);

impl Value for Ends<'_> {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        for (end, n) in self.0.ends() {
            inner.field(end.map_or("unknown", End::name), Some(n));
        }
        inner.end();
    }
}

impl Value for Quantiles {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        inner.field("p50", Some(self.p50));
        inner.field("p99", Some(self.p99));
        inner.end();
    }
}
