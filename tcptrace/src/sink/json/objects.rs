//! The objects, field by field in the order of the JSON, and how each is made from the model.

use tcptrace_common::record::Tuple;

use super::{
    encode::{Actor, Address, Concluded, Family, Hex, Map, Options, States, Text, Texts, When},
    ladder::Steps,
    object::object,
    queues::Residuals,
    stack::StackFrames,
};
use crate::{
    frame::fact,
    model::{
        CloseSegments, ClosedBy, Connection, End, Final, Found, Inferred, Mini, Patterns, Payload, Process, Role,
        Shape, Stack, State, Transition, comm_str,
    },
    sink::Summary,
};

object! {
    /// What belongs to a socket.
    pub struct Socket<'a> {
        /// Number of the timeline in this trace: the request, the connection and its TIME_WAIT remnant have the same.
        id: u64,
        /// Cookie in hexadecimal, as `ss -e` prints it after `sk:`.
        sock: Option<Hex>,
        /// Inode number, as `ss -e` prints it after `ino:`.
        inode: Option<u64>,
        /// Descriptor in the owner.
        fd: Option<i32>,
        /// Network namespace: inode number of `/proc/PID/ns/net`.
        netns: Option<u32>,
        /// Address family of the socket: `ipv4` or `ipv6`. A v4-mapped socket is `ipv6`.
        family: Family,
        /// Local address.
        laddr: Option<Address<'a>>,
        /// Local port. A socket that was not bound gets one inside of connect() or listen(), after its first change of state.
        lport: Option<u16>,
        /// Remote address.
        raddr: Option<Address<'a>>,
        /// Remote port.
        rport: Option<u16>,
        /// `client`, `server` or `listener`.
        role: Option<Role>,
        /// Owner: thread group in the initial pid namespace.
        pid: Option<u32>,
        /// Owner: the thread that opened or accepted the socket.
        tid: Option<u32>,
        /// Owner: name of the thread-group leader.
        comm: Option<Text<'a>>,
        /// Owner: user id in the initial user namespace.
        uid: Option<u32>,
        /// Owner: cgroup when it opened or accepted the socket, as a path below the mount of the v2 hierarchy; absent if it was gone before it could be looked up.
        cgroup: Option<Text<'a>>,
        /// Container of that cgroup: its name where the runtime's files tell it, else its id.
        container: Option<Text<'a>>,
        /// Id of that container as its runtime has it, where `container` is a name.
        container_id: Option<Text<'a>>,
        /// Kubernetes or Podman pod of that container: its name where the runtime's files tell it, else its uid.
        pod: Option<Text<'a>>,
        /// systemd unit of that cgroup, the innermost one; a slice is none.
        unit: Option<Text<'a>>,
        /// Another process that acted on the socket (`ss -K`, or one that inherited it): `pid`, `comm`.
        actor: Option<Actor<'a>>,
        /// `true` if the socket existed when the trace began.
        preexisting: Option<bool>,
    }
}

/// Zero stands for "not known" in records.
#[inline(always)]
pub(super) fn some<T: Default + PartialEq>(n: T) -> Option<T> {
    (n != T::default()).then_some(n)
}

impl<'a> Socket<'a> {
    #[inline(always)]
    pub(super) fn new(c: &'a Connection) -> Self {
        let t = &c.tuple;
        let listener = c.role == Some(Role::Listener) || c.state == State::Listen;
        let address = |bytes: &'a [u8; 16], zero_is_known: bool| {
            (zero_is_known || *bytes != [0; 16]).then_some(Address(t.family, bytes))
        };
        Self {
            sock: some(c.cookie).map(Hex),
            inode: some(c.inode),
            fd: (c.fd >= 0).then_some(c.fd),
            // A listener on every address has none.
            laddr: address(&t.laddr, listener),
            raddr: address(&t.raddr, false),
            role: c.role,
            actor: c.actor.as_deref().map(|a| Actor { pid: a.pid, comm: comm_str(&a.comm) }),
            preexisting: c.preexisting.then_some(true),
            ..Self::ends(c.id, t, c.owner.as_deref())
        }
    }

    /// Something that has ends and an owner, and no socket of its own.
    #[inline(always)]
    pub(super) fn ends(id: u64, t: &'a Tuple, owner: Option<&'a Process>) -> Self {
        let cgroup = owner.and_then(|o| o.cgroup.as_deref());
        let container = cgroup.and_then(|c| c.container.as_ref());
        let text = |s: &'a str| Text(s.as_bytes());
        Self {
            id,
            sock: None,
            inode: None,
            fd: None,
            netns: some(t.netns),
            family: Family(t.family),
            laddr: Some(Address(t.family, &t.laddr)),
            lport: some(t.lport),
            raddr: Some(Address(t.family, &t.raddr)),
            rport: some(t.rport),
            role: None,
            pid: owner.map(|o| o.pid),
            tid: owner.and_then(|o| some(o.tid)),
            comm: owner.map(|o| Text(comm_str(&o.comm))),
            uid: owner.map(|o| o.uid),
            cgroup: cgroup.map(|c| text(&c.path)),
            container: container.map(|c| text(c.label())),
            container_id: container.filter(|c| c.name.is_some()).map(|c| text(&c.id)),
            pod: cgroup.and_then(|c| c.pod.as_deref()).map(text),
            unit: cgroup.and_then(|c| c.unit.as_deref()).map(text),
            actor: None,
            preexisting: None,
        }
    }

    pub(super) fn mini(m: &'a Mini, role: Option<Role>) -> Self {
        Self { sock: some(m.cookie).map(Hex), role, preexisting: Some(true), ..Self::ends(m.id, &m.tuple, None) }
    }
}

object! {
    /// The host and what is traced on it. Always the first line.
    pub struct StartObject<'a> = "start" {
        /// Host name.
        host: Text<'a>,
        /// `/proc/sys/kernel/random/boot_id`: `mono_ns` of two traces can be compared if it is the same.
        boot_id: Option<Text<'a>>,
        /// `uname -r`.
        kernel: Text<'a>,
        /// Version of tcptrace that made the trace.
        version: Text<'a>,
        /// Filter option → its value.
        filters: Map<'a>,
        /// Signal → the hook that serves it.
        signals: Map<'a>,
        /// `exact` if every signal has its best hook, else `degraded`.
        fidelity: Text<'a>,
        /// Signals that a lesser hook serves, or none.
        degraded: Texts<'a>,
        /// Only of a later part of a trace (`record --ring`, `--rotate`): `mono_ns` of the last record before it. What is older is told of sockets that were not over then.
        cut_mono_ns: Option<u64>,
        /// Kernel records up to there.
        records_before: Option<u64>,
        /// Events lost up to there; they are not among `lost` of the summary.
        lost_before: Option<u64>,
        /// Sockets that were not over then and of which nothing older is told: there was no room for it.
        forgotten: Option<u64>,
    }
}

impl<'a> StartObject<'a> {
    pub(super) fn new(start: &'a fact::Start, filters: &'a [(String, String)]) -> Self {
        Self {
            host: Text(start.host.as_bytes()),
            boot_id: (!start.boot_id.is_empty()).then_some(Text(start.boot_id.as_bytes())),
            kernel: Text(start.kernel.as_bytes()),
            version: Text(start.version.as_bytes()),
            filters: Map(filters),
            signals: Map(&start.signals),
            fidelity: Text(if start.degraded.is_empty() { b"exact" } else { b"degraded" }),
            degraded: Texts(&start.degraded),
            cut_mono_ns: start.cut.map(|cut| cut.at),
            records_before: start.cut.map(|cut| cut.records),
            lost_before: start.cut.map(|cut| cut.lost),
            forgotten: start.cut.map(|cut| cut.forgotten),
        }
    }
}

object! {
    /// A socket that existed when the trace began, a TIME_WAIT remnant included; of a trace of processes also one that another process
    /// passed to one of them.
    pub struct SocketObject<'a> = "socket" {
        /// See above.
        socket: Socket<'a>,
        /// State.
        state: State,
        /// Bytes received and not read, a FIN counted, as `ss` shows under Recv-Q; of a listener the length of its accept queue.
        unread: Option<u32>,
        /// Bytes written and not acknowledged, a SYN or FIN counted, as `ss` shows under Send-Q; of a listener the limit of its accept queue.
        unsent: Option<u32>,
        /// Microseconds since the last segment with data, in either direction.
        idle_us: Option<u64>,
        /// Half-open requests of a listener.
        syn_queue: Option<u32>,
        /// Names of fields that were concluded and not seen.
        inferred: Concluded<'a>,
    }
}

impl<'a> SocketObject<'a> {
    pub(super) fn new(c: &'a Connection, f: &Found) -> Self {
        Self {
            socket: Socket::new(c),
            state: c.state,
            unread: Some(f.unread),
            unsent: Some(f.unsent),
            idle_us: f.idle_us,
            syn_queue: f.syn_queue,
            inferred: Concluded { bits: c.inferred, owner: c.owner.as_deref(), states: ["state"; 2] },
        }
    }

    pub(super) fn remnant(m: &'a Mini) -> Self {
        Self {
            socket: Socket::mini(m, None),
            state: m.state,
            unread: None,
            unsent: None,
            idle_us: None,
            syn_queue: None,
            inferred: Concluded { bits: Inferred::default(), owner: None, states: ["state"; 2] },
        }
    }
}

object! {
    /// A change of state. After a loss also a state in which a connection was found: `to` is then named in `inferred`, and what came before it is not known.
    pub struct TransitionObject<'a> = "transition" {
        /// See above, as it is after the change.
        socket: Socket<'a>,
        /// State before.
        from: State,
        /// State after.
        to: State,
        /// Microseconds spent in `from`.
        state_us: Option<u64>,
        /// What the kernel's tracepoint said, where it said something else: `"FIN_WAIT2>CLOSE"` is how TIME_WAIT begins, `"LISTEN>SYN_RECV"` how a half-open request becomes a socket.
        kernel: Option<(State, State)>,
        /// How the connection ended, see `connection`; only at the end.
        end: Option<End>,
        /// The socket's error (errno).
        errno: Option<u8>,
        /// Names of fields that were concluded and not seen.
        inferred: Concluded<'a>,
    }
}

impl<'a> TransitionObject<'a> {
    #[inline(always)]
    pub(super) fn new(c: &'a Connection, t: &Transition) -> Self {
        Self {
            socket: Socket::new(c),
            from: t.from,
            to: t.to,
            state_us: t.state_ns.map(|ns| ns / 1000),
            kernel: t.kernel,
            end: t.end,
            errno: some(t.errno),
            inferred: Concluded {
                bits: Inferred(t.inferred.0 | c.inferred.0 & (Inferred::OWNER | Inferred::ROLE | Inferred::LPORT)),
                owner: c.owner.as_deref(),
                states: ["from", "to"],
            },
        }
    }
}

object! {
    /// A connection, printed when it reaches CLOSE or TIME_WAIT, or when the trace ends.
    pub struct ConnectionObject<'a> = "connection" {
        /// See above.
        socket: Socket<'a>,
        /// When it began: the first SYN, or, of a server whose SYN was not seen, the final ACK. Absent if that was before the trace.
        start: Option<When>,
        /// Microseconds from `start` to the end. Absent if that was not seen: then this line comes when the connection was found to be over.
        duration_us: Option<u64>,
        /// Its life: `state`, `at_us` (microseconds from `start`, or from when it was first seen, to when the state was entered or, where that was not seen, first known) and `us` (microseconds spent in it).
        states: States<'a>,
        /// Microseconds from the first SYN to ESTABLISHED; of a server whose SYN was not seen (`states` begins with SYN_RECV) from the final ACK.
        handshake_us: Option<u64>,
        /// Microseconds between entering the accept queue (where no hook sees that, ESTABLISHED) and accept().
        accept_wait_us: Option<u64>,
        /// Who closed first: `local`, `remote`, `both` or `none`.
        closed_by: Option<ClosedBy>,
        /// How it ended: `fin`, `rst_sent`, `rst_received`, `refused`, `unreachable`, `connect_timeout`, `retransmit_timeout`, `keepalive_timeout`, `user_timeout`, `listener_closed`, `killed`, `overflow`, `aborted`, or `open` at the end of the trace. Absent if the records that would tell were lost.
        end: Option<End>,
        /// Payload bytes sent, retransmitted ones included.
        bytes_sent: Option<u64>,
        /// Payload bytes that the peer acknowledged.
        bytes_acked: Option<u64>,
        /// Payload bytes received in order.
        bytes_received: Option<u64>,
        /// Payload bytes sent again.
        bytes_retrans: Option<u64>,
        /// Payload bytes received and never read.
        unread: Option<u32>,
        /// Payload bytes written and never acknowledged.
        unsent: Option<u32>,
        /// Segments sent.
        segs_out: Option<u32>,
        /// Segments received.
        segs_in: Option<u32>,
        /// Segments sent again.
        retrans: Option<u32>,
        /// SYNs sent again.
        syn_retrans: Option<u32>,
        /// SYN-ACKs sent again.
        synack_retrans: Option<u16>,
        /// Smoothed round-trip time, microseconds.
        srtt_us: Option<u32>,
        /// Smallest round-trip time, microseconds.
        min_rtt_us: Option<u32>,
        /// Sending MSS, bytes.
        snd_mss: Option<u32>,
        /// Advertised MSS, bytes.
        adv_mss: Option<u16>,
        /// Window scale of the peer.
        wscale_snd: Option<u8>,
        /// Window scale of this end.
        wscale_rcv: Option<u8>,
        /// Initial sequence number of this end.
        isn_local: Option<u32>,
        /// Initial sequence number of the peer.
        isn_remote: Option<u32>,
        /// Of `sack`, `timestamps`, `ecn`, `tfo`, `syncookie`, `nodelay`, `keepalive`, `defer_accept`, `user_timeout`.
        options: Option<Options>,
        /// Records of this connection that were lost: 0 means that the timeline is whole.
        gaps: u32,
        /// Segments that a close by FINs took: 3 or 4.
        close_segments: Option<CloseSegments>,
        /// The socket's last error (errno).
        errno: Option<u8>,
        /// Of `simultaneous_open`, `simultaneous_close`, `self_connect`, `half_close`, `orphan`.
        patterns: Patterns,
        /// With `--stacks`: the functions through which the process came to connect() or accept(), the innermost first. `function` (demangled; absent if neither symbols nor debug information name it), `module` (path of the program or library as the process saw it, `[anon]` for code that is in no file), `offset` (address in that file, as `nm` and `addr2line` count; of all but the first frame where the call returns to), `file` and `line` (where debug information has them). Functions that were inlined have frames of their own. The stack ends where it cannot be followed any more; absent: nothing is known of it.
        stack: Option<StackFrames<'a>>,
        /// With `--ladder`: the segments of handshake and teardown, and what they led to. `torn` (what came before is not known: `preexisting`, `lost`), `at_us` and `peer_at_us` (microseconds from `start`: when this end and, if it is on this host, the other sent or received it), `direction` (`out`, `in`; absent if no segment led to the state), `flags`, `seq` (of the SYN, of the FIN itself, else of the segment), `ack`, `again` (sent before), `behind` (a FIN: so many unsent bytes were before it), `sent_again` (so many times, when is not known), `state` and `peer_state` afterwards, `inferred` (of `segment`, `state`, `peer_state`).
        ladder: Option<Steps<'a>>,
        /// Names of fields that were concluded and not seen.
        inferred: Concluded<'a>,
    }
}

/// Not measured yet, in [`tcptrace_common::record::Counters::min_rtt_us`].
const NO_RTT: u32 = u32::MAX;

impl<'a> ConnectionObject<'a> {
    #[inline(always)]
    pub(super) fn new(c: &'a Connection, f: &'a Final) -> Self {
        use tcptrace_common::record::option;
        let n = f.counters.as_ref();
        let h = c.handshake.as_ref();
        let payload = n.map(|n| Payload::new(n, Shape::of(c)));
        let elapsed = f.ts.saturating_sub(c.start_ns);
        let options = match (h.map(|h| h.options), n.map(|n| n.options)) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) | b.unwrap_or(0)),
        };
        let scaled = h.filter(|h| h.options & option::WSCALE != 0);
        Self {
            socket: Socket::new(c),
            start: (!c.preexisting).then_some(When(c.start_ns)),
            duration_us: f.lasted_ns(c).map(|ns| ns / 1000),
            states: States { timeline: &c.states, end_ns: (f.end == Some(End::Open)).then_some(elapsed) },
            handshake_us: f.handshake_ns.map(|ns| ns / 1000),
            accept_wait_us: f.accept_wait_ns.map(|ns| ns / 1000),
            closed_by: f.closed_by,
            end: f.end,
            bytes_sent: payload.map(|p| p.sent),
            bytes_acked: payload.and_then(|p| p.acked),
            bytes_received: payload.map(|p| p.received),
            bytes_retrans: payload.map(|p| p.retrans),
            unread: payload.map(|p| p.unread),
            unsent: payload.map(|p| p.unsent),
            segs_out: n.map(|n| n.segs_out),
            segs_in: n.map(|n| n.segs_in),
            retrans: n.map(|n| n.retrans),
            syn_retrans: f.syn_retrans,
            synack_retrans: (c.role == Some(Role::Server)).then_some(c.synack_retrans),
            srtt_us: f.srtt_us(c),
            min_rtt_us: n.map(|n| n.min_rtt_us).or(h.map(|h| h.min_rtt_us)).filter(|&us| us != NO_RTT),
            snd_mss: n.map(|n| n.snd_mss).or(h.map(|h| h.snd_mss)).and_then(some),
            adv_mss: h.map(|h| h.adv_mss).and_then(some),
            wscale_snd: scaled.map(|h| h.wscale_snd),
            wscale_rcv: scaled.map(|h| h.wscale_rcv),
            isn_local: c.isn_local(),
            isn_remote: h.map(|h| h.isn_remote),
            options: options.map(Options),
            gaps: c.gaps,
            close_segments: f.close_segments,
            errno: some(f.errno),
            patterns: c.patterns,
            stack: f.stack.as_deref().map(|stack| StackFrames(&stack.frames)),
            ladder: None,
            inferred: Concluded { bits: c.inferred, owner: c.owner.as_deref(), states: ["states"; 2] },
        }
    }

    pub(super) fn with_ladder(self, steps: Steps<'a>) -> Self {
        Self { ladder: Some(steps), ..self }
    }
}

object! {
    /// A process opened or accepted the socket here: `trace --stacks`, behind the transition where connect() made it.
    pub struct OpenedObject<'a> = "opened" {
        /// See above.
        socket: Socket<'a>,
        /// State.
        state: State,
        /// As in `connection`.
        stack: StackFrames<'a>,
    }
}

impl<'a> OpenedObject<'a> {
    pub(super) fn new(c: &'a Connection, stack: &'a Stack) -> Self {
        Self { socket: Socket::new(c), state: c.state, stack: StackFrames(&stack.frames) }
    }
}

object! {
    /// Events that were lost: not seen, and counted.
    pub struct LossObject<'a> = "loss" {
        /// `ring_full`, `missed_run`, `map_full` or `storage`.
        kind: Text<'a>,
        /// How many since the last such line.
        count: u64,
        /// CPU. Absent: of all together, for the kernel counts a program's missed runs only so.
        cpu: Option<u32>,
        /// Kernel program.
        program: Text<'a>,
    }
}

impl<'a> LossObject<'a> {
    pub(super) fn new(l: &'a fact::Loss) -> Self {
        Self { kind: Text(l.kind.as_bytes()), count: l.count, cpu: l.cpu, program: Text(l.program.as_bytes()) }
    }
}

object! {
    /// What the run came to. Always the last line.
    pub struct SummaryObject<'a> = "summary" {
        /// Kernel records received.
        events: u64,
        /// Sum of all `loss` counts.
        lost: u64,
        /// Records that came too late to be put in time order by the merge.
        late: Option<u64>,
        /// Transitions that passed the filters.
        transitions: u64,
        /// Connections that passed the filters, those still open included.
        connections: u64,
        /// Connections of these with lost records.
        gaps: u64,
        /// Transitions that neither RFC 9293 nor Linux knows.
        impossible: Option<u64>,
        /// Records that could not be understood.
        undecodable: Option<u64>,
        /// Transitions dropped because too many waited for their owner to become known.
        held_dropped: Option<u64>,
        /// Average run time of the kernel programs, nanoseconds, where the kernel keeps statistics.
        kernel_ns_per_event: Option<u64>,
        /// CPU time of tcptrace itself, microseconds.
        collector_cpu_us: Option<u64>,
        /// Highest number of records in one second.
        peak_rate: Option<u64>,
        /// With `--stacks`: stacks that were not copied, because there were more than 1,000 a second, or no room.
        stacks_held_back: Option<u64>,
        /// Half-open requests that were given up: more than there is room for, or their end never came.
        requests_forgotten: Option<u64>,
        /// TIME_WAIT remnants that there was no room for.
        remnants_forgotten: Option<u64>,
        /// The kernel's own counters against the records, between the first moment of rest and the last: `netns`, `counter`, `sock` (of `sk_drops`), `kernel`, `ours`. Those that the loaded signals see whole, and that are not zero; absent with filters other than `--netns`.
        residual: Option<Residuals<'a>>,
    }
}

impl<'a> SummaryObject<'a> {
    pub(super) fn new(s: &'a Summary) -> Self {
        Self {
            events: s.events,
            lost: s.lost,
            late: s.late,
            transitions: s.transitions,
            connections: s.connections,
            gaps: s.gaps,
            impossible: some(s.impossible),
            undecodable: some(s.undecodable),
            held_dropped: some(s.held_dropped),
            kernel_ns_per_event: s.kernel_ns_per_event,
            collector_cpu_us: s.collector_cpu_us,
            peak_rate: s.peak_rate,
            stacks_held_back: some(s.stacks_held_back),
            requests_forgotten: some(s.requests_forgotten),
            remnants_forgotten: some(s.remnants_forgotten),
            residual: s.residual.as_deref().map(Residuals),
        }
    }
}
