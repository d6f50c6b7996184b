//! A handshake by the book: its request, its wait in the accept queue, who took it.

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process::me,
    queues::{Served, Watch, served},
    socket::{Sock, close_in_order, local},
};

#[test]
fn a_request_joins_its_connection() {
    let ns = Netns::new();
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, local(8101), 4);
    // What the kernel counts is compared from here on.
    watch.depths(8101, 0, 0);
    let client = Sock::connected(&ns, local(8101));
    let peer = client.local().port();
    watch.told(8101, "completed", 1);
    watch.depths(8101, 0, 1);
    let server = listener.accept();
    watch.depths(8101, 0, 0);
    close_in_order(client, server);
    ns.quiet();
    let watched = watch.stop();

    watched.outcomes(8101, &[&*format!("{peer} queued 1/0"), &format!("{peer} completed 0/1")]);
    watched.totals(8101, &[("syns", 1), ("queued", 1), ("completed", 1), ("accepted", 1)]);
    watched.audited(&["PassiveOpens"]);
    watched.peaks(8101, 1, 1);
    let server = watched.run.only("server");
    server.owned_by(&me());
    let first = if served("half_open") == Served::No { "SYN_RECV" } else { "NEW_SYN_RECV" };
    assert_eq!(server.0["states"][0]["state"], first, "{}", server.0);
    assert_eq!(server.states(), "SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE");
    for request in watched.requests(8101) {
        assert_eq!(request["id"], server.0["id"], "one timeline: {request}");
        assert_eq!((&request["listener"], &request["pid"]), (&listener.cookie().into(), &me().0.into()), "{request}");
        assert_eq!((&request["rcv_isn"], &request["snt_isn"]), (&server.0["isn_remote"], &server.0["isn_local"]));
    }
    // At least two intervals passed before accept(), and it took no longer than the whole life.
    let wait = server.number("accept_wait_us");
    assert!(wait > 100_000 && wait < server.number("duration_us"), "{}", server.0);
    let waits: Vec<&Value> =
        watched.listeners(8101).iter().map(|l| &l["accept_wait_us"]).filter(|w| !w.is_null()).collect();
    if served("accept_queue") == Served::No {
        assert!(waits.is_empty(), "{waits:?}");
    } else {
        let max = waits[0]["max"].as_u64().expect("a time");
        assert!(
            waits.len() == 1 && max.abs_diff(wait) < 50_000 * u64::from(crate::support::slowness()),
            "{waits:?} {wait}"
        );
    }
    let last = *watched.listeners(8101).last().expect("not empty");
    let limit = &last["accept_queue"];
    assert_eq!((&limit["limit"], &limit["backlog"], &limit["limited_by"]), (&4.into(), &4.into(), &"backlog".into()));
    assert_eq!(last["sock"], listener.cookie());
}
