//! A wire between two namespaces: what one kernel sends comes to the other a little later, unless a scene loses it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    net::Ipv4Addr,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::support::{netns::Netns, segment::Segment, tun};

/// The client's end.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The server's end.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// From one end to the other.
const DELAY: Duration = Duration::from_millis(5);

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It arrives, and then the bell rings.
    Rings,
    /// Nobody sees it again.
    Lost,
    /// It waits until one of the other direction is held, too: then both arrive.
    Held,
}

/// Decides about each segment, with whether it comes from the left.
pub type Judge = Box<dyn FnMut(bool, &Segment) -> Fate + Send>;

/// Carries until it is dropped.
pub struct Wire {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Packet {
    due: Instant,
    /// The end that it goes to.
    to: usize,
    bytes: Vec<u8>,
    rings: bool,
}

impl Wire {
    /// Between `ends`, of which the right one takes packets of `mtu` bytes at most.
    pub fn new(ends: [&Netns; 2], mtu: u32, judge: Judge, bell: UnixStream) -> Self {
        let devices = [(ends[0], LEFT), (ends[1], RIGHT)].map(|(ns, addr)| tun::device_at(ns, addr));
        ends[1].ip(&format!("link set tun0 mtu {mtu}"));
        let end = Arc::<AtomicBool>::default();
        let ending = Arc::clone(&end);
        let thread = std::thread::spawn(move || carry(&devices, judge, bell, &ending));
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("dropped once").expect("the wire holds");
        }
    }
}

fn carry(devices: &[File; 2], mut judge: Judge, mut bell: UnixStream, end: &AtomicBool) {
    let mut sent: VecDeque<Packet> = VecDeque::new();
    let mut held: Vec<Packet> = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let mut fds = [0, 1].map(|i| libc::pollfd { fd: devices[i].as_raw_fd(), events: libc::POLLIN, revents: 0 });
        let wait = sent.front().map_or(DELAY, |packet| packet.due.saturating_duration_since(Instant::now()));
        // Rounded up: a packet is not early.
        let wait = wait.as_micros().div_ceil(1000) as i32;
        // SAFETY: two descriptors in the array.
        assert!(unsafe { libc::poll(fds.as_mut_ptr(), 2, wait) } >= 0, "poll: {}", std::io::Error::last_os_error());
        for from in [0, 1].into_iter().filter(|&i| fds[i].revents != 0) {
            let mut bytes = vec![0; 65536];
            let len = (&devices[from]).read(&mut bytes).expect("the device is up");
            bytes.truncate(len);
            let Some(segment) = Segment::decode(&bytes) else { continue };
            let fate = judge(from == 0, &segment);
            let packet = Packet { due: Instant::now() + DELAY, to: 1 - from, bytes, rings: fate == Fate::Rings };
            match fate {
                Fate::Arrives | Fate::Rings => sent.push_back(packet),
                Fate::Lost => {}
                Fate::Held => held.push(packet),
            }
        }
        if [0, 1].iter().all(|to| held.iter().any(|packet| packet.to == *to)) {
            sent.extend(held.drain(..));
        }
        // One at a time: what it is answered by comes before the answer to the next.
        if let Some(packet) = sent.pop_front_if(|packet| packet.due <= Instant::now()) {
            // The kernel has handled it when this returns.
            assert_eq!((&devices[packet.to]).write(&packet.bytes).expect("the device is up"), packet.bytes.len());
            if packet.rings {
                bell.write_all(b".").expect("somebody listens");
            }
        }
    }
}
