//! `--stacks` where there is no compiler: this program is what opens and accepts. Where it is stripped, too, its functions have no names:
//! their addresses tell them.

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

/// Neither of the two functions is longer.
const SHORT: u64 = 1024;

/// Where the kernel put this program.
fn loaded_at() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    let program = std::fs::read_link("/proc/self/exe").expect("procfs");
    let first = maps.lines().find(|line| line.ends_with(program.to_str().expect("UTF-8"))).expect("it is mapped");
    u64::from_str_radix(first.split('-').next().expect("an address"), 16).expect("an address")
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
    let program = std::fs::read_link("/proc/self/exe").expect("procfs");
    for (role, function) in [("client", opens_here as *const () as u64), ("server", accepts_here as *const () as u64)] {
        let conn = &run.only(role).0;
        let stack = conn["stack"].as_array().unwrap_or_else(|| panic!("the stack of {conn}"));
        let own = stack.iter().filter(|frame| frame["module"].as_str().is_some_and(|m| program.ends_with(m)));
        let offsets: Vec<u64> = own.filter_map(|frame| frame["offset"].as_u64()).collect();
        let first = function - loaded_at();
        assert!(offsets.iter().any(|offset| (first..first + SHORT).contains(offset)), "{first:#x} in {conn}");
        let opened = run.of_type("opened").find(|line| line["role"] == role).expect("told as it happens");
        assert_eq!(opened["stack"], run.only(role).0["stack"]);
    }
}
