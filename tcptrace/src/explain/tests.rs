//! Every page is there, whole and right as far as a program can tell; two of them as they look.

use std::path::Path;

use super::*;
use crate::kernel::facts::{self, Facts};

/// What the specification asks for.
const TERMS: [&str; 15] = [
    "handshake",
    "teardown",
    "half-open",
    "backlog",
    "syncookies",
    "2msl",
    "half-close",
    "rst",
    "mss",
    "window",
    "nagle",
    "delayed-ack",
    "keepalive",
    "long connections",
    "short connections",
];

/// A host with two settings.
fn value(name: &str) -> Option<String> {
    match name {
        "net.ipv4.tcp_fin_timeout" => Some("60".to_owned()),
        "net.ipv4.ip_local_port_range" => Some("32768 60999".to_owned()),
        _ => None,
    }
}

/// In place of a ladder.
fn draw(name: &str, width: usize) -> String {
    format!("{:-<width$}\n\n", format!("{name} "))
}

fn shown(name: &str, width: usize) -> String {
    page(find(name).expect("a page"), Look { width, color: false }, &value, &draw)
}

#[test]
fn every_state_and_term_has_a_page() {
    for state in State::ALL {
        let page = find(state.name()).unwrap_or_else(|| panic!("no page for {state}"));
        assert_eq!((page.name, page.kind), (state.name(), Kind::State));
    }
    for term in TERMS.iter().chain(&["flags"]) {
        assert_eq!(find(term).unwrap_or_else(|| panic!("no page for {term}")).kind, Kind::Term);
    }
}

#[test]
fn every_rule_has_a_page_in_the_order_of_rules() {
    let pages: Vec<_> = PAGES.iter().filter(|p| p.kind == Kind::Rule).collect();
    let names: Vec<_> = pages.iter().map(|p| p.name).collect();
    assert_eq!(names, RULES.iter().map(|rule| rule.name).collect::<Vec<_>>());
    for page in pages {
        assert!(page.limits().count() > 2, "{}", page.name);
    }
}

#[test]
fn names_are_found_however_they_are_spelt() {
    for (asked, name) in [
        ("close_wait", "CLOSE_WAIT"),
        ("CLOSE-WAIT", "CLOSE_WAIT"),
        ("Close Wait", "CLOSE_WAIT"),
        ("fin-wait-1", "FIN_WAIT1"),
        ("FIN-WAIT-2", "FIN_WAIT2"),
        ("syn-recv", "SYN_RECV"),
        ("SYN-RECEIVED", "SYN_RECV"),
        ("ESTAB", "ESTABLISHED"),
        ("UNCONN", "CLOSE"),
        ("time-wait", "TIME_WAIT"),
        ("Half open", "half-open"),
        ("TCP_NODELAY", "nagle"),
        ("keep-alive", "keepalive"),
        ("ECONNRESET", "rst"),
    ] {
        assert_eq!(find(asked).map(|p| p.name), Some(name), "{asked}");
    }
    assert!(find("").is_none() && find("-").is_none());
}

#[test]
fn no_name_means_two_pages() {
    let mut all: Vec<(String, &str)> = PAGES.iter().flat_map(|p| p.keys().map(|name| (key(name), p.name))).collect();
    all.sort();
    for pair in all.windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "{} and {}", pair[0].1, pair[1].1);
    }
}

#[test]
fn what_was_nearly_right_is_suggested() {
    assert_eq!(nearest("close_wiat")[0], "CLOSE_WAIT");
    assert_eq!(nearest("timewait2")[0], "TIME_WAIT");
    assert_eq!(nearest("estblished"), ["ESTABLISHED"]);
    assert_eq!(nearest("keep")[0], "keepalive");
    assert_eq!(nearest("naggle"), ["nagle"]);
    assert!(nearest("sync").contains(&"syncookies"));
    assert_eq!(nearest("xyzzyplugh"), [""; 0]);
    assert_eq!(nearest(""), [""; 0]);
    assert!(PAGES.iter().all(|p| nearest(p.name)[0] == p.name), "the name itself is the nearest");
}

#[test]
fn arcs_agree_at_both_ends() {
    let mut left = Vec::new();
    let mut entered = Vec::new();
    for from in State::ALL {
        let page = find(from.name()).expect("a page");
        left.extend(page.leaves.iter().map(|&Arc(to, cause)| (from, to, cause)));
        entered.extend(page.enters.iter().map(|&Arc(other, cause)| (other, from, cause)));
    }
    let arcs = |all: &[(State, State, &str)]| {
        let mut arcs: Vec<_> = all.iter().map(|(from, to, _)| format!("{from}>{to}")).collect();
        arcs.sort();
        arcs
    };
    assert_eq!(arcs(&left), arcs(&entered));
    for (from, to, cause) in &left {
        // A listener's words are about its children.
        if *from != State::Listen && *to != State::Close {
            assert!(entered.contains(&(*from, *to, cause)), "{from}>{to} has two causes");
        }
    }
    // Those of the tracker (tracker/arcs.rs), less what only the RFC knows and close() behind shutdown(); and the birth of a request.
    let known: Vec<_> = arcs(&left).into_iter().filter(|arc| !arc.ends_with(">CLOSE")).collect();
    assert_eq!(
        known.join(" "),
        "CLOSE>LISTEN CLOSE>SYN_SENT CLOSE_WAIT>LAST_ACK CLOSING>TIME_WAIT ESTABLISHED>CLOSE_WAIT ESTABLISHED>FIN_WAIT1 \
         FIN_WAIT1>CLOSING FIN_WAIT1>FIN_WAIT2 FIN_WAIT1>TIME_WAIT FIN_WAIT2>TIME_WAIT LISTEN>NEW_SYN_RECV \
         LISTEN>SYN_RECV NEW_SYN_RECV>SYN_RECV SYN_RECV>CLOSE_WAIT SYN_RECV>ESTABLISHED SYN_RECV>FIN_WAIT1 \
         SYN_SENT>ESTABLISHED SYN_SENT>SYN_RECV"
    );
    assert_eq!(left.len() - known.len(), State::ALL.len() - 1, "every other state can end in CLOSE");
}

#[test]
fn pages_are_whole() {
    let texts = |p: &Page| {
        let pairs = p.sides.iter().chain(p.look).chain(p.options).flat_map(|&(a, b)| [a, b]);
        let arcs = p.enters.iter().chain(p.leaves).map(|arc| arc.1);
        let rfcs = p.rfcs.iter().flat_map(|r| [r.section, r.about]);
        let examples = p.examples.iter().map(|e| e.shows);
        let texts = p.text.iter().chain(p.trouble).chain(p.aliases).copied().chain(examples);
        [p.name, p.summary, p.healthy].into_iter().chain(pairs).chain(arcs).chain(rfcs).chain(texts).collect::<Vec<_>>()
    };
    for p in &PAGES {
        assert!(!p.text.is_empty() && !p.trouble.is_empty() && !p.look.is_empty() && !p.see.is_empty(), "{}", p.name);
        let is_rule = p.kind == Kind::Rule;
        assert!(is_rule || !p.healthy.is_empty(), "{}", p.name);
        assert!(is_rule || p.rfcs.iter().any(|r| r.number == 9293 || p.name == "syncookies"), "{}", p.name);
        assert!(p.summary.len() <= 59, "{}: one line of 80 columns in the list", p.name);
        for text in texts(p) {
            assert!(text.is_ascii() && !text.contains("  ") && text == text.trim(), "{}: {text}", p.name);
            // Markdown would take it for a table's end or a tag.
            assert!(!text.contains(['<', '`', '*']), "{}: {text}", p.name);
        }
        for other in p.see {
            assert!(*other != p.name && PAGES.iter().any(|q| q.name == *other), "{} names {other}", p.name);
        }
        assert!(is_rule || !p.examples.is_empty(), "{} has no ladder", p.name);
        for example in p.examples {
            assert!(recording(example.recording).is_some(), "{}: no recording {}", p.name, example.recording);
        }
    }
}

#[test]
fn every_setting_exists() {
    // A kernel that is too old lacks some; each says since when it is there, so no other may be missing.
    let running = Facts::gather().version().expect("a kernel has a version");
    for name in PAGES.iter().flat_map(|p| p.sysctls) {
        let sysctl = sysctl(name).unwrap_or_else(|| panic!("{name} has no text"));
        let expected = sysctl.since.is_none_or(|since| running >= since);
        assert_eq!(facts::sysctl(Path::new("/"), name).is_some(), expected, "{name}");
    }
}

#[test]
fn settings_of_some_kernels_only() {
    let mut some: Vec<_> =
        PAGES.iter().flat_map(|p| p.sysctls).filter(|n| sysctl(n).is_some_and(|s| s.since.is_some())).collect();
    some.sort();
    some.dedup();
    let short: Vec<_> = some.iter().filter_map(|name| name.rsplit('.').next()).collect();
    assert_eq!(short, ["tcp_pingpong_thresh", "tcp_rto_max_ms", "tcp_syn_linear_timeouts", "tcp_tw_reuse_delay"]);
}

#[test]
fn lines_fit_the_terminal() {
    for width in [40, 80, 100, 300] {
        let look = Look { width, color: false };
        let pages = PAGES.iter().map(|p| page(p, look, &|_| Some("4096 131072 6291456".to_owned()), &draw));
        for text in pages.chain([index(look)]) {
            for line in text.lines() {
                assert!(line.len() <= width.min(100), "{width}: {line}");
                assert_eq!(line, line.trim_end());
            }
            assert!(!text.contains("\n\n\n") && !text.starts_with('\n') && text.ends_with('\n'), "{text}");
            assert!(text.lines().any(|line| line.len() > width.min(100) * 3 / 4), "{width} columns are used: {text}");
        }
    }
}

#[test]
fn bold_changes_nothing_else() {
    for p in &PAGES {
        let bold = page(p, Look { width: 80, color: true }, &value, &draw);
        assert!(bold.contains("\x1b[1m"));
        assert_eq!(bold.replace("\x1b[1m", "").replace("\x1b[0m", ""), shown(p.name, 80));
    }
}

#[test]
fn a_setting_that_the_host_lacks_is_left_out() {
    let text = shown("FIN_WAIT2", 80);
    assert!(text.contains("net.ipv4.tcp_fin_timeout = 60\n") && !text.contains("tcp_max_orphans"), "{text}");
    assert!(!shown("nagle", 80).contains("Settings"), "no heading without settings");
}

#[test]
fn a_state() {
    insta::assert_snapshot!(shown("CLOSE_WAIT", 80));
}

#[test]
fn a_term_at_40_columns() {
    insta::assert_snapshot!(shown("short-connections", 40));
}

#[test]
fn the_list() {
    insta::assert_snapshot!(index(Look { width: 80, color: false }));
}

#[test]
fn every_recording_is_shown() {
    for (name, _) in RECORDINGS {
        assert!(PAGES.iter().any(|p| p.examples.iter().any(|e| e.recording == name)), "{name}");
    }
    assert!(recording("nothing").is_none());
}
