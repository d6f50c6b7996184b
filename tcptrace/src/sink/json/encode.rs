//! Values → JSON bytes, appended to a reused buffer: no allocation, no formatting machinery but for IPv6.

use std::{io::Write, net::Ipv6Addr};

use crate::{
    model::{
        CloseSegments, ClosedBy, Detail, End, Inferred, Left, LimitedBy, Outcome, Patterns, Process, Role, State,
        Timeline,
    },
    sink::{escape, time::Stamp},
};

/// The buffer, and what turns monotonic time into wall-clock time.
#[derive(Debug, Default)]
pub struct Encoder {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC; None before the first `Clock` fact.
    pub offset_ns: Option<i64>,
    ts: Stamp,
    start: Stamp,
}

/// What a value needs besides itself.
#[derive(Debug)]
pub struct Out<'a> {
    /// Appended to.
    pub buffer: &'a mut Vec<u8>,
    pub(super) encoder: &'a mut Encoder,
}

impl Out<'_> {
    /// Append what is JSON already.
    #[inline(always)]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    #[inline(always)]
    fn quoted(&mut self, name: &str) {
        self.buffer.push(b'"');
        self.raw(name.as_bytes());
        self.buffer.push(b'"');
    }

    /// `"ts":…,"mono_ns":…`, the first of them only if the wall clock is known.
    #[inline]
    pub(super) fn head(&mut self, mono_ns: u64) {
        if let Some(offset) = self.encoder.offset_ns {
            self.raw(b"\"ts\":\"");
            self.encoder.ts.write(self.buffer, offset.wrapping_add(mono_ns as i64));
            self.raw(b"\",");
        }
        self.raw(b"\"mono_ns\":");
        mono_ns.write(self);
    }
}

/// Something that has a form in JSON.
pub trait Value {
    /// JSON type, for the documentation.
    const JSON: &'static str;
    /// Can [`Value::is_known`] be false?
    const MAY_BE_ABSENT: bool = false;
    /// Append it.
    fn write(&self, out: &mut Out);
    /// Worth a field? An empty list is not.
    #[inline(always)]
    fn is_known(&self) -> bool {
        true
    }
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl Value for $t {
            const JSON: &'static str = "integer";
            #[inline(always)]
            fn write(&self, out: &mut Out) {
                out.raw(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 i32 i64);

impl Value for bool {
    const JSON: &'static str = "boolean";
    fn write(&self, out: &mut Out) {
        out.raw(if *self { b"true" } else { b"false" });
    }
}

/// Text from elsewhere, escaped.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a [u8]);

impl Value for Text<'_> {
    const JSON: &'static str = "string";
    #[inline]
    fn write(&self, out: &mut Out) {
        escape::json(out.buffer, self.0);
    }
}

/// One of a few names.
macro_rules! names {
    ($($t:ty)*) => {$(
        impl Value for $t {
            const JSON: &'static str = "string";
            #[inline(always)]
            fn write(&self, out: &mut Out) {
                out.quoted(self.name());
            }
        }
    )*};
}
names!(State Role ClosedBy End Outcome Detail Left LimitedBy);

/// `"FIN_WAIT2>CLOSE"`.
impl Value for (State, State) {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        out.raw(b"\"");
        out.raw(self.0.name().as_bytes());
        out.raw(b">");
        out.raw(self.1.name().as_bytes());
        out.raw(b"\"");
    }
}

impl Value for CloseSegments {
    const JSON: &'static str = "integer";
    fn write(&self, out: &mut Out) {
        out.raw(match self {
            Self::Three => b"3",
            Self::Four => b"4",
        });
    }
}

/// A cookie as `ss -e` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Hex(pub u64);

impl Value for Hex {
    const JSON: &'static str = "string";
    #[inline]
    fn write(&self, out: &mut Out) {
        let mut text = [b'"'; 18];
        let mut at = 17;
        let mut n = self.0;
        loop {
            at -= 1;
            text[at] = b"0123456789abcdef"[(n & 15) as usize];
            n >>= 4;
            if n == 0 {
                break;
            }
        }
        out.raw(&text[at - 1..]);
    }
}

/// A moment on CLOCK_MONOTONIC, shown as wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct When(pub u64);

impl Value for When {
    const JSON: &'static str = "string";
    #[inline]
    fn write(&self, out: &mut Out) {
        out.raw(b"\"");
        let offset = out.encoder.offset_ns.unwrap_or(0);
        out.encoder.start.write(out.buffer, offset.wrapping_add(self.0 as i64));
        out.raw(b"\"");
    }
}

/// AF_INET or AF_INET6.
#[derive(Clone, Copy, Debug)]
pub struct Family(pub u16);

impl Value for Family {
    const JSON: &'static str = "string";
    #[inline(always)]
    fn write(&self, out: &mut Out) {
        out.raw(if self.0 == AF_INET { b"\"ipv4\"" } else { b"\"ipv6\"" });
    }
}

/// `AF_INET` of `<sys/socket.h>`.
pub const AF_INET: u16 = 2;

/// An address of either family, as the record has it.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a>(pub u16, pub &'a [u8; 16]);

impl Value for Address<'_> {
    const JSON: &'static str = "string";
    #[inline]
    fn write(&self, out: &mut Out) {
        out.raw(b"\"");
        address(out.buffer, self.0, self.1);
        out.raw(b"\"");
    }
}

/// Every octet's digits and how many.
static OCTETS: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut n = 0;
    while n < 256 {
        let (h, t, o) = (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
        table[n] = match n {
            100.. => [h, t, o, 3],
            10.. => [t, o, 0, 2],
            _ => [o, 0, 0, 1],
        };
        n += 1;
    }
    table
};

/// Append an address without quotes.
#[inline]
pub fn address(out: &mut Vec<u8>, family: u16, bytes: &[u8; 16]) {
    if family == AF_INET {
        let mut text = [0; 16];
        let mut at = 0;
        for &octet in &bytes[..4] {
            let entry = OCTETS[usize::from(octet)];
            // One store too long each; the next one writes over it.
            text[at..at + 3].copy_from_slice(&entry[..3]);
            at += usize::from(entry[3]);
            text[at] = b'.';
            at += 1;
        }
        out.extend_from_slice(&text[..at - 1]);
    } else {
        write!(out, "{}", Ipv6Addr::from(*bytes)).expect("a Vec takes everything");
    }
}

/// `10.0.0.1:443`, `[::1]:443`.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a>(pub u16, pub &'a [u8; 16], pub u16);

impl Value for Endpoint<'_> {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        let brackets = self.0 != AF_INET;
        out.raw(if brackets { b"\"[" } else { b"\"" });
        address(out.buffer, self.0, self.1);
        out.raw(if brackets { b"]:" } else { b":" });
        self.2.write(out);
        out.raw(b"\"");
    }
}

/// Fields of an inner object that are known: the first has no comma before it.
pub(super) struct Inner<'o, 'a> {
    out: &'o mut Out<'a>,
    first: bool,
}

impl<'o, 'a> Inner<'o, 'a> {
    pub fn new(out: &'o mut Out<'a>) -> Self {
        out.raw(b"{");
        Self { out, first: true }
    }

    pub fn field<T: Value>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            if !self.first {
                self.out.raw(b",");
            }
            self.first = false;
            Text(name.as_bytes()).write(self.out);
            self.out.raw(b":");
            value.write(self.out);
        }
    }

    pub fn end(self) {
        self.out.raw(b"}");
    }
}

/// Names in a list: the first has no comma before it.
struct List<'o, 'a> {
    out: &'o mut Out<'a>,
    first: bool,
}

impl<'o, 'a> List<'o, 'a> {
    fn new(out: &'o mut Out<'a>) -> Self {
        out.raw(b"[");
        Self { out, first: true }
    }
    #[inline(always)]
    fn name(&mut self, set: bool, name: &'static str) {
        if set {
            if !self.first {
                self.out.raw(b",");
            }
            self.first = false;
            self.out.quoted(name);
        }
    }
    fn end(self) {
        self.out.raw(b"]");
    }
}

/// [`tcptrace_common::record::option`] bits.
#[derive(Clone, Copy, Debug)]
pub struct Options(pub u16);

impl Value for Options {
    const JSON: &'static str = "array of strings";
    #[inline]
    fn write(&self, out: &mut Out) {
        use tcptrace_common::record::option as o;
        let mut list = List::new(out);
        list.name(self.0 & o::SACK != 0, "sack");
        list.name(self.0 & o::TIMESTAMPS != 0, "timestamps");
        if self.0 & !(o::SACK | o::TIMESTAMPS | o::WSCALE) != 0 {
            list.name(self.0 & o::ECN != 0, "ecn");
            list.name(self.0 & o::TFO != 0, "tfo");
            list.name(self.0 & o::NODELAY != 0, "nodelay");
            list.name(self.0 & o::KEEPALIVE != 0, "keepalive");
            list.name(self.0 & o::DEFER_ACCEPT != 0, "defer_accept");
            list.name(self.0 & o::USER_TIMEOUT != 0, "user_timeout");
            list.name(self.0 & o::SYNCOOKIE != 0, "syncookie");
        }
        list.end();
    }
}

impl Value for Patterns {
    const JSON: &'static str = "array of strings";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        self.0 != 0
    }
    fn write(&self, out: &mut Out) {
        let mut list = List::new(out);
        list.name(self.0 & Self::SIMULTANEOUS_OPEN != 0, "simultaneous_open");
        list.name(self.0 & Self::SIMULTANEOUS_CLOSE != 0, "simultaneous_close");
        list.name(self.0 & Self::SELF_CONNECT != 0, "self_connect");
        list.name(self.0 & Self::HALF_CLOSE != 0, "half_close");
        list.name(self.0 & Self::ORPHAN != 0, "orphan");
        list.end();
    }
}

/// Names of the fields that were concluded.
#[derive(Clone, Copy, Debug)]
pub struct Concluded<'a> {
    /// What was.
    pub bits: Inferred,
    /// Whose fields the object has.
    pub owner: Option<&'a Process>,
    /// The object's fields for a state before and after: `from` and `to`, or `states` for both.
    pub states: [&'static str; 2],
}

impl Value for Concluded<'_> {
    const JSON: &'static str = "array of strings";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        self.bits.0 != 0
    }
    fn write(&self, out: &mut Out) {
        let has = |bit| self.bits.0 & bit != 0;
        let owner = self.owner.filter(|_| has(Inferred::OWNER));
        let [from, to] = self.states;
        let mut list = List::new(out);
        list.name(has(Inferred::LPORT), "lport");
        list.name(has(Inferred::ROLE), "role");
        for name in ["pid", "tid", "comm", "uid"] {
            list.name(owner.is_some(), name);
        }
        let cgroup = owner.and_then(|o| o.cgroup.as_deref());
        let container = cgroup.and_then(|c| c.container.as_ref());
        list.name(cgroup.is_some(), "cgroup");
        list.name(container.is_some(), "container");
        list.name(container.is_some_and(|c| c.name.is_some()), "container_id");
        list.name(cgroup.is_some_and(|c| c.pod.is_some()), "pod");
        list.name(cgroup.is_some_and(|c| c.unit.is_some()), "unit");
        list.name(has(Inferred::FROM), from);
        list.name(has(Inferred::TO) && !(from == to && has(Inferred::FROM)), to);
        list.name(has(Inferred::END), "end");
        list.name(has(Inferred::START), "start");
        list.end();
    }
}

/// `[{"state":…,"at_us":…,"us":…}]`.
#[derive(Clone, Copy, Debug)]
pub struct States<'a> {
    /// The life.
    pub timeline: &'a Timeline,
    /// Nanoseconds from the start to the end of the last state; None while it goes on unseen.
    pub end_ns: Option<u64>,
}

impl Value for States<'_> {
    const JSON: &'static str = "array of objects";
    #[inline]
    fn write(&self, out: &mut Out) {
        out.raw(b"[");
        let mut states = self.timeline.entries().peekable();
        while let Some(entry) = states.next() {
            out.raw(b"{\"state\":\"");
            out.raw(entry.state.name().as_bytes());
            out.raw(b"\",\"at_us\":");
            (entry.at / 1000).write(out);
            let next = states.peek();
            // How long it lasted is known only between two moments that were seen.
            let end = match next {
                Some(next) => next.seen.then_some(next.at),
                None => self.end_ns,
            };
            if let Some(end) = end.filter(|_| entry.seen) {
                out.raw(b",\"us\":");
                (end.saturating_sub(entry.at) / 1000).write(out);
            }
            out.raw(if next.is_some() { b"},".as_slice() } else { b"}" });
        }
        out.raw(b"]");
    }
}

/// Name → text.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a>(pub &'a [(String, String)]);

impl Value for Map<'_> {
    const JSON: &'static str = "object of strings";
    fn write(&self, out: &mut Out) {
        out.raw(b"{");
        for (i, (name, text)) in self.0.iter().enumerate() {
            if i > 0 {
                out.raw(b",");
            }
            Text(name.as_bytes()).write(out);
            out.raw(b":");
            Text(text.as_bytes()).write(out);
        }
        out.raw(b"}");
    }
}

/// A list of texts.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a>(pub &'a [String]);

impl Value for Texts<'_> {
    const JSON: &'static str = "array of strings";
    const MAY_BE_ABSENT: bool = true;
    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
    fn write(&self, out: &mut Out) {
        out.raw(b"[");
        for (i, text) in self.0.iter().enumerate() {
            if i > 0 {
                out.raw(b",");
            }
            Text(text.as_bytes()).write(out);
        }
        out.raw(b"]");
    }
}

/// Who else did it.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Thread group.
    pub pid: u32,
    /// Name of its leader.
    pub comm: &'a [u8],
}

impl Value for Actor<'_> {
    const JSON: &'static str = "object";
    fn write(&self, out: &mut Out) {
        out.raw(b"{\"pid\":");
        self.pid.write(out);
        out.raw(b",\"comm\":");
        Text(self.comm).write(out);
        out.raw(b"}");
    }
}
