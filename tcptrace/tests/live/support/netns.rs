//! Network namespaces that exist as long as the test that made them.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{process, wait_until};

/// A network namespace with its loopback up. Removed when dropped, also by a panic.
pub struct Netns {
    name: String,
    file: File,
}

/// A row of `/proc/net/tcp` or `tcp6`: (local port, remote port, state as the kernel numbers it).
pub type Row = (u16, u16, u8);

/// States in `/proc/net/tcp`.
pub const TIME_WAIT: u8 = 6;
/// See above.
pub const LISTEN: u8 = 10;

impl Netns {
    /// A new one, named after this process.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "the live tests make network namespaces and load programs: run them as root"
        );
        let name = format!("tcptrace-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        process::run(Command::new("ip").args(["netns", "add", &name]));
        let file = File::open(format!("/run/netns/{name}")).expect("ip netns add made it");
        let ns = Self { name, file };
        ns.ip("link set lo up");
        ns
    }

    /// Its inode number, as the JSON field `netns` has it.
    pub fn inum(&self) -> u64 {
        self.file.metadata().expect("an open file").ino()
    }

    /// Run `f` on a thread of its own inside.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                set(self.file.as_raw_fd()).expect("root may enter any namespace");
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        // SAFETY: setns is async-signal-safe; the file is open at least as long as this namespace is borrowed by the test.
        unsafe { command.pre_exec(move || set(fd)) };
        command
    }

    /// `ip ARGS` inside.
    pub fn ip(&self, args: &str) {
        process::run(self.command("ip").args(args.split_whitespace()));
    }

    /// Set a sysctl inside: `sysctl("net/ipv4/tcp_syn_retries", "1")`.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.enter(|| fs::write(format!("/proc/sys/{key}"), value)).unwrap_or_else(|e| panic!("{key}={value}: {e}"));
    }

    /// A veth pair between `self` and `other`, with these addresses (a /24 or a /64).
    pub fn veth(&self, other: &Self, here: IpAddr, there: IpAddr) {
        self.ip(&format!("link add veth0 type veth peer name veth0 netns {}", other.name));
        for (ns, addr) in [(self, here), (other, there)] {
            let (len, nodad) = if addr.is_ipv4() { (24, "") } else { (64, "nodad") };
            ns.ip(&format!("addr add {addr}/{len} dev veth0 {nodad}"));
            ns.ip("link set veth0 up");
        }
    }

    /// Every TCP socket inside, IPv4 and IPv6, TIME_WAIT and half-open ones too.
    pub fn rows(&self) -> Vec<Row> {
        let text = self.enter(|| {
            ["tcp", "tcp6"]
                .map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("procfs"))
                .concat()
        });
        text.lines()
            .filter(|line| !line.contains("local_address"))
            .map(|line| {
                let mut words = line.split_whitespace().skip(1);
                let mut port = || {
                    let end = words.next().and_then(|w| w.rsplit(':').next()).expect("address:port");
                    u16::from_str_radix(end, 16).expect("hex")
                };
                let (lport, rport) = (port(), port());
                (lport, rport, u8::from_str_radix(words.next().expect("state"), 16).expect("hex"))
            })
            .collect()
    }

    /// Wait until no socket inside is on its way any more: listeners and TIME_WAIT remain.
    pub fn quiet(&self) {
        wait_until("connections to end", || self.rows().iter().all(|row| row.2 == LISTEN || row.2 == TIME_WAIT));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let removed = process::spawn(Command::new("ip").args(["netns", "del", &self.name])).wait();
        if !std::thread::panicking() {
            assert!(removed.success(), "ip netns del {}", self.name);
        }
    }
}

fn set(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: `fd` is an open namespace file.
    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
