//! Sockets that a traced process is given by one that is not.

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    Shutdown, recvmsg, sendmsg,
};

use crate::support::{
    netns::Netns,
    process::fork,
    run::{arrow, nothing_lost, parse},
    socket::{Pair, Sock, local, pair},
    tracer::{Live, tcptrace},
};

fn pass(to: &UnixStream, socket: &Sock) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [socket.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    let sent = sendmsg(to, &[IoSlice::new(b".")], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(1));
}

fn receive(from: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
    assert_eq!(received.expect("a message").bytes, 1);
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    descriptors.next().expect("a descriptor")
}

#[test]
fn a_connection_that_is_passed_to_a_traced_process() {
    let ns = Netns::new();
    let (here, there) = UnixStream::pair().expect("two sockets");
    let Pair { listener, client, server } = pair(&ns, local(7211));
    let child = fork(c"tt-receiver", &[there.as_raw_fd(), listener.as_raw_fd()], || {
        let passed = receive(&there);
        // Until it was found.
        (&there).read_exact(&mut [0]).expect("a byte");
        rustix::net::shutdown(&passed, Shutdown::Write).expect("connected");
        assert_eq!(rustix::io::read(&passed, &mut [0]), Ok(0), "the end of the stream");
    });
    let (pid, netns) = (child.pid(), ns.inum().to_string());
    let live = Live::start(&mut tcptrace(), &["trace", "--json", "--netns", &netns, "-p", &pid.to_string()]);
    // It has the listener from the start, and is told of when the snapshot is complete.
    live.wait_for("the listener", |line| line["type"] == "socket" && line["state"] == "LISTEN");
    pass(&here, &server);
    server.close();
    let socket = live.wait_for("what was passed", |line| line["type"] == "socket" && line["state"] == "ESTABLISHED");
    assert_eq!((&socket["lport"], &socket["role"]), (&7211.into(), &"server".into()), "{socket}");
    assert_eq!((&socket["pid"], &socket["comm"]), (&pid.into(), &"tt-receiver".into()), "{socket}");
    let inferred = serde_json::json!(["role", "pid", "tid", "comm", "uid", "cgroup"]);
    assert_eq!((&socket["preexisting"], &socket["inferred"]), (&true.into(), &inferred), "{socket}");
    (&here).write_all(b".").expect("it reads");
    client.receive_all().expect("the end of the stream");
    client.close();
    child.join();
    live.wait_for("its end", |line| line["to"] == "TIME_WAIT");
    let (stdout, stderr) = live.stop();
    let lines = parse(&stdout);
    nothing_lost(&lines);
    let told: Vec<_> = lines.iter().filter(|line| line["type"] == "transition").collect();
    let arrows: Vec<_> = told.iter().map(|t| arrow(t)).collect();
    assert_eq!(arrows, ["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>TIME_WAIT"], "{stdout}{stderr}");
    assert!(told.iter().all(|t| t["id"] == socket["id"] && t["comm"] == "tt-receiver"), "{stdout}");
}
