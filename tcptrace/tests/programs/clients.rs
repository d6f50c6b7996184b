//! Clients: only their connections, each theirs, drawn from SYN to the last ACK, and their exit status.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{
    PYTHON, Told, below, brief,
    support::{
        netns::Netns,
        process::{self, Running},
        programs::nginx,
        socket::{close_in_order, local, pair},
    },
};

/// nginx in a namespace of its own, where others have connections, too.
struct Server {
    ns: Netns,
    _dir: tempfile::TempDir,
    nginx: Running,
    url: String,
}

impl Server {
    fn new(port: u16) -> Self {
        let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
        let nginx = nginx(&ns, dir.path(), port);
        Self { ns, _dir: dir, nginx, url: format!("http://127.0.0.1:{port}/") }
    }

    fn end(mut self) {
        self.nginx.signal(libc::SIGTERM);
        self.nginx.wait();
    }

    /// COMMAND, while a stranger connects; all of its connections are of a process of this name, to the server.
    fn traced(&self, comm: &str, command: &[&str]) -> Told {
        let told = std::thread::scope(|scope| {
            let told = scope.spawn(|| Told::of(&self.ns, command));
            while !told.is_finished() {
                let stranger = pair(&self.ns, local(7500));
                close_in_order(stranger.client, stranger.server);
            }
            told.join().expect("no panic")
        });
        for c in &told.conns {
            assert_eq!((&c["comm"], &c["role"], &c["gaps"]), (&comm.into(), &"client".into(), &0.into()), "{c}");
            assert!(c.get("inferred").is_none(), "{c}");
            let ladder = c["ladder"].as_array().expect("a ladder");
            let flags = |n: usize| ladder[n]["flags"].to_string();
            assert_eq!(flags(0), r#"["SYN"]"#, "{c}");
            assert_eq!(flags(1), r#"["SYN","ACK"]"#, "{c}");
        }
        told
    }
}

#[test]
fn curl() {
    let server = Server::new(7501);
    let told = server.traced("curl", &["curl", "-sS", "-o", "/dev/null", "-o", "/dev/null", &server.url, &server.url]);
    assert_eq!(told.status, Some(0), "{}", told.stderr);
    assert_eq!(told.conns.len(), 2, "{}", brief(&told.conns));
    assert!(told.conns.iter().all(|c| c["end"] == "fin"), "{}", brief(&told.conns));
    // Nobody listens: curl's own status, and a ladder of two steps.
    let told = Told::of(&server.ns, &["curl", "-s", "http://127.0.0.1:7599/"]);
    assert_eq!((told.status, told.conns.len()), (Some(7), 1), "{}", told.stderr);
    assert_eq!(told.conns[0]["end"], "refused");
    assert_eq!(told.conns[0]["ladder"].as_array().map(Vec::len), Some(2), "{}", told.conns[0]);
    server.end();
}

#[test]
fn wget() {
    let server = Server::new(7502);
    let missing = format!("{}missing", server.url);
    let told = server.traced("wget", &["wget", "-q", "-O", "/dev/null", "-t", "1", &server.url, &missing]);
    assert_eq!(told.status, Some(8), "wget's own for a server's error: {}", told.stderr);
    assert_eq!(told.conns.len(), 2, "{}", brief(&told.conns));
    server.end();
}

/// As text, which is what is read.
#[test]
fn a_ladder_is_drawn() {
    let server = Server::new(7503);
    let output = process::output(&mut below(
        &server.ns,
        &["conns", "--ladder", "-q"],
        &["sh", "-c", &format!("curl -sS -o /dev/null {}; exit 5", server.url)],
    ));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(5), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains(" curl["), "{text}");
    for word in ["SYN_SENT", "ESTABLISHED", "SYN+ACK", "FIN"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(lines.iter().filter(|line| line.is_empty()).count(), 1, "one ladder: {text}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    server.end();
}

/// One that speaks as far as the banner.
#[test]
fn ssh_keyscan() {
    let ns = Netns::new();
    let listener = ns.enter(|| TcpListener::bind("127.0.0.1:7504").expect("a listener"));
    let accepted = AtomicUsize::new(0);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().expect("another descriptor"));
                stream.write_all(b"SSH-2.0-banner\r\n").expect("written");
                // The last one, of this test, says so; others may not wait to say anything.
                drop(reader.read_line(&mut line));
                if line == "end\n" {
                    return;
                }
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let told = Told::of(&ns, &["ssh-keyscan", "-4", "-T", "5", "-p", "7504", "127.0.0.1"]);
        ns.enter(|| {
            let mut last = std::net::TcpStream::connect("127.0.0.1:7504").expect("connected");
            last.write_all(b"end\n").expect("written");
        });
        told
    });
    // One for each kind of key; that there is none is no failure.
    let accepted = accepted.load(Ordering::Relaxed);
    assert_eq!((told.status.is_some(), told.conns.len()), (true, accepted), "{}\n{}", told.stderr, brief(&told.conns));
    assert!(accepted >= 2, "{}", told.stderr);
    for c in &told.conns {
        assert_eq!((&c["comm"], &c["rport"]), (&"ssh-keyscan".into(), &7504.into()), "{c}");
    }
}

#[test]
fn python_with_threads() {
    let server = Server::new(7505);
    let script = format!(
        "import threading, urllib.request, sys
def get(): urllib.request.urlopen('{}').read()
threads = [threading.Thread(target=get) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]; get(); sys.exit(9)",
        server.url
    );
    let told = server.traced("python3", &[PYTHON, "-c", &script]);
    assert_eq!((told.status, told.conns.len()), (Some(9), 5), "{}\n{}", told.stderr, brief(&told.conns));
    // One process, of which each thread opened one.
    let pids: std::collections::BTreeSet<_> = told.conns.iter().map(|c| c["pid"].as_u64()).collect();
    let tids: std::collections::BTreeSet<_> = told.conns.iter().map(|c| c["tid"].as_u64()).collect();
    assert_eq!((pids.len(), tids.len()), (1, 5), "{}", brief(&told.conns));
    server.end();
}
