//! Final ACKs that two CPUs handle at once: what must hold whichever wins.

use std::sync::Barrier;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::support::{
    netns::Netns,
    queues::{Served, Watch, exact, served, tcp_counter},
    segment::flag::{ACK, SYN},
    setting,
    socket::Sock,
    tun::{KERNEL, Tun},
};

/// Trap 3: two CPUs can make a child each of one request. One of them is a phantom: no connection, and no completion.
#[test]
fn trap3_phantom_children() {
    let rounds: u16 = setting("TCPTRACE_TEST_CONNECTIONS").map_or(400, |n: u16| n / 10);
    const STAY: u64 = 20;
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, (KERNEL, 8251).into(), 64);
    let cpus = cpus();
    let barrier = Barrier::new(2);
    let mut servers = Vec::new();
    for round in 0..rounds {
        let mut peer = tun.peer(20_000 + round);
        peer.meets(8251);
        peer.send(SYN, b"");
        peer.expect(SYN | ACK);
        let ack = peer.next_packet(ACK);
        std::thread::scope(|scope| {
            for cpu in &cpus {
                let (tun, barrier, ack) = (tun.writer(), &barrier, &ack);
                scope.spawn(move || {
                    sched_setaffinity(None, cpu).expect("a CPU of ours");
                    barrier.wait();
                    tun.write(ack);
                });
            }
        });
        if u64::from(round) >= STAY {
            servers.push(listener.accept());
        }
    }
    let n = u64::from(rounds);
    watch.depths(8251, 0, STAY);
    let (opened, again) = (tcp_counter(&ns, "PassiveOpens"), tcp_counter(&ns, "RetransSegs"));
    let watched = watch.stop();
    assert!(opened >= n, "a child each, phantoms too: {opened}");
    watched.totals(
        8251,
        &[("syns", n), ("queued", n), ("completed", n), ("accepted", n - STAY), ("synack_retrans", again)],
    );
    // Queued = completed + dropped + still there, at the end of each interval.
    let mut sums = [0; 3];
    for row in watched.listeners(8251) {
        for (sum, name) in sums.iter_mut().zip(["queued", "completed", "accepted"]) {
            *sum += row[name].as_u64().unwrap_or(0);
        }
        if exact("half_open") && watched.is_last(row) {
            assert_eq!(sums[0], sums[1] + row["syn_queue"]["len"].as_u64().expect("a length"), "{row}");
            assert_eq!(sums[1], sums[2] + row["accept_queue"]["len"].as_u64().expect("a length"), "{row}");
        }
    }
    let completed: Vec<_> = watched.requests(8251).into_iter().filter(|r| r["outcome"] == "completed").collect();
    if served("accept_queue") != Served::No {
        assert_eq!(completed.len(), usize::from(rounds), "one completion each");
    }
    let servers: Vec<_> =
        watched.run.conns.iter().filter(|c| c.text("role") == "server" && c.states().contains("ESTABLISHED")).collect();
    assert_eq!(servers.len(), usize::from(rounds), "one connection each");
    // One timeline each, but where a phantom was told of first, as the request's child: it had the request's number by then.
    let apart = servers.iter().filter(|server| {
        let mut mine = watched.requests(8251).into_iter().filter(|r| r["rport"] == server.0["rport"]);
        mine.any(|r| r["id"] != server.0["id"])
    });
    assert!(apart.count() as u64 <= opened - n, "more than the {} phantoms", opened - n);
}

/// Two CPUs that this process may use, one twice where it has no other.
fn cpus() -> [CpuSet; 2] {
    let all = sched_getaffinity(None).expect("our own CPUs");
    let one = |cpu: usize| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    };
    let mut usable = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu));
    let first = usable.next().expect("a CPU");
    [one(first), one(usable.next().unwrap_or(first))]
}
