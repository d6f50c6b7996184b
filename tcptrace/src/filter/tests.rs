//! Filters against hand-made connections, and text that is no filter.

use std::os::unix::fs::MetadataExt;

use tcptrace_common::record::Tuple;

use super::*;
use crate::model::fixture::{self, v4, v6};

fn filter(options: &[(&str, &str)]) -> Filter {
    let mut f = Filter::default();
    for (name, value) in options {
        f.set(name, value).unwrap_or_else(|e| panic!("{e}"));
    }
    f
}

fn connection(tuple: Tuple) -> Connection {
    fixture::connection(Some(Role::Client), tuple, fixture::process(10, b"curl"), &[(State::SynSent, 0)])
}

#[test]
fn ends_of_a_connection() {
    use Verdict::{Unknown, Unwanted, Wanted};
    let c4 = v4([10, 1, 2, 3], 5000, [192, 0, 2, 1], 443);
    let no_lport = v4([10, 1, 2, 3], 0, [192, 0, 2, 1], 443);
    let no_laddr = v4([0; 4], 5000, [192, 0, 2, 1], 443);
    let c6 = v6("2001:db8::1", 5000, "2001:db8:ffff::1", 443);
    let mapped = v6("::ffff:10.1.2.3", 5000, "::ffff:192.0.2.1", 443);
    type Options = &'static [(&'static str, &'static str)];
    let table: &[(Tuple, Options, Verdict)] = &[
        (c4, &[], Wanted),
        (c4, &[("port", "443")], Wanted),
        (c4, &[("port", "80,4000-6000")], Wanted),
        (c4, &[("port", "80")], Unwanted),
        (c4, &[("lport", "443")], Unwanted),
        (c4, &[("rport", "443"), ("lport", "5000")], Wanted),
        (c4, &[("rport", "443"), ("lport", "5001")], Unwanted),
        (no_lport, &[("lport", "5000")], Unknown),
        (no_lport, &[("port", "5000")], Unknown),
        (no_lport, &[("port", "443")], Wanted),
        (no_lport, &[("lport", "5000"), ("rport", "80")], Unwanted),
        (c4, &[("addr", "10.0.0.0/8")], Wanted),
        (c4, &[("raddr", "10.0.0.0/8")], Unwanted),
        (c4, &[("laddr", "10.1.2.3"), ("raddr", "192.0.2.0/24")], Wanted),
        (c4, &[("addr", "0.0.0.0/0")], Wanted),
        (c4, &[("addr", "::/0")], Unwanted),
        (no_laddr, &[("laddr", "10.0.0.0/8")], Unknown),
        (c6, &[("raddr", "2001:db8:ffff::/48")], Wanted),
        (c6, &[("raddr", "2001:db8:fffe::/48")], Unwanted),
        (c6, &[("addr", "0.0.0.0/0,::/0")], Wanted),
        (mapped, &[("laddr", "10.0.0.0/8")], Wanted),
        (mapped, &[("laddr", "::ffff:10.0.0.0/104")], Wanted),
        (mapped, &[("addr", "2001:db8::/32")], Unwanted),
        (c4, &[("netns", "4026531840")], Wanted),
        (c4, &[("netns", "1,2")], Unwanted),
    ];
    for (tuple, options, want) in table {
        assert_eq!(filter(options).connection(&connection(*tuple)), *want, "{tuple:?} {options:?}");
    }
}

#[test]
fn roles_and_owners() {
    use Verdict::{Unknown, Unwanted, Wanted};
    let mut c = connection(v4([1; 4], 1, [2; 4], 2));
    assert_eq!(filter(&[("role", "client,listener")]).connection(&c), Wanted);
    assert_eq!(filter(&[("role", "server")]).connection(&c), Unwanted);
    assert_eq!(filter(&[("pid", "9,10"), ("comm", "wget,curl")]).connection(&c), Wanted);
    assert_eq!(filter(&[("pid", "10"), ("comm", "wget")]).connection(&c), Unwanted);
    assert_eq!(filter(&[("comm", "cur")]).connection(&c), Unwanted);
    // The listener's owner is not yet the owner.
    c.inferred = Inferred(Inferred::OWNER);
    assert_eq!(filter(&[("pid", "10")]).connection(&c), Wanted, "the listener's");
    assert_eq!(filter(&[("pid", "11")]).connection(&c), Unknown, "who will accept it?");
    c.owner = None;
    assert_eq!(filter(&[("pid", "10")]).connection(&c), Unknown);
    c.role = None;
    assert_eq!(filter(&[("comm", "curl")]).connection(&c), Unknown);
    assert_eq!(filter(&[("role", "client")]).connection(&c), Unknown);
    assert_eq!(filter(&[("role", "client"), ("port", "80")]).connection(&c), Unwanted);
}

#[test]
fn what_is_not_a_filter() {
    let mut f = Filter::default();
    for (name, value, says) in [
        ("port", "0", "--port: `0` is not a port"),
        ("port", "90-80", "--port: `90-80` is not a port"),
        ("port", "http", "--port: `http` is not a port"),
        ("lport", "80,,443", "--lport: an empty value in `80,,443`"),
        ("addr", "10.0.0.0/33", "--addr: `10.0.0.0/33` is not an address"),
        ("raddr", "example.org", "--raddr: `example.org` is not an address"),
        ("pid", "0", "--pid: `0` is not a process id"),
        ("state", "OPEN", "--state: `OPEN` is not a TCP state: ESTABLISHED"),
        ("role", "peer", "--role: `peer` is not a role: client, server or listener"),
        ("netns", "no-such-namespace", "--netns: no network namespace `no-such-namespace`"),
        ("color", "red", "--color: unknown filter `color`"),
    ] {
        let e = f.set(name, value).expect_err(value);
        assert!(e.starts_with(says), "{e}");
    }
}

#[test]
fn a_filter_survives_a_recording() {
    let f = filter(&[
        ("port", "80,8000-8100"),
        ("lport", "1"),
        ("rport", "2"),
        ("addr", "10.0.0.0/8,::1"),
        ("laddr", "::ffff:1.2.3.4"),
        ("raddr", "2001:db8::/32"),
        ("netns", "4026531840"),
        ("pid", "1,2"),
        ("comm", r"a\,b,c\\d"),
        ("role", "server"),
        ("state", "close-wait,TIME_WAIT"),
    ]);
    assert_eq!(f.comms, ["a,b", r"c\d"]);
    assert_eq!(f.addrs.local[0].to_string(), "1.2.3.4");
    assert_eq!(Filter::from_pairs(&f.to_pairs()), Ok(f));
    assert_eq!(Filter::default().to_pairs(), []);
}

#[test]
fn a_namespace_by_number_and_by_path() {
    let inode = std::fs::metadata("/proc/self/ns/net").expect("every process has one").ino() as u32;
    assert_eq!(netns_number("/proc/self/ns/net"), Ok(inode));
    assert_eq!(netns_number(&inode.to_string()), Ok(inode));
    assert_eq!(netns_number(&format!("net:[{inode}]")), Ok(inode));
}
