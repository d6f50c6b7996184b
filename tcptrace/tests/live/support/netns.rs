//! Network namespaces that exist as long as the test that made them.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

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
        let path = path(&name);
        fs::create_dir_all(DIRECTORY).and_then(|()| File::create(&path)).expect("root may write there");
        // What `ip netns add` does, and `ip link set lo up`: two programs less for each of many tests on emulated CPUs.
        std::thread::scope(|scope| scope.spawn(|| begin(&path)).join()).expect("no panic").expect("a namespace");
        let file = File::open(&path).expect("mounted there");
        Self { name, file }
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
        let path = path(&self.name);
        let removed =
            unmount(&path, UnmountFlags::DETACH).map_err(io::Error::from).and_then(|()| fs::remove_file(&path));
        if !std::thread::panicking() {
            removed.unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }
}

/// Where `ip` looks for namespaces by name.
const DIRECTORY: &str = "/run/netns";

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// Move this thread, which is to end, into a new namespace that stays mounted at `path`.
fn begin(path: &str) -> io::Result<()> {
    // SAFETY: the thread owns nothing that belongs to its old namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount_bind("/proc/thread-self/ns/net", path)?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: zero is a valid value of a struct of integers.
    let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
    lo.ifr_name[..2].copy_from_slice(&[b'l', b'o'].map(|c| c as libc::c_char));
    lo.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `lo` is what netdevice(7) documents for this call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const lo) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: `fd` is an open namespace file.
    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
