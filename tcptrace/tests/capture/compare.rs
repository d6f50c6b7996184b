//! What is told of one end of a connection, and what a capture has of it.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::tshark::{ACK, FIN, Key, RST, SYN, Seg};

/// A packet's time stamp and a record's are of two clocks; what is between them is told again when it has changed by so much.
const STEP_US: i64 = 1000;
/// No more than so much between them, which changes meanwhile.
const CLOCKS_US: i64 = 5 * STEP_US;

/// A line of type `connection`.
pub struct Told<'a>(pub &'a Value);

/// Something that is not told as it was captured.
pub struct Difference {
    pub what: String,
    /// Why that is as it must be; None: nobody knows.
    pub rule: Option<&'static str>,
}

impl Told<'_> {
    pub fn is(&self, name: &str, value: &str) -> bool {
        self.0[name] == value
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0[name].as_u64()
    }

    fn end(&self, addr: &str, port: &str) -> SocketAddr {
        let addr: IpAddr = self.0[addr].as_str().expect("an address").parse().expect("an address");
        SocketAddr::new(addr, self.number(port).expect("a port") as u16)
    }

    /// The connection: which of a port's, the SYN says; where its number is not told, the only one `among` those captured.
    pub fn key<'k>(&self, mut among: impl Iterator<Item = &'k Key>) -> Key {
        let (local, remote) = (self.end("laddr", "lport"), self.end("raddr", "rport"));
        let client = self.is("role", "client");
        let syn = self.steps().find(|s| s.is(client, &["SYN"])).and_then(|s| s.number("seq"));
        let (client, server) = if client { (local, remote) } else { (remote, local) };
        match syn {
            Some(syn) => (client, server, syn),
            None => *among.find(|key| (key.0, key.1) == (client, server)).unwrap_or_else(|| panic!("{}", self.0)),
        }
    }

    /// Without the other end's view.
    fn is_alone(&self) -> bool {
        self.steps().all(|s| s.0["peer_at_us"].is_null())
    }

    /// CLOCK_REALTIME of the begin, microseconds.
    fn start(&self) -> Option<i64> {
        let start: jiff::Timestamp = self.0["start"].as_str()?.parse().expect("a time");
        Some(start.as_microsecond())
    }

    /// Did something come between the change of state and the FIN that it was for?
    fn waited(&self, step: &Step, out: bool, from: &Wire, sent: &Seg) -> bool {
        let at = step.0[if out { "at_us" } else { "peer_at_us" }].as_i64().zip(self.start());
        let at = at.map(|(at, start)| at + start - STEP_US);
        let meanwhile = |s: &Seg| s.from != from.local && at.is_some_and(|at| s.at >= at) && s.at <= sent.at;
        step.number("ack").is_none_or(|ack| before(ack, sent.ack)) && from.all.iter().any(meanwhile)
    }

    /// A child of Fast Open that was never established.
    fn is_early(&self) -> bool {
        self.is_fast() && !self.was_in("ESTABLISHED")
    }

    fn was_in(&self, state: &str) -> bool {
        self.0["states"].as_array().expect("states").iter().any(|s| s["state"] == state)
    }

    /// TCP Fast Open.
    fn is_fast(&self) -> bool {
        self.0["options"].as_array().is_some_and(|options| options.contains(&"tfo".into()))
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.0["ladder"].as_array().unwrap_or_else(|| panic!("a ladder in {}", self.0)).iter().map(Step)
    }
}

/// A step of its ladder.
#[derive(Clone, Copy)]
struct Step<'a>(&'a Value);

impl Step<'_> {
    /// Sent by this end, or by the other, with these flags?
    fn is(&self, out: bool, flags: &[&str]) -> bool {
        self.0["direction"] == if out { "out" } else { "in" } && self.0["flags"] == Value::from(flags)
    }

    fn again(&self) -> bool {
        self.0["again"] == true
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.0[name].as_u64().map(|n| n as u32)
    }
}

/// One end's own view: what it sent and what it received.
struct Wire<'a> {
    out: Vec<&'a Seg>,
    all: &'a [Seg],
    local: SocketAddr,
}

impl<'a> Wire<'a> {
    fn new(all: &'a [Seg], local: SocketAddr) -> Self {
        Self { out: all.iter().filter(|s| s.from == local).collect(), all, local }
    }

    /// The first with this flag that was sent, and without that one.
    fn first(&self, with: u8, without: u8) -> Option<&'a Seg> {
        self.out.iter().copied().find(|s| s.has(with) && s.flags & without == 0)
    }

    fn count(&self, with: u8, without: u8) -> u64 {
        self.out.iter().filter(|s| s.has(with) && s.flags & without == 0).count() as u64
    }

    /// Segments that begin before the end of what was sent: how many, and with how much payload.
    fn again(&self) -> (u64, u64) {
        let mut end: Option<u32> = None;
        let (mut segments, mut bytes) = (0, 0);
        for s in self.out.iter().filter(|s| s.space() > 0 && !s.has(RST)) {
            let behind = s.seq.wrapping_add(s.space());
            match end {
                Some(end) if before(s.seq, end) => {
                    segments += 1;
                    bytes += u64::from(s.len);
                }
                _ => {}
            }
            end = Some(end.filter(|end| before(behind, *end)).unwrap_or(behind));
        }
        (segments, bytes)
    }

    /// The own FIN's number.
    fn fin(&self) -> Option<u32> {
        self.first(FIN, 0).map(|s| s.seq.wrapping_add(s.space() - 1))
    }

    /// The peer's FIN came before the ACK of the own one, and was answered after it: TCP, which answers a FIN at once, took them in the
    /// other order.
    fn overtook(&self) -> bool {
        let (Some((theirs, _)), Some(own)) = (self.received_fin(), self.fin()) else { return false };
        let answered = |s: &Seg| s.from == self.local && s.has(ACK) && before(theirs, s.ack);
        let acked = |s: &Seg| s.from != self.local && s.has(ACK) && before(own, s.ack);
        self.all.iter().position(acked).is_some_and(|acked| !self.all[..acked].iter().any(answered))
    }

    /// How the stream came in: the peer's FIN's number once all before it was there, and the highest ACK by then. The order is that
    /// of the wire, in which the kernel as a rule takes what comes.
    fn received_fin(&self) -> Option<(u32, Option<u32>)> {
        let coming = self.all.iter().filter(|s| s.from != self.local);
        let (mut next, mut acked, mut fin) = (None, None::<u32>, None);
        let mut waiting: Vec<(u32, u32)> = Vec::new();
        for s in coming {
            if s.has(ACK) && acked.is_none_or(|acked| before(acked, s.ack)) {
                acked = Some(s.ack);
            }
            if s.has(FIN) {
                fin = Some(s.seq.wrapping_add(s.space() - 1));
            }
            if s.has(SYN) && next.is_none() {
                next = Some(s.seq.wrapping_add(s.space()));
            } else if s.space() > 0 {
                waiting.push((s.seq, s.seq.wrapping_add(s.space())));
            }
            while let Some(at) = next
                && let Some((_, end)) = waiting.iter().find(|(from, to)| !before(at, *from) && before(at, *to))
            {
                next = Some(*end);
            }
            if let (Some(fin), Some(next)) = (fin, next)
                && before(fin, next)
            {
                return Some((fin, acked));
            }
        }
        None
    }
}

/// In sequence numbers.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Who closed first, as this end saw it.
fn closed_by(wire: &Wire, ending: &str) -> &'static str {
    let received = wire.received_fin();
    match (wire.first(FIN, 0), received) {
        // Sent by one that knew of the other's.
        (Some(own), Some((fin, _))) if before(fin, own.ack) => "remote",
        (Some(_), Some((_, acked))) if acked.is_none_or(|acked| !before(wire.fin().expect("sent"), acked)) => "both",
        (Some(_), _) => "local",
        (None, Some(_)) => "remote",
        (None, None) if ending == "rst_sent" => "local",
        (None, None) => "remote",
    }
}

/// `fin`, `rst_sent`, `rst_received` or `refused`: what came first.
fn ending(wire: &Wire) -> &'static str {
    let (mut own, mut own_acked, mut answered) = (None, false, false);
    for (i, s) in wire.all.iter().enumerate() {
        let out = s.from == wire.local;
        answered |= s.has(SYN | ACK);
        if s.has(RST) {
            return match (out, answered) {
                (true, _) => "rst_sent",
                (false, true) => "rst_received",
                (false, false) => "refused",
            };
        }
        if out && s.has(FIN) {
            own = Some(s.seq.wrapping_add(s.space()));
        }
        own_acked |= !out && own.is_some_and(|own| !before(s.ack, own));
        let so_far = Wire { out: Vec::new(), all: &wire.all[..=i], local: wire.local };
        if own_acked && so_far.received_fin().is_some() {
            return "fin";
        }
    }
    "nothing"
}

/// Everything about one end. `wires`: as captured at the client's side, and at the server's.
pub fn compare(told: &Told, key: &Key, wires: [&[Seg]; 2]) -> Vec<Difference> {
    let client = told.is("role", "client");
    let (local, remote) = if client { (key.0, key.1) } else { (key.1, key.0) };
    let [own, peer] = if client { wires } else { [wires[1], wires[0]] };
    let (own, peer) = (Wire::new(own, local), Wire::new(peer, remote));
    let mut all = Differences(Vec::new());
    let established = own.all.iter().any(|s| s.has(SYN | ACK));
    let isn = |wire: &Wire| wire.first(SYN, 0).map(|s| u64::from(s.seq));
    if established {
        for (name, captured) in [("isn_local", isn(&own)), ("isn_remote", isn(&peer))] {
            let rule = (told.is_fast() && told.number(name).is_none()).then_some(FAST_OPEN);
            all.unless(rule, name, told.number(name), captured);
        }
    }
    if client {
        all.same("syn_retrans", told.number("syn_retrans"), own.count(SYN, ACK).checked_sub(1));
    } else {
        // A SYN that comes late, when all is over, is answered with another number.
        let answers = own.out.iter().filter(|s| s.has(SYN | ACK) && Some(u64::from(s.seq)) == isn(&own)).count() as u64;
        all.same("synack_retrans", told.number("synack_retrans"), answers.checked_sub(1));
    }
    let (segments, bytes) = own.again();
    all.same("retrans", told.number("retrans"), Some(segments));
    all.same("bytes_retrans", told.number("bytes_retrans"), Some(bytes));
    let ending = ending(&own);
    all.same("end", told.0["end"].as_str(), Some(ending));
    let by = (told.0["closed_by"].as_str(), closed_by(&own, ending));
    // The state was FIN_WAIT1 when the peer's FIN came, which the own one acknowledges.
    let waited = by == (Some("both"), "remote") && told.was_in("CLOSING");
    let overtaken = by == (Some("local"), "both") && told.was_in("FIN_WAIT2") && own.overtook();
    let rule = waited.then_some(WAITED).or(overtaken.then_some(OVERTAKEN));
    all.unless(rule, "closed_by", by.0, Some(by.1));
    handshake(told, client, [&own, &peer], &mut all);
    for (out, from, to) in [(true, &own, &peer), (false, &peer, &own)] {
        fins(told, out, from, to, &mut all);
        resets(told, out, from, to, &mut all);
    }
    again(told, &own, &mut all);
    times(told, &own, &mut all);
    all.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, told: T, captured: T) {
        self.unless(None, what, told, captured);
    }

    fn unless<T: PartialEq + std::fmt::Debug>(&mut self, rule: Option<&'static str>, what: &str, told: T, captured: T) {
        if told != captured {
            self.0.push(Difference { what: format!("{what}: told {told:?}, captured {captured:?}"), rule });
        }
    }
}

/// How much of the data in the SYN is acknowledged nobody tells, nor where the data behind it begins.
const FAST_OPEN: &str = "numbers that Fast Open leaves open";

/// It can be accepted, and reset, before the handshake's last ACK comes.
const EARLY: &str = "a child of Fast Open that was over before its handshake";

/// Those that were sent first: each once, with its numbers.
fn handshake(told: &Told, client: bool, [own, peer]: [&Wire; 2], all: &mut Differences) {
    let fast = told.is_fast();
    let early = told.is_early();
    let mut one = |what: &str, out: bool, flags: &[&str], sent: Option<&Seg>| {
        let mut found = told.steps().filter(|s| s.is(out, flags) && !s.again());
        let step = found.next();
        // Of a segment with these flags there is one in a handshake; FINs are acknowledged by others.
        let once = step.is_some() && (flags == ["ACK"] || found.next().is_none());
        all.unless((early && !once).then_some(EARLY), what, once, sent.is_some());
        let (Some(step), Some(sent)) = (step, sent) else { return };
        let ack = sent.has(ACK).then_some(sent.ack);
        for (name, captured) in [("seq", Some(sent.seq)), ("ack", ack)] {
            let number = step.number(name);
            let open = (fast && number.is_none()).then_some(FAST_OPEN);
            let rule = early.then_some(EARLY).or(open);
            all.unless(rule, &format!("{what} {name}"), number, captured);
        }
    };
    let (asks, answers) = if client { (own, peer) } else { (peer, own) };
    one("SYN", client, &["SYN"], asks.first(SYN, ACK));
    let answer = answers.first(SYN | ACK, 0);
    one("SYN+ACK", !client, &["SYN", "ACK"], answer);
    if answer.is_some() {
        // The first that the client sent behind its SYN, with data or without.
        one("the handshake's ACK", client, &["ACK"], asks.first(ACK, SYN));
    }
}

/// A FIN waits behind data that is not acknowledged where the congestion window or the peer's has no room: it acknowledges what came
/// after the state had changed, and who closed first is by the states.
const WAITED: &str = "a FIN that left later than its state";

/// Two CPUs take a segment each past the capture, and the second one reaches the socket first.
const OVERTAKEN: &str = "a FIN that was overtaken behind the capture";

/// Nobody's socket takes the FIN that comes for an orphan: what the connection left behind in the kernel does.
const ORPHAN: &str = "the FIN that an orphan waited for";

/// Of an end whose other is not told of, what came is drawn: a FIN that was sent again.
const COPY: &str = "the FIN that came was not the first";

fn fins(told: &Told, out: bool, from: &Wire, to: &Wire, all: &mut Differences) {
    let way = if out { "out" } else { "in" };
    let found: Vec<_> = told.steps().filter(|s| s.is(out, &["FIN", "ACK"]) && !s.again()).collect();
    let sent = from.first(FIN, 0);
    let orphan = told.0["patterns"].as_array().is_some_and(|patterns| patterns.contains(&"orphan".into()));
    let rule = (!out && found.is_empty() && orphan && told.is_alone()).then_some(ORPHAN);
    all.unless(rule, &format!("FINs {way}"), found.len(), usize::from(sent.is_some()));
    let (Some(step), Some(sent)) = (found.first(), sent) else { return };
    let number = sent.seq.wrapping_add(sent.space() - 1);
    let early = (told.is_early() && step.number("seq").is_none()).then_some(EARLY);
    all.unless(early, &format!("the FIN's number {way}"), step.number("seq"), Some(number));
    let ack = step.number("ack");
    let rule = match ack {
        _ if told.waited(step, out, from, sent) => Some(WAITED),
        Some(ack) if !out && told.is_alone() && from.out.iter().any(|s| s.has(FIN) && s.ack == ack) => Some(COPY),
        _ => None,
    };
    all.unless(rule, &format!("the FIN's ACK {way}"), ack, Some(sent.ack));
    // Its ACK, which may be its FIN.
    if let Some(answer) = told.steps().find(|s| s.is(!out, &["ACK"]) && s.number("ack") == Some(number.wrapping_add(1)))
    {
        let captured = to.out.iter().find(|s| s.has(ACK) && s.ack == number.wrapping_add(1));
        all.same(&format!("the ACK of the FIN {way}"), true, captured.is_some());
        if let (Some(seq), Some(captured)) = (answer.number("seq"), captured) {
            all.same(&format!("number of the ACK of the FIN {way}"), Some(seq), Some(captured.seq));
        }
    }
}

/// The RST that ended it, if one did.
fn resets(told: &Told, out: bool, from: &Wire, to: &Wire, all: &mut Differences) {
    let way = if out { "out" } else { "in" };
    let found = told.steps().filter(|s| s.is(out, &["RST"])).count();
    let ended = ending(from) == "rst_sent" || matches!(ending(to), "rst_received" | "refused");
    all.same(&format!("RSTs {way}"), found.min(1), usize::from(ended));
    let captured = from.first(RST, 0).is_some();
    all.unless(Some(NO_SOCKET), &format!("RSTs of no connection {way}"), ended, captured);
}

/// An end that is over answers what comes late, or twice, without a socket: that RST is no connection's.
const NO_SOCKET: &str = "a RST of an end that was over";

/// What was sent again has the number that it had, and is no more than what the wire has.
fn again(told: &Told, own: &Wire, all: &mut Differences) {
    for (flags, mask, number) in
        [(&["SYN"][..], SYN, own.first(SYN, ACK).map(|s| s.seq)), (&["FIN", "ACK"][..], FIN, own.fin())]
    {
        let steps: Vec<_> = told.steps().filter(|s| s.is(true, flags) && s.again()).map(|s| s.number("seq")).collect();
        let sent = own.count(mask, if mask == SYN { ACK } else { 0 });
        all.same(&format!("{flags:?} again"), steps.iter().all(|seq| *seq == number), true);
        all.same(
            &format!("{flags:?} again, more often than captured"),
            steps.len() as u64 > sent.saturating_sub(1),
            false,
        );
    }
}

/// A record is made before what it tells of is sent, and after it was received.
fn times(told: &Told, own: &Wire, all: &mut Differences) {
    let Some(start) = told.start() else { return };
    let at = |s: &Step| s.0["at_us"].as_i64().map(|us| start + us);
    let sent = [(&["SYN"][..], SYN, ACK), (&["FIN", "ACK"], FIN, 0)];
    for (flags, with, without) in sent {
        let step = told.steps().find(|s| s.is(true, flags) && !s.again());
        if let (Some(at), Some(sent)) = (step.as_ref().and_then(at), own.first(with, without)) {
            all.same(&format!("{flags:?} sent before it was told"), at > sent.at + CLOCKS_US, false);
        }
        let step = told.steps().find(|s| s.is(false, flags) && !s.again());
        let received = own.all.iter().find(|s| s.from != own.local && s.has(with) && s.flags & without == 0);
        if let (Some(at), Some(received)) = (step.as_ref().and_then(at), received) {
            all.same(&format!("{flags:?} told before it came"), at < received.at - CLOCKS_US, false);
        }
    }
}

/// Both captures, for a message.
pub fn show(wires: [&[Seg]; 2], key: &Key) -> String {
    let line = |s: &Seg| {
        let (way, own, peer) = if s.from == key.0 { ("→", 0, 1) } else { ("←", 1, 0) };
        let isn = |i: usize| wires[0].iter().find(|s| s.has(SYN) && (s.from == key.0) == (i == 0)).map_or(0, |s| s.seq);
        let names = [(SYN, "SYN "), (FIN, "FIN "), (RST, "RST "), (ACK, "ACK ")];
        let flags: String = names.iter().filter(|(flag, _)| s.has(*flag)).map(|(_, name)| *name).collect();
        let (seq, ack) = (s.seq.wrapping_sub(isn(own)), s.ack.wrapping_sub(isn(peer)));
        format!("  {} {way} {flags}{seq}+{} ack {ack}", s.at % 100_000_000, s.len)
    };
    let brief = |wire: &[Seg]| {
        let lines: Vec<_> = wire.iter().map(line).collect();
        let skipped = lines.len().saturating_sub(40);
        let note = (skipped > 0).then(|| format!("  … {skipped} more …"));
        let (head, tail) = lines.split_at((lines.len() - skipped).min(20).min(lines.len()));
        head.iter()
            .cloned()
            .chain(note)
            .chain(tail[skipped.min(tail.len())..].iter().cloned())
            .collect::<Vec<_>>()
            .join("\n")
    };
    format!("at the client's side:\n{}\nat the server's side:\n{}", brief(wires[0]), brief(wires[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_a_fin_is_overtaken_where_it_is_answered_after_the_own_ones_ack() {
        let [here, there]: [SocketAddr; 2] = ["10.0.0.1:1", "10.0.0.2:2"].map(|addr| addr.parse().expect("an address"));
        let seg = |out: bool, flags: u8, seq: u32, ack: u32| {
            let (from, to) = if out { (here, there) } else { (there, here) };
            Seg { at: 0, from, to, seq, ack, flags, len: 0 }
        };
        // Both FINs before either was answered.
        let begin = [
            seg(true, SYN, 0, 0),
            seg(false, SYN | ACK, 0, 1),
            seg(true, ACK, 1, 1),
            seg(false, FIN | ACK, 1, 1),
            seg(true, FIN | ACK, 1, 1),
        ];
        let (own_acked, answer) = (seg(false, ACK, 2, 2), seg(true, ACK, 2, 2));
        for (end, overtaken) in [([&own_acked, &answer], true), ([&answer, &own_acked], false)] {
            let all: Vec<Seg> = begin.iter().chain(end).cloned().collect();
            let wire = Wire::new(&all, here);
            assert_eq!((closed_by(&wire, "fin"), wire.overtook()), ("both", overtaken));
        }
        assert!(!Wire::new(&begin, here).overtook(), "neither was answered");
    }
}
