//! Filters against hand-made connections, and text that is no filter.

use std::os::unix::fs::MetadataExt;

use tcptrace_common::record::Tuple;

use super::*;
use crate::model::{
    Cgroup, Outcome,
    fixture::{self, MS, v4, v6},
};

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
fn users_and_cgroups() {
    use Verdict::{Unknown, Unwanted, Wanted};
    let mut c = connection(v4([1; 4], 1, [2; 4], 2));
    assert_eq!(filter(&[("uid", "0,1000")]).connection(&c), Wanted);
    assert_eq!(filter(&[("uid", "root")]).connection(&c), Unwanted);
    assert_eq!(filter(&[("uid", "1000"), ("unit", "nginx")]).connection(&c), Unknown, "its path is not known");
    assert_eq!(filter(&[("uid", "0"), ("unit", "nginx")]).connection(&c), Unwanted);
    let path = format!("/system.slice/nginx.service/docker/{}", "9e07".repeat(16));
    let cgroup = std::sync::Arc::new(Cgroup::new(&path, Some("web,1"), None));
    c.owner = c.owner.map(|p| std::sync::Arc::new(Process { cgroup: Some(cgroup), ..(*p).clone() }));
    type Options = &'static [(&'static str, &'static str)];
    let table: &[(Options, Verdict)] = &[
        (&[("cgroup", "/system.slice")], Wanted),
        (&[("cgroup", "user.slice,system.slice/nginx.service/")], Wanted),
        (&[("cgroup", "/sys/fs/cgroup/system.slice")], Wanted),
        (&[("cgroup", "/sys/fs/cgroup")], Wanted),
        (&[("cgroup", "/system.slice/nginx")], Unwanted),
        (&[("unit", "nginx")], Wanted),
        (&[("unit", "apache2,nginx.service")], Wanted),
        (&[("unit", "apache2")], Unwanted),
        (&[("container", r"web\,1")], Wanted),
        (&[("container", "9e079e07")], Wanted),
        (&[("container", "web")], Unwanted),
        (&[("unit", "nginx"), ("container", "db")], Unwanted),
        (&[("unit", "nginx"), ("comm", "curl"), ("uid", "1000")], Wanted),
        (&[("unit", "nginx"), ("uid", "1")], Unwanted),
    ];
    for (options, want) in table {
        assert_eq!(filter(options).connection(&c), *want, "{options:?}");
        assert_eq!(filter(options).remnant(&c.tuple, None, c.owner.as_deref()), *want, "{options:?}");
        assert_eq!(filter(options).mini(&c.tuple, None), Unknown, "{options:?}");
    }
    c.inferred = Inferred(Inferred::OWNER);
    assert_eq!(filter(&[("unit", "apache2")]).connection(&c), Unknown, "who will accept it?");
}

#[test]
fn outcomes() {
    let c = fixture::client();
    let fin = fixture::fin();
    let lasts = |us: &str, c: &Connection, f: &Final| filter(&[("min-us", us)]).outcome(c, f);
    assert!(!filter(&[("failed", "true")]).outcome(&c, &fin));
    for end in End::ALL {
        let over = Final { end: Some(end), ..fin.clone() };
        assert_eq!(filter(&[("failed", "true")]).outcome(&c, &over), !matches!(end, End::Fin | End::Open), "{end:?}");
    }
    assert!(!filter(&[("failed", "true")]).outcome(&c, &Final { end: None, ..fin.clone() }), "not known is not failed");
    for (us, want) in
        [("0", true), ("1225000", true), ("1225000us", true), ("1s", true), ("1226ms", false), ("1m", false)]
    {
        assert_eq!(lasts(us, &c, &fin), want, "{us}");
    }
    assert!(!lasts("1", &c, &Final { late: true, ..fin.clone() }), "over some time before");
    let mut before = c.clone();
    before.preexisting = true;
    assert!(lasts("1s", &before, &fin), "longer than it was seen");
    assert!(!lasts("2s", &before, &fin), "perhaps");
    assert!(
        !filter(&[("failed", "true"), ("min-us", "2s")]).outcome(&c, &Final { end: Some(End::Refused), ..fin.clone() })
    );
    let mut request = fixture::request(Outcome::SynAckTimeout);
    request.over = true;
    assert!(filter(&[("failed", "true"), ("min-us", "1s")]).request(&request));
    assert!(!filter(&[("min-us", "2s")]).request(&request));
    request.age_ns = Some(2_000 * MS);
    assert!(filter(&[("min-us", "2s")]).request(&request));
    request.over = false;
    assert!(!filter(&[("failed", "true")]).request(&request));
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
        ("uid", "no-such-user", "--uid: no user `no-such-user` on this system; give the number"),
        ("unit", "", "--unit: an empty value in ``"),
        ("min-us", "", "--min-us: `` is not a time such as 500us, 10ms or 2s"),
        ("min-us", "soon", "--min-us: `soon` is not a time"),
        ("min-us", "1.5s", "--min-us: `1.5s` is not a time"),
        ("min-us", "-1", "--min-us: `-1` is not a time"),
        ("min-us", "18446744073709551615h", "--min-us: `18446744073709551615h` is not a time"),
        ("failed", "false", "--failed: unknown filter `failed`"),
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
        ("uid", "0,1000"),
        ("cgroup", "/system.slice,user.slice/"),
        ("container", r"web\,1,9e07"),
        ("unit", "nginx,ssh.service"),
        ("role", "server"),
        ("state", "close-wait,TIME_WAIT"),
        ("failed", "true"),
        ("min-us", "10ms"),
    ]);
    assert_eq!(f.cgroups, ["/system.slice", "/user.slice"]);
    assert_eq!(f.containers, ["web,1", "9e07"]);
    assert_eq!(f.min_us, Some(10_000));
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

#[test]
fn descendants_are_followed() {
    let mut f = Filter::default();
    f.set("pid", "7").unwrap();
    let asked = |f: &Filter, pid| f.process(fixture::process(pid, b"x").as_deref()) == Verdict::Wanted;
    f.forked(7, 8);
    assert!(!asked(&f, 8), "nobody asked for children");
    f.set("follow", "children").unwrap();
    assert_eq!(Filter::from_pairs(&f.to_pairs()), Ok(f.clone()));
    f.forked(7, 8);
    f.forked(8, 9);
    f.forked(100, 101);
    assert_eq!([7, 8, 9, 101].map(|pid| asked(&f, pid)), [true, true, true, false]);
    // Numbers that come again.
    f.forked(100, 9);
    f.forked(100, 7);
    assert_eq!([7, 8, 9].map(|pid| asked(&f, pid)), [false, true, false]);
    f.forked(100, 8);
    assert!(!asked(&f, 8), "nobody is left, and that is not everybody");
    assert!(f.set("follow", "parents").is_err());
}
