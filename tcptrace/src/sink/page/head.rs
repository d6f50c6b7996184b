//! Where a recording comes from, its sums, what looks wrong.

use super::{Block, Page, Section, Span, outside, percent, plain, sentence, size};
use crate::{
    model::{End, count},
    report::{Moment, Part, Trouble, Wrong},
    sink::text::{Tone, duration, rate, subject},
};

/// Columns of a boot id that are enough to tell two apart.
const BOOT: usize = 8;

impl Page<'_> {
    /// The file, and each recording in it.
    pub(super) fn recording(&self) -> Section {
        let r = self.report;
        let mut blocks = Vec::new();
        let several = r.parts.len() > 1;
        for (i, part) in r.parts.iter().enumerate() {
            if several {
                blocks.push(Block::Note(format!("Recording {} of {} in this file:", i + 1, r.parts.len())));
            }
            let mut facts = self.part(part);
            if let Some(why) = r.unread.as_ref().filter(|_| i + 1 == r.parts.len()) {
                facts.push(("incomplete", vec![(outside(why.as_bytes()), Tone::Bad)]));
            }
            blocks.push(Block::Facts(facts));
        }
        if several && r.parts.windows(2).any(|two| two[0].start.boot_id != two[1].start.boot_id) {
            blocks.push(Block::Note("They were made on several hosts, or before and after a boot.".to_owned()));
        }
        Section { id: "recording", title: "Recording", blocks }
    }

    fn part(&self, part: &Part) -> Vec<(&'static str, Vec<Span>)> {
        let start = &part.start;
        let text = |text: &str| outside(text.as_bytes());
        let mut host = vec![plain(text(&start.host)), plain(format!("Linux {}", text(&start.kernel)))];
        if !start.boot_id.is_empty() {
            let boot: String = start.boot_id.chars().take(BOOT).collect();
            host.push((format!("boot {}", text(&boot)), Tone::Dim));
        }
        host.push((format!("recorded by tcptrace {}", text(&start.version)), Tone::Dim));
        let mut lasted = String::new();
        duration(&mut lasted, part.lasted());
        let (from, to) = (self.date(part.from), self.date(part.to));
        let mut facts = vec![("host", host), ("when", vec![plain(lasted), plain(format!("{from} to {to}"))])];
        if let Some(cut) = &start.cut {
            facts.push(("part", vec![plain(cut.to_string())]));
        }
        if !part.filters.is_empty() {
            let shown = |(name, value): &(String, String)| plain(format!("--{} {}", text(name), text(value)));
            facts.push(("filters", part.filters.iter().map(shown).collect()));
        }
        if !start.degraded.is_empty() {
            let names: Vec<_> = start.degraded.iter().map(|name| text(name)).collect();
            let words = (format!("{}: no hook serves them here, or a lesser one does", names.join(", ")), Tone::Dim);
            facts.push(("not exact", vec![words]));
        }
        facts
    }

    /// Sums over all connections.
    pub(super) fn totals(&self) -> Section {
        let r = self.report;
        let t = &r.totals;
        let of = |n: u64, words: &str| (n > 0).then(|| plain(format!("{n} {words}")));
        let mut connections = vec![plain(t.connections.to_string())];
        connections.extend(of(t.clients, "from here"));
        connections.extend(of(t.servers, "to here"));
        connections.extend(of(t.connections - t.clients - t.servers, "whose side is not known"));
        connections.extend(of(t.preexisting, "there before"));
        connections.extend(of(t.open, "open at the end"));
        let mut facts = vec![("connections", connections)];
        if t.opened > 0 {
            facts.push(("opened", self.opened()));
        }
        if let Some(summary) = &r.summary {
            facts.push(("transitions", vec![plain(summary.transitions.to_string())]));
        }
        if t.requests_failed > 0 {
            let words = "half-open requests and SYNs that came to nothing, told singly";
            facts.push(("requests", vec![plain(format!("{} {words}", t.requests_failed))]));
        }
        if t.counted > 0 {
            let mut bytes =
                vec![plain(format!("↑ {}", size(t.bytes_sent))), plain(format!("↓ {}", size(t.bytes_received)))];
            if t.counted < t.connections {
                bytes.push((format!("of {} whose counters are known", t.counted), Tone::Dim));
            }
            facts.push(("payload", bytes));
            let share = percent(t.retrans, t.segs_out);
            let mut again = vec![plain(format!("{} of {} segments ({share})", t.retrans, t.segs_out))];
            again.extend((t.bytes_retrans > 0).then(|| plain(size(t.bytes_retrans))));
            again.extend(of(t.syn_retrans, if t.syn_retrans == 1 { "SYN" } else { "SYNs" }));
            again.extend(of(t.synack_retrans, if t.synack_retrans == 1 { "SYN+ACK" } else { "SYN+ACKs" }));
            facts.push(("sent again", again));
        }
        let group = &r.all.group;
        let resets = [(End::RstSent, "sent"), (End::RstReceived, "received")].map(|(end, word)| {
            let n = group.ended(end);
            (n > 0).then(|| plain(format!("{n} {word}")))
        });
        if resets.iter().any(Option::is_some) {
            facts.push(("ended by RST", resets.into_iter().flatten().collect()));
        }
        let left = ["expired", "reused", "killed"].into_iter().zip(t.remnants);
        let left: Vec<_> = left.filter(|(_, n)| *n > 0).map(|(how, n)| plain(format!("{n} {how}"))).collect();
        if !left.is_empty() {
            facts.push(("TIME_WAIT", left));
        }
        Section { id: "totals", title: "Totals", blocks: vec![Block::Facts(facts)] }
    }

    /// How fast connections began, on average and at most.
    fn opened(&self) -> Vec<Span> {
        let r = self.report;
        let mut text = String::new();
        rate(&mut text, Some(r.totals.opened), r.lasted() / 1000);
        let mut words = vec![plain(format!("{text}/s on average"))];
        if let Some((begin, width, n)) = r.opened.peak(|&n| n.into()) {
            let mut text = String::from("at most ");
            rate(&mut text, Some(n), width / 1000);
            // As a moment without an offset of its own: the series has wall-clock time already.
            let wall = r.parts.first().and_then(|part| part.from.offset);
            let mono = begin.wrapping_add_signed(-wall.unwrap_or(0));
            let at = self.time(Moment { mono, offset: wall }, 0);
            text.push_str(&format!("/s, at {at}"));
            words.push(plain(text));
        }
        words
    }

    /// What rules of `watch` found.
    pub(super) fn findings(&self) -> Section {
        let found = &self.report.findings;
        let mut blocks: Vec<_> = found.all().iter().map(|t| self.finding(t)).collect();
        if found.more() > 0 {
            blocks.push(Block::Note(format!("{} more.", found.more())));
        }
        if blocks.is_empty() {
            blocks.push(Block::Note("No rule fired.".to_owned()));
        }
        Section { id: "findings", title: "Findings", blocks }
    }

    fn finding(&self, Trouble { finding: f, since, until }: &Trouble) -> Block {
        let mut text = format!("{} {} ", f.severity.name(), f.rule);
        subject(&mut text, &f.subject);
        text.push_str(&format!(", since {}", self.time(*since, 0)));
        if let Some(until) = until {
            text.push_str(", for ");
            duration(&mut text, until.mono.saturating_sub(since.mono));
        }
        text.push_str(&format!(": {}. Advice: {}", sentence(&f.summary.0), f.advice));
        Block::Wrong(text, f.look.clone())
    }

    /// What looks wrong.
    pub(super) fn wrong(&self) -> Section {
        let wrong = self.report.wrong();
        let mut blocks: Vec<_> =
            wrong.iter().map(|Wrong { said, next, .. }| Block::Wrong(sentence(said), (*next).to_owned())).collect();
        if blocks.is_empty() {
            blocks.push(Block::Note("Nothing.".to_owned()));
        }
        Section { id: "wrong", title: "What looks wrong", blocks }
    }

    /// What was lost, and what the kernel counted that was not seen.
    pub(super) fn loss(&self) -> Section {
        let r = self.report;
        let Some(s) = &r.summary else { return Section { id: "loss", title: "Loss and residual", blocks: vec![] } };
        let mut facts = vec![("events", vec![plain(count(s.events, "record of the kernel", "records of the kernel"))])];
        let mut lost = Vec::new();
        for ((kind, program), n) in &r.lost {
            let place = if program.is_empty() { String::new() } else { format!(" in {}", outside(program.as_bytes())) };
            lost.push((format!("{n} {}{place}", outside(kind.as_bytes())), Tone::Bad));
        }
        if lost.is_empty() {
            lost.push(plain("nothing"));
        }
        facts.push(("lost", lost));
        let mut more = |name: &'static str, n: u64, words: &str| {
            if n > 0 {
                facts.push((name, vec![(format!("{n} {words}"), Tone::Warn)]));
            }
        };
        more("gaps", s.gaps, "connections with lost records");
        more("impossible", s.impossible, "transitions that no TCP makes");
        more("not understood", s.undecodable, "records");
        more("late", s.late.unwrap_or(0), "records that came too late for the merge");
        more("forgotten", s.requests_forgotten, "half-open requests that there was no room for");
        more("forgotten", s.remnants_forgotten, "TIME_WAIT remnants that there was no room for");
        let residual = match &s.residual {
            None if r.is_filtered() => vec![plain("not compared: filters let only a part through")],
            None if r.has_queues() => {
                vec![plain("not compared: no hook here sees all that the kernel counts, or nothing was ever at rest")]
            }
            None => vec![plain("not compared: the kernel's counters were not recorded (`record --queues`)")],
            Some(all) if all.is_empty() => {
                vec![plain("nothing to compare: no counter grew between two moments of rest")]
            }
            Some(all) => {
                let wrong: Vec<_> = all.iter().filter(|r| r.kernel != r.ours).collect();
                let mut words = vec![plain(format!(
                    "{} of {} are as they were seen",
                    all.len() - wrong.len(),
                    count(all.len() as u64, "counter of the kernel", "counters of the kernel")
                ))];
                let shown = |r: &&crate::model::Residual| {
                    let name = outside(r.counter.as_bytes());
                    (format!("{name} in namespace {}: {} by the kernel, {} seen", r.netns, r.kernel, r.ours), Tone::Bad)
                };
                words.extend(wrong.iter().map(shown));
                words
            }
        };
        facts.push(("residual", residual));
        Section { id: "loss", title: "Loss and residual", blocks: vec![Block::Facts(facts)] }
    }
}
