//! Processes and ends of connections, as cells.

use std::{fmt::Write, net::Ipv6Addr};

use crate::{
    model::{Connection, Inferred, Process, Role, State, comm_str},
    sink::{escape, json::encode},
};

/// `curl[1234]`, the name escaped.
pub fn process(out: &mut String, p: &Process) {
    let mut name = Vec::new();
    escape::text(&mut name, comm_str(&p.comm));
    out.push_str(&String::from_utf8_lossy(&name));
    write!(out, "[{}]", p.pid).expect("a String takes everything");
}

/// The owner: `*` before it, the socket was there before the trace; `~` behind it, concluded and not seen. Returns how many
/// characters at the end must stay when it is shortened, and how many such marks it has.
pub fn owner(out: &mut String, c: &Connection) -> (usize, usize) {
    let mut marks = 0;
    if c.preexisting {
        out.push('*');
        marks += 1;
    }
    match c.owner.as_deref() {
        Some(p) => {
            process(out, p);
            if c.inferred.0 & Inferred::OWNER != 0 {
                out.push('~');
                marks += 1;
            }
        }
        None => out.push('-'),
    }
    (out.chars().rev().position(|c| c == '[').map_or(0, |at| at + 1), marks)
}

/// What a socket of both families sees of IPv4 (`::ffff:10.0.0.1`) is written as what it is on the wire: shorter, and both ends of
/// a connection then read the same.
fn host(out: &mut String, family: u16, addr: &[u8; 16]) {
    if *addr == [0; 16] {
        return out.push('*');
    }
    let (family, addr) = match Ipv6Addr::from(*addr).to_ipv4_mapped() {
        Some(v4) if family != encode::AF_INET => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            (encode::AF_INET, bytes)
        }
        _ => (family, *addr),
    };
    let mut text = Vec::new();
    encode::address(&mut text, family, &addr);
    let text = String::from_utf8_lossy(&text);
    if family == encode::AF_INET {
        out.push_str(&text);
    } else {
        write!(out, "[{text}]").expect("a String takes everything");
    }
}

/// `10.0.0.1:443`, `[::1]:443`.
pub fn endpoint(out: &mut String, family: u16, addr: &[u8; 16], port: u16) {
    host(out, family, addr);
    if port == 0 {
        out.push_str(":?");
    } else {
        write!(out, ":{port}").expect("a String takes everything");
    }
}

fn is_listener(c: &Connection) -> bool {
    c.role == Some(Role::Listener) || c.state == State::Listen
}

/// The local end, in few columns its port alone.
pub fn local(out: &mut String, c: &Connection, wide: bool) {
    let t = &c.tuple;
    if wide {
        endpoint(out, t.family, &t.laddr, t.lport);
    } else if t.lport == 0 {
        out.push('?');
    } else {
        write!(out, "{}", t.lport).expect("a String takes everything");
    }
}

/// The remote end, after an arrow that points away from the one that connected: `→10.0.0.1:443`, `←10.0.0.2:5000`. Of a
/// listener, where the address does not stand under `local`, ` on 127.0.0.1`.
pub fn remote(out: &mut String, c: &Connection, wide: bool) {
    let t = &c.tuple;
    if is_listener(c) {
        if !wide {
            out.push_str(" on ");
            host(out, t.family, &t.laddr);
        }
        return;
    }
    out.push(match c.role {
        Some(Role::Client) => '→',
        Some(Role::Server) => '←',
        Some(Role::Listener) | None => '↔',
    });
    if c.inferred.0 & Inferred::ROLE != 0 {
        out.push('~');
    }
    if wide {
        out.push(' ');
    }
    endpoint(out, t.family, &t.raddr, t.rport);
}
