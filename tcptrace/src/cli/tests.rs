//! Command lines in, configurations and one-line errors out.

use super::*;

fn config(line: &str) -> Result<Option<Config>> {
    parse(line.split_whitespace().map(OsString::from))
}

fn show(line: &str) -> Show {
    match config(line) {
        Ok(Some(Config::Show(show))) => *show,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}

#[test]
fn filters_and_options_arrive() {
    let s =
        show("tcptrace conns --port 80,443 --port 8000-8100 -p 7 --count 3 --duration 2m --buffer 1M --time utc -q");
    assert_eq!(s.filter.to_pairs(), [("port".into(), "80,443,8000-8100".into()), ("pid".into(), "7".into())]);
    assert_eq!((s.count, s.duration, s.buffer), (Some(3), Some(Duration::from_secs(120)), Some(1 << 20)));
    assert_eq!((s.records, s.time, s.quiet, s.json), (Records::Connections, TimeMode::Utc, true, false));
    assert_eq!((s.ladder, show("tcptrace conns --ladder").ladder), (false, true));
    assert!(show("tcptrace trace").filter.is_empty());
}

#[test]
fn groups_and_outcomes_are_asked_for() {
    let s = show("tcptrace conns --by comm,rport --by end --failed --min-us 10ms --unit nginx");
    assert_eq!(s.by, [Key::Comm, Key::Rport, Key::End]);
    let pairs = [("unit", "nginx"), ("failed", "true"), ("min-us", "10000us")];
    assert_eq!(s.filter.to_pairs(), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(show("tcptrace conns").by.is_empty());
}

#[test]
fn queues_are_asked_for() {
    let q = show("tcptrace queues --once --interval 500ms --lport 443");
    assert_eq!((q.records, q.count), (Records::Queues, Some(1)));
    assert_eq!((q.queues.wanted, q.queues.interval), (Wanted::Only, Duration::from_millis(500)));
    let recorded = show("tcptrace queues --record x");
    assert_eq!((recorded.queues.wanted, recorded.queues.request_rate), (Wanted::Requests, 20_000));
    let t = show("tcptrace trace --requests --request-rate 5");
    assert_eq!((t.requests, t.queues.wanted, t.queues.request_rate), (true, Wanted::Requests, 5));
    assert_eq!(show("tcptrace conns").queues, Queues::default());
    let record = |line: &str| match config(line) {
        Ok(Some(Config::Record(r))) => r.queues.wanted,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(record("tcptrace record x --queues"), Wanted::Requests);
    assert_eq!(record("tcptrace record x"), Wanted::IfCheap);
}

#[test]
fn colour_is_asked_for_or_not() {
    assert!(show("tcptrace trace --color always").color);
    assert!(!show("tcptrace trace --color never").color);
}

#[test]
fn explain_finds_its_page() {
    let page = |line: &str| match config(line) {
        Ok(Some(Config::Explain { page, .. })) => page.map(|p| p.name),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(page("tcptrace explain fin-wait-2"), Some("FIN_WAIT2"));
    assert_eq!(page("tcptrace explain long connections --json"), Some("long-connections"));
    assert_eq!(page("tcptrace explain"), None);
}

#[test]
fn commands_that_pages_show_exist() {
    let shown = explain::PAGES.iter().flat_map(|page| page.look).map(|(command, _)| *command);
    let ours: Vec<&str> = shown.filter(|command| command.starts_with("tcptrace ")).collect();
    assert!(!ours.is_empty());
    for command in ours {
        assert!(matches!(config(command), Ok(Some(_))), "{command}");
    }
}

#[test]
fn what_makes_no_sense_is_one_line() {
    for (line, says) in [
        ("tcptrace", "which command? trace, conns, queues, watch, record, report, doctor, explain, completions"),
        ("tcptrace trase", "unrecognized subcommand 'trase'; a similar subcommand exists: 'trace'"),
        ("tcptrace trace --jsn", "unexpected argument '--jsn' found; a similar argument exists: '--json'"),
        ("tcptrace record", "the following required arguments were not provided: <FILE>"),
        ("tcptrace trace --from a --record b", "the argument '--from <FILE>' cannot be used with '--record <FILE>'"),
        ("tcptrace record --ring 64K f", "--ring: too little to record into: 4096K at least"),
        ("tcptrace record --ring 10ms f", "--ring: too short to record anything: 1s at least"),
        ("tcptrace record --rotate 1K f", "--rotate: too little to record into: 64K at least"),
        (
            "tcptrace record --rotate 1M -",
            "--rotate: standard output is one stream, without a next file: give FILE a name, or leave out --rotate",
        ),
        (
            "tcptrace record --rotate 0 f",
            "invalid value '0' for '--rotate <SIZE|TIME>': not a size such as 64M, nor a time such as 5m",
        ),
        (
            "tcptrace record --ring 1M --rotate 1M f",
            "the argument '--ring <SIZE|TIME>' cannot be used with '--rotate <SIZE|TIME>'",
        ),
        ("tcptrace record --keep 3 f", "--keep: says how many of the files of --rotate stay; add --rotate 100M"),
        (
            "tcptrace record --ring 64M --keep 3 f",
            "--keep: says how many of the files of --rotate stay; add --rotate 100M",
        ),
        ("tcptrace record --rotate 1M --keep 0 f", "invalid value '0' for '--keep <N>': 0 is not in 1..=4294967295"),
        (
            "tcptrace trace --color red",
            "invalid value 'red' for '--color <WHEN>' [possible values: auto, always, never]",
        ),
        ("tcptrace trace --count 0", "invalid value '0' for '--count <N>': 0 is not in 1..18446744073709551615"),
        (
            "tcptrace trace --duration soon",
            "invalid value 'soon' for '--duration <TIME>': not a time such as 500ms, 10s, 2m or 1h",
        ),
        ("tcptrace trace --role peer", "--role: `peer` is not a role: client, server or listener"),
        ("tcptrace trace --port=99999", "--port: `99999` is not a port or a range of ports such as 8000-8100"),
        ("tcptrace trace -q -v", "the argument '--quiet' cannot be used with '--verbose'"),
        ("tcptrace trace x", "unexpected argument 'x' found"),
        ("tcptrace conns --by comm,comm", "--by: `comm` is there twice"),
        ("tcptrace conns --stacks --from x", "--stacks: a recording shows the stacks that it was made with"),
        ("tcptrace trace --failed", "--failed: known only when a connection is over; `tcptrace conns` has it"),
        ("tcptrace queues --min-us 1s", "--min-us: known only when a connection is over; listeners have no such end"),
    ] {
        match config(line) {
            Err(Error::Usage(e)) => assert_eq!(e, says, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}
