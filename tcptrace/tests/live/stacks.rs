//! `--stacks` where there is no compiler: this program is what opens and accepts.

use serde_json::Value;

use crate::support::{
    netns::Netns,
    socket::{Sock, close_in_order, local},
    tracer::Tracer,
};

#[inline(never)]
fn opens_here(ns: &Netns) -> Sock {
    std::hint::black_box(Sock::connected(ns, local(7801)))
}

#[inline(never)]
fn accepts_here(listener: &Sock) -> Sock {
    std::hint::black_box(listener.accept())
}

#[test]
fn quick_stacks_name_who_opens_and_accepts() {
    let ns = Netns::new();
    let tracer = Tracer::start_with(&[&ns], &["--stacks"]);
    let listener = Sock::listen(&ns, local(7801), 16);
    let client = opens_here(&ns);
    let server = accepts_here(&listener);
    close_in_order(client, server);
    ns.quiet();
    drop(listener);
    let run = tracer.stop();
    let functions = |conn: &Value| -> Vec<String> {
        let stack = conn["stack"].as_array().unwrap_or_else(|| panic!("the stack of {conn}"));
        stack.iter().filter_map(|frame| Some(frame["function"].as_str()?.to_owned())).collect()
    };
    for (role, function) in [("client", "opens_here"), ("server", "accepts_here")] {
        let functions = functions(&run.only(role).0);
        assert!(functions.iter().any(|name| name.ends_with(function)), "{function} in {functions:?}");
        let opened = run.of_type("opened").find(|line| line["role"] == role).expect("told as it happens");
        assert_eq!(opened["stack"], run.only(role).0["stack"]);
    }
}
