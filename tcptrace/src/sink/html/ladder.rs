//! Ladders: the segments of a connection's handshake and teardown between its two ends, their states and times beside them.

use std::fmt::Write as _;

use super::{
    super::{
        page::Page,
        text::{bytes, cells, duration, ladder as text, why},
    },
    class, escape,
};
use crate::{
    model::{
        End, Inferred, Payload, Shape,
        ladder::{Direction, Ladder, Part, Segment, Step, Torn},
    },
    report::{Pick, Why},
    sink::text::Tone,
};

const WIDTH: f64 = 800.0;
/// Where the ends' lines are.
const LEFT: f64 = 190.0;
const RIGHT: f64 = WIDTH - LEFT;
/// From one segment to the next.
const STEP: f64 = 34.0;
/// Above the first.
const TOP: f64 = 34.0;
/// Characters that a label on an arrow has room for.
const LABEL: usize = 64;

/// The section, if there are ladders.
pub fn section(page: &Page) -> Option<String> {
    let picks = page.report.picks();
    if picks.is_empty() {
        return None;
    }
    let mut out = String::from("<section id=\"ladders\">\n<h2>Ladders</h2>\n");
    out.push_str(
        "<p class=\"note\">A few connections, segment by segment, by the kernel’s own variables: no packet was captured. Dashed: not seen, but \
         it follows from the states.</p>\n",
    );
    for (number, pick) in picks.iter().enumerate() {
        draw(&mut out, number, pick);
    }
    out.push_str("</section>\n");
    Some(out)
}

fn reason(why: Why) -> String {
    match why {
        Why::SlowestHandshake => "the slowest handshake".to_owned(),
        Why::MostRetransmitted => "the most segments sent again".to_owned(),
        Why::Ended(end) => End::ALL.get(end).map_or_else(String::new, |&end| why::ended(end).long.to_owned()),
        Why::Ordinary => "an ordinary one, to compare with".to_owned(),
    }
}

fn draw(out: &mut String, number: usize, pick: &Pick) {
    let l = pick.ladder;
    let (c, f) = (&l.left.connection, &l.left.last);
    let why: Vec<_> = pick.why.iter().map(|&why| reason(why)).collect();
    let mut why = why.join("; ");
    if let Some(first) = why.get(..1).map(str::to_ascii_uppercase) {
        why.replace_range(..1, &first);
    }
    let mut who = String::new();
    cells::owner(&mut who, c);
    if let Some(right) = &l.right {
        who.push_str(" → ");
        cells::owner(&mut who, &right.connection);
    }
    let mut ended = String::new();
    why::end(&mut ended, c, f, true);
    if c.inferred.0 & Inferred::END != 0 && f.end.is_some_and(|end| end != End::Open) {
        ended.push('~');
    }
    if let Some(ns) = f.lasted_ns(c) {
        ended.push_str(" after ");
        duration(&mut ended, ns);
    }
    let options = text::settled(c, f.counters.as_ref().map_or(0, |n| n.options)).join(", ");
    let separator = if options.is_empty() { "" } else { " · " };
    let rows = rows(l);
    let height = TOP + STEP * rows.len() as f64 + 14.0;
    let id = format!("ladder-{number}");
    write!(
        out,
        "<figure>\n<h3>{}</h3>\n<figcaption>#{} {} · {}{separator}{}</figcaption>\n<div class=\"scroll\"><svg id=\"{id}\" class=\"ladder\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{}: {}</title>\n<desc \
         id=\"{id}-d\">{}</desc>\n",
        escape(&why),
        c.id,
        escape(&who),
        escape(&ended),
        escape(&options),
        escape(&why),
        escape(&who),
        escape(&described(l))
    )
    .expect("a String takes everything");
    let (mut left, mut right) = (String::new(), String::new());
    cells::endpoint(&mut left, c.tuple.family, &c.tuple.laddr, c.tuple.lport);
    cells::endpoint(&mut right, c.tuple.family, &c.tuple.raddr, c.tuple.rport);
    label(out, LEFT, 14.0, "middle", "strong", &left);
    label(out, RIGHT, 14.0, "middle", "strong", &right);
    for x in [LEFT, RIGHT] {
        writeln!(out, "<line class=\"life\" x1=\"{x}\" x2=\"{x}\" y1=\"22\" y2=\"{:.0}\"/>", height - 4.0)
            .expect("a String takes everything");
    }
    let base = l.steps.iter().flat_map(|s| s.times).flatten().min().unwrap_or(0);
    for (i, row) in rows.iter().enumerate() {
        let y = TOP + STEP * (i as f64 + 0.6);
        match row {
            Row::Step(step, last) => self::step(out, l, step, *last, y, base),
            Row::Said(tone, words) => label(out, WIDTH / 2.0, y, "middle", class(*tone), words),
        }
    }
    out.push_str("</svg></div>\n</figure>\n");
}

enum Row<'a> {
    Step(&'a Step, bool),
    Said(Tone, String),
}

/// Steps, and what stands between them.
fn rows(l: &Ladder) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let handshake = l.handshake();
    for (i, step) in l.steps.iter().enumerate() {
        if handshake == Some(i)
            && let Some(n) = l.left.last.counters
        {
            let p = Payload::new(&n, Shape::of(&l.left.connection));
            let mut words = String::from("→ ");
            bytes(&mut words, p.acked.unwrap_or(p.sent));
            words.push_str("   ← ");
            bytes(&mut words, p.received);
            rows.push(Row::Said(Tone::Plain, words));
        }
        match step.torn {
            Some(Torn::Preexisting) => rows.push(Row::Said(Tone::Dim, "was there before the recording".to_owned())),
            Some(Torn::Lost) => rows.push(Row::Said(Tone::Warn, "records lost here".to_owned())),
            None => {}
        }
        rows.push(Row::Step(step, i + 1 == l.steps.len()));
    }
    rows
}

fn label(out: &mut String, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
    if !text.is_empty() {
        writeln!(
            out,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        )
        .expect("a String takes everything");
    }
}

fn tone(s: &Segment) -> Tone {
    match s.part {
        Part::Rst => Tone::Bad,
        _ if s.again => Tone::Warn,
        _ => Tone::Plain,
    }
}

fn step(out: &mut String, l: &Ladder, step: &Step, last: bool, y: f64, base: u64) {
    let time = |at: Option<u64>| {
        let mut words = String::new();
        if let Some(at) = at {
            words.push('+');
            duration(&mut words, at.saturating_sub(base));
        }
        words
    };
    // Beside the lines: states near them, times at the edges.
    for (x, edge, anchors, i) in
        [(LEFT - 8.0, 4.0, ["end", "start"], 0), (RIGHT + 8.0, WIDTH - 4.0, ["start", "end"], 1)]
    {
        label(out, edge, y + 4.0, anchors[1], "mono", &time(step.times[i]));
        if let Some(beside) = step.states[i] {
            let class = if beside.concluded { "dim" } else { "strong" };
            label(out, x, y + 4.0, anchors[0], class, &text::name(beside));
        }
    }
    let Some(segment) = &step.segment else {
        if last {
            label(
                out,
                WIDTH / 2.0,
                y + 4.0,
                "middle",
                class(why::final_tone(&l.left.connection, &l.left.last)),
                &text::reason(l),
            );
        }
        return;
    };
    let tone = class(tone(segment));
    let dashed = if segment.dashed { " concluded" } else { "" };
    let (from, to, back) = match segment.direction {
        Direction::Out => (LEFT + 4.0, RIGHT - 3.0, -9.0),
        Direction::In => (RIGHT - 4.0, LEFT + 3.0, 9.0),
    };
    writeln!(
        out,
        "<path class=\"arrow {tone}{dashed}\" d=\"M{from:.1} {y:.1}H{:.1}\"/><path class=\"head {tone}\" d=\"M{to:.1} {y:.1}l{back} -4.5v9z\"/>",
        to + back
    )
    .expect("a String takes everything");
    let labels = text::labels(segment, l);
    let fits = labels.iter().find(|label| label.chars().count() <= LABEL).unwrap_or(&labels[3]);
    label(out, WIDTH / 2.0, y - 5.0, "middle", &format!("strong mono {tone}"), fits);
}

/// The same in words, for who does not see it.
fn described(l: &Ladder) -> String {
    let mut words = Vec::new();
    for step in &l.steps {
        let states = |i: usize| step.states[i].map(text::name);
        let segment = step.segment.as_ref().map(|s| {
            let arrow = if s.direction == Direction::Out { "to the peer" } else { "from the peer" };
            let dashed = if s.dashed { ", not seen" } else { "" };
            format!("{} {arrow}{dashed}", text::labels(s, l)[3])
        });
        let state = match (states(0), states(1)) {
            (Some(own), Some(peer)) => Some(format!("{own}, the peer {peer}")),
            (Some(own), None) => Some(own),
            (None, Some(peer)) => Some(format!("the peer {peer}")),
            (None, None) => None,
        };
        words.extend([segment, state].into_iter().flatten());
    }
    words.join("; ")
}
