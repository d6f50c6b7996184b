//! Records of single requests: filled from the request, from the child, or from the segment; let through by the token bucket.

use tcptrace_common::{
    queue::{RequestEvent, depth},
    record::{Head, Tuple, flag, kind},
    settings::bucket,
    state as tcp,
};

use crate::{
    bucket as buckets, emit, filter,
    listeners::{Listener, one_word},
    maps::REQUEST_ALLOWANCE,
    memory::{self, Memory, Probed},
    place::{bits, off},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// The low half of `::ffff:0.0.0.0`, as loaded.
const MAPPED: u64 = 0xffff_0000;

/// Both depths of a listener's queues.
#[derive(Clone, Copy)]
pub struct Depths {
    pub syn: u32,
    pub young: u32,
    pub accept: u32,
    pub limit: u32,
    /// Bits of [`depth`].
    pub known: u8,
}

impl Depths {
    /// As they are now.
    #[inline(always)]
    pub fn now<M: Memory>(sk: *const u8) -> Self {
        // SAFETY: a listener.
        unsafe {
            let (accept, limit) = (M::ld(sk, off!(ack_backlog)), M::ld(sk, off!(max_ack_backlog)));
            let mut d = Self { syn: 0, young: 0, accept, limit, known: depth::ACCEPT_QUEUE };
            let tp = M::tcp(sk);
            if !tp.is_null() {
                (d.syn, d.young) = (M::ld_or(tp, off!(qlen), 0), M::ld_or(tp, off!(young), 0));
                d.known |= depth::SYN_QUEUE;
            }
            d
        }
    }

    /// With the change that the kernel is about to make.
    #[inline(always)]
    pub fn corrected(mut self, syn: i32, young: i32) -> Self {
        self.syn = self.syn.wrapping_add_signed(syn);
        self.young = self.young.wrapping_add_signed(young);
        self.known |= depth::CORRECTED;
        self
    }

    #[inline(always)]
    pub unsafe fn write(&self, r: *mut RequestEvent) {
        // SAFETY: `r` points into a ring slot or a map entry.
        unsafe {
            (*r).syn_queue = self.syn;
            (*r).young = self.young;
            (*r).accept_queue = self.accept;
            (*r).limit = self.limit;
            (*r).known = self.known;
        }
    }
}

#[inline(always)]
unsafe fn head(head: *mut Head, listener: u64) {
    // SAFETY: `head` points into a ring slot or a map entry.
    unsafe {
        (*head).ts = 0;
        (*head).sock = listener;
        (*head).kind = kind::REQUEST_EVENT;
        (*head).from = tcp::NEW_SYN_RECV;
        (*head).to = tcp::NEW_SYN_RECV;
        (*head).err = 0;
        (*head).seq = 0;
        (*head).flags = flag::SEQ_ABSENT;
    }
}

/// All of a record but its depths, from a live request.
#[inline(always)]
pub unsafe fn from_request<M: Memory>(r: *mut RequestEvent, listener: u64, req: *const u8, outcome: u8) {
    // SAFETY: a request starts with a `sock_common`; `r` points into a ring slot or a map entry.
    unsafe {
        head(&raw mut (*r).head, listener);
        memory::tuple::<M>(req, M::ld(req, off!(num)), &raw mut (*r).tuple);
        (*r).child = 0;
        (*r).addr = req as u64;
        (*r).since = 0;
        (*r).rcv_isn = 0;
        (*r).snt_isn = 0;
        let tcp_req = M::tcp_request(req);
        if !tcp_req.is_null() {
            (*r).since = M::ld_or::<u64>(tcp_req, off!(snt_synack), 0) * 1000;
            (*r).rcv_isn = M::ld_or(tcp_req, off!(rcv_isn), 0);
            (*r).snt_isn = M::ld_or(tcp_req, off!(snt_isn), 0);
        }
        (*r).retrans = M::ld_or(req, off!(num_retrans), 0);
        (*r).timeouts = M::bits(req, bits!(num_timeout)) as u8;
        (*r).outcome = outcome;
        (*r).reserved = 0;
    }
}

/// All of a record but its depths, from a child whose request is not at hand any more.
#[inline(always)]
pub unsafe fn from_child<M: Memory>(r: *mut RequestEvent, listener: u64, child: *const u8, outcome: u8) {
    // SAFETY: a full socket; `r` points into a ring slot or a map entry.
    unsafe {
        head(&raw mut (*r).head, listener);
        memory::tuple::<M>(child, M::ld(child, off!(num)), &raw mut (*r).tuple);
        (*r).child = 0;
        (*r).addr = 0;
        (*r).since = 0;
        (*r).rcv_isn = 0;
        (*r).snt_isn = 0;
        let tp = M::tcp(child);
        if !tp.is_null() {
            let received = M::ld::<u64>(tp, off!(bytes_received)) as u32;
            (*r).rcv_isn = M::ld::<u32>(tp, off!(rcv_nxt)).wrapping_sub(received).wrapping_sub(1);
            let acked = M::ld::<u64>(tp, off!(bytes_acked)) as u32;
            (*r).snt_isn = M::ld::<u32>(tp, off!(snd_una)).wrapping_sub(acked).wrapping_sub(1);
        }
        (*r).retrans = 0;
        (*r).timeouts = 0;
        (*r).outcome = outcome;
        (*r).reserved = 0;
    }
}

/// All of a record but its depths, from a segment whose `tuple` was read.
#[inline(always)]
pub unsafe fn from_segment<M: Memory>(r: *mut RequestEvent, l: &Listener, tuple: &Tuple, skb: *const u8, outcome: u8) {
    // SAFETY: `skb` has its headers set; checked reads behind it.
    unsafe {
        head(&raw mut (*r).head, l.cookie);
        (*r).tuple = *tuple;
        (*r).child = 0;
        (*r).addr = 0;
        (*r).since = 0;
        (*r).rcv_isn = u32::from_be(Probed::ld(transport::<M>(skb), 4));
        (*r).snt_isn = 0;
        (*r).retrans = 0;
        (*r).timeouts = 0;
        (*r).outcome = outcome;
        (*r).reserved = 0;
    }
}

#[inline(always)]
unsafe fn transport<M: Memory>(skb: *const u8) -> *const u8 {
    // SAFETY: the caller's.
    unsafe {
        let head: u64 = M::ld(skb, off!(skb_head));
        (head + u64::from(M::ld::<u16>(skb, off!(skb_transport)))) as *const u8
    }
}

/// Acknowledgment number of a received segment.
#[inline(always)]
pub unsafe fn acknowledged<M: Memory>(skb: *const u8) -> u32 {
    // SAFETY: as for `from_segment`.
    unsafe { u32::from_be(Probed::ld(transport::<M>(skb), 8)) }
}

/// Both ends of a received segment, seen from this host; zero where they cannot be read.
#[inline(always)]
pub unsafe fn segment<M: Memory>(sk: *const u8, skb: *const u8) -> Tuple {
    let mut tuple = Tuple::default();
    let t = &raw mut tuple;
    // SAFETY: as for `from_segment`.
    unsafe {
        let head: u64 = M::ld(skb, off!(skb_head));
        let ip = (head + u64::from(M::ld::<u16>(skb, off!(skb_network)))) as *const u8;
        let (l, r) = ((&raw mut (*t).laddr).cast::<u64>(), (&raw mut (*t).raddr).cast::<u64>());
        if Probed::ld::<u8>(ip, 0) >> 4 == 4 {
            let (from, to) = (u64::from(Probed::ld::<u32>(ip, 12)), u64::from(Probed::ld::<u32>(ip, 16)));
            // As a request of that listener would have it: v4-mapped at an IPv6 one.
            let family: u16 = M::ld(sk, off!(family));
            (*t).family = family;
            if family == AF_INET {
                *r = from;
                *l = to;
            } else {
                *r.add(1) = MAPPED | from << 32;
                *l.add(1) = MAPPED | to << 32;
            }
        } else {
            (*t).family = AF_INET6;
            *r = Probed::ld(ip, 8);
            *r.add(1) = Probed::ld(ip, 16);
            *l = Probed::ld(ip, 24);
            *l.add(1) = Probed::ld(ip, 32);
        }
        (*t).netns = M::netns(sk);
        let tcp = transport::<M>(skb);
        (*t).rport = u16::from_be(Probed::ld(tcp, 0));
        (*t).lport = u16::from_be(Probed::ld(tcp, 2));
    }
    tuple
}

/// The peer of a request, for the estimator of distinct sources.
#[inline(always)]
pub unsafe fn peer<M: Memory>(req: *const u8) -> u64 {
    // SAFETY: a request starts with a `sock_common`.
    unsafe {
        if M::ld::<u16>(req, off!(family)) == AF_INET {
            return u64::from(M::ld::<u32>(req, off!(daddr)));
        }
        one_word(M::ld(req, off!(daddr6)), M::ld(req, off!(daddr6) + 8))
    }
}

/// The remote end of `t`, likewise.
#[inline(always)]
pub fn peer_of(t: &Tuple) -> u64 {
    let half = |at: usize| {
        let r = &t.raddr;
        u64::from_ne_bytes([r[at], r[at + 1], r[at + 2], r[at + 3], r[at + 4], r[at + 5], r[at + 6], r[at + 7]])
    };
    if t.family == AF_INET { half(0) } else { one_word(half(0), half(8)) }
}

/// May a record of this request (or child) of a wanted listener be made? One that is held back by the token bucket is counted.
#[inline(always)]
pub fn passes<M: Memory>(l: &Listener, req: *const u8) -> bool {
    completion_passes::<M>(req) && has_token(l)
}

/// Do records of completed handshakes of a wanted listener pass? They are never held back.
#[inline(always)]
pub fn completion_passes<M: Memory>(req: *const u8) -> bool {
    // SAFETY: a request or a full socket.
    REQUEST_ALLOWANCE.load() != 0 && filter::wanted_peer::<M>(req, || unsafe { M::ld(req, off!(num)) })
}

/// [`passes`] for a segment that made no request.
#[inline(always)]
pub fn segment_passes(l: &Listener, t: &Tuple) -> bool {
    REQUEST_ALLOWANCE.load() != 0 && filter::wanted_tuple(t) && has_token(l)
}

/// Take a token; count what is held back.
#[inline(always)]
pub fn has_token(l: &Listener) -> bool {
    if buckets::take(bucket::REQUESTS, REQUEST_ALLOWANCE.load()) {
        return true;
    }
    // SAFETY: this CPU's entry.
    unsafe { (*l.totals()).held_back += 1 }
    false
}

/// Are no records of single requests wanted at all?
#[inline(always)]
pub fn are_unwanted() -> bool {
    REQUEST_ALLOWANCE.load() == 0
}

/// Are no tokens left at the moment? Takes none.
#[inline(always)]
pub fn is_exhausted() -> bool {
    buckets::is_exhausted(bucket::REQUESTS, REQUEST_ALLOWANCE.load())
}

/// Copy a record that was filled before.
#[inline(always)]
pub fn emit_copy(program: usize, event: *const RequestEvent) {
    const { assert!(size_of::<RequestEvent>().is_multiple_of(8)) }
    emit::record::<RequestEvent>(program, |r| {
        let (from, to) = (event.cast::<u64>(), r.cast::<u64>());
        for i in 0..size_of::<RequestEvent>() / 8 {
            // SAFETY: both are records, of whole words.
            unsafe { *to.add(i) = *from.add(i) }
        }
    });
}
