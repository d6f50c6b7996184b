//! What connections can be grouped by, and what each of them has there.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::model::{Connection, Container, End, Final, Role, address, comm_str};

/// A property of a connection. Names are those of the JSON fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of JSON fields")]
pub enum Key {
    Comm,
    Pid,
    Uid,
    Role,
    Laddr,
    Lport,
    Raddr,
    Rport,
    Netns,
    Container,
    Pod,
    Unit,
    Cgroup,
    End,
}

/// What a connection has there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// A number.
    Number(u64),
    /// An address, never v4-mapped.
    Address(IpAddr),
    /// Text from outside, not escaped.
    Text(Box<[u8]>),
    /// It has none, or it is not known.
    None,
}

impl Key {
    /// All of them, as they are offered.
    pub const ALL: [Self; 14] = [
        Self::Comm,
        Self::Pid,
        Self::Uid,
        Self::Role,
        Self::Laddr,
        Self::Lport,
        Self::Raddr,
        Self::Rport,
        Self::Netns,
        Self::Container,
        Self::Pod,
        Self::Unit,
        Self::Cgroup,
        Self::End,
    ];

    /// Its name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Comm => "comm",
            Self::Pid => "pid",
            Self::Uid => "uid",
            Self::Role => "role",
            Self::Laddr => "laddr",
            Self::Lport => "lport",
            Self::Raddr => "raddr",
            Self::Rport => "rport",
            Self::Netns => "netns",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Unit => "unit",
            Self::Cgroup => "cgroup",
            Self::End => "end",
        }
    }

    /// What a connection that is over has there.
    pub(super) fn of(self, c: &Connection, f: &Final) -> Value {
        let t = &c.tuple;
        let number = |n: u64| if n == 0 { Value::None } else { Value::Number(n) };
        let addr = |bytes: &[u8; 16]| {
            if *bytes == [0; 16] { Value::None } else { Value::Address(address(t.family, bytes)) }
        };
        let text = |text: Option<&str>| text.map_or(Value::None, |text| Value::Text(text.as_bytes().into()));
        let owner = c.owner.as_deref();
        let cgroup = owner.and_then(|o| o.cgroup.as_deref());
        match self {
            Self::Comm => owner.map_or(Value::None, |o| Value::Text(comm_str(&o.comm).into())),
            Self::Pid => number(owner.map_or(0, |o| o.pid.into())),
            Self::Uid => owner.map_or(Value::None, |o| Value::Number(o.uid.into())),
            Self::Role => text(c.role.map(Role::name)),
            Self::Laddr => addr(&t.laddr),
            Self::Lport => number(t.lport.into()),
            Self::Raddr => addr(&t.raddr),
            Self::Rport => number(t.rport.into()),
            Self::Netns => number(t.netns.into()),
            Self::Container => text(cgroup.and_then(|c| c.container.as_ref()).map(Container::label)),
            Self::Pod => text(cgroup.and_then(|c| c.pod.as_deref())),
            Self::Unit => text(cgroup.and_then(|c| c.unit.as_deref())),
            Self::Cgroup => text(cgroup.map(|c| &*c.path)),
            Self::End => text(f.end.map(End::name)),
        }
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|key| key.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("`{text}` is nothing to group by: {}", names.join(" "))
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
