//! Charts: connections over time by their ends, both queues of the busiest listeners, how long things took.

use std::fmt::Write as _;

use super::{
    super::{
        page::{
            Page,
            ends::{CLASSES, class},
            lists::place,
        },
        text::duration,
    },
    escape,
};
use crate::{
    group::Spread,
    model::End,
    report::{Depths, Moment, Series},
};

/// Columns over time, at most.
const COLUMNS: usize = 120;
/// Listeners whose queues are drawn, at most.
const LISTENERS: usize = 4;
/// Columns of a histogram for each power of ten.
const PER_DECADE: f64 = 5.0;

/// Where a chart has its lines: a view of `width` units, with margins for what stands beside the axes.
#[derive(Clone, Copy)]
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

const WIDE: Frame = Frame { width: 960.0, height: 220.0, left: 48.0, right: 12.0, top: 12.0, bottom: 24.0 };
const HALF: Frame = Frame { width: 480.0, height: 170.0, left: 48.0, right: 12.0, top: 12.0, bottom: 24.0 };

impl Frame {
    /// Units between the axes.
    fn inner(&self) -> (f64, f64) {
        (self.width - self.left - self.right, self.height - self.top - self.bottom)
    }

    fn x(&self, share: f64) -> f64 {
        self.left + share * self.inner().0
    }

    fn y(&self, share: f64) -> f64 {
        self.top + (1.0 - share) * self.inner().1
    }

    fn begin(&self, out: &mut String, id: &str, title: &str, about: &str) {
        let (title, about) = (escape(title), escape(about));
        write!(
            out,
            "<figure>\n<figcaption>{title}</figcaption>\n<div class=\"scroll\"><svg id=\"{id}\" viewBox=\"0 0 {} {}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{about}</desc>\n",
            self.width, self.height
        )
        .expect("a String takes everything");
    }

    /// Lines at round numbers up to `top`.
    fn scale(&self, out: &mut String, top: u64) {
        for n in ticks(top) {
            let y = self.y(n as f64 / top as f64);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                self.left,
                self.width - self.right,
                self.left - 6.0,
                y + 4.0,
                short(n)
            )
            .expect("a String takes everything");
        }
    }

    fn label(&self, out: &mut String, share: f64, anchor: &str, text: &str) {
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            self.x(share),
            self.height - 6.0,
            escape(text)
        )
        .expect("a String takes everything");
    }

    /// Begin, middle and end of what is drawn over time.
    fn times(&self, out: &mut String, page: &Page, begin: u64, end: u64) {
        for (share, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
            let at = begin + ((end - begin) as f64 * share) as u64;
            self.label(out, share, anchor, &moment(page, at, end - begin));
        }
    }
}

/// A moment of a series, as exact as it is worth.
fn moment(page: &Page, wall: u64, span: u64) -> String {
    let offset = page.report.parts.first().and_then(|part| part.from.offset);
    let mono = wall.wrapping_add_signed(-offset.unwrap_or(0));
    page.time(Moment { mono, offset }, if span < 10_000_000_000 { 2 } else { 0 })
}

/// Numbers to draw lines at: 0, and up to four more, round ones.
fn ticks(top: u64) -> Vec<u64> {
    let mut steps = (0..18).flat_map(|power| [1, 2, 5].map(|n| n * 10u64.pow(power)));
    let step = steps.find(|step| top / step <= 4).unwrap_or(u64::MAX);
    (0..=top / step).map(|i| i * step).collect()
}

/// `950`, `1.2k`, `34k`, `5M`.
fn short(n: u64) -> String {
    match n {
        0..1000 => n.to_string(),
        1000..10_000 if !n.is_multiple_of(1000) => format!("{}.{}k", n / 1000, n / 100 % 10),
        1000..1_000_000 => format!("{}k", n / 1000),
        _ => format!("{}M", n / 1_000_000),
    }
}

fn end(out: &mut String, key: &[(&str, &str)]) {
    out.push_str("</svg></div>\n");
    if !key.is_empty() {
        out.push_str("<ul class=\"key\">");
        for (class, name) in key {
            write!(out, "<li><i class=\"{class}\"></i>{}</li>", escape(name)).expect("a String takes everything");
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</figure>\n");
}

/// Connections by their ends, over time.
pub fn connections(out: &mut String, page: &Page) {
    let all = page.report.ends.columns(COLUMNS);
    if all.slots.is_empty() {
        return;
    }
    // Ends of one kind are one colour.
    let kind = |i: usize| {
        let of = class(End::ALL.get(i).copied());
        CLASSES.iter().position(|(name, _)| *name == of).unwrap_or(CLASSES.len() - 1)
    };
    let columns: Vec<[u64; CLASSES.len()]> = all
        .slots
        .iter()
        .map(|ends| {
            let mut sums = [0; CLASSES.len()];
            ends.0.iter().enumerate().for_each(|(i, &n)| sums[kind(i)] += u64::from(n));
            sums
        })
        .collect();
    let top = columns.iter().map(|sums| sums.iter().sum::<u64>()).max().unwrap_or(1).max(1);
    let mut width = String::new();
    duration(&mut width, all.width);
    let span = all.width.saturating_mul(columns.len() as u64);
    WIDE.begin(
        out,
        "over-time",
        &format!("Connections that ended, every {width}"),
        &format!("Columns over time, stacked by how connections ended; at most {top} in {width}."),
    );
    WIDE.scale(out, top);
    let step = WIDE.inner().0 / columns.len() as f64;
    let gap = if step > 4.0 { 1.0 } else { 0.0 };
    for (i, sums) in columns.iter().enumerate() {
        let x = WIDE.left + i as f64 * step;
        if sums.iter().all(|&n| n == 0) {
            continue;
        }
        let mut title = moment(page, all.begin + i as u64 * all.width, span);
        let mut below = 0;
        out.push_str("<g>");
        let mut rects = String::new();
        for ((class, name), &n) in CLASSES.iter().zip(sums).filter(|(_, n)| **n > 0) {
            let (y, y2) = (WIDE.y((below + n) as f64 / top as f64), WIDE.y(below as f64 / top as f64));
            write!(
                rects,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\"/>",
                (step - gap).max(0.5),
                (y2 - y).max(0.5)
            )
            .expect("a String takes everything");
            write!(title, ", {n} {name}").expect("a String takes everything");
            below += n;
        }
        writeln!(
            out,
            "<title>{}</title>{rects}<rect class=\"hit\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{step:.2}\" height=\"{:.1}\"/></g>",
            escape(&title),
            WIDE.top,
            WIDE.inner().1
        )
        .expect("a String takes everything");
    }
    WIDE.times(out, page, all.begin, all.begin.saturating_add(span));
    let key: Vec<_> = CLASSES
        .into_iter()
        .enumerate()
        .filter(|(i, _)| columns.iter().any(|sums| sums[*i] > 0))
        .map(|(_, c)| c)
        .collect();
    end(out, &key);
}

/// Both queues of the busiest listeners, over time.
pub fn queues(out: &mut String, page: &Page) {
    let listeners = page.report.listeners();
    let mut drawn: Vec<_> = listeners.iter().filter(|(_, l)| !l.depths.is_empty()).collect();
    // One whose queue was full is worth more than one that is merely busy.
    drawn.sort_by_key(|(_, l)| std::cmp::Reverse(l.accept_queue.was_full() || l.syn_queue.was_full()));
    out.push_str("<div class=\"pair\">\n");
    for (number, (at, l)) in drawn.into_iter().take(LISTENERS).enumerate() {
        depths(out, page, number, &place(at), &l.depths);
    }
    out.push_str("</div>\n");
}

fn depths(out: &mut String, page: &Page, number: usize, name: &str, series: &Series<Depths>) {
    let all = series.columns(COLUMNS);
    let most = |of: fn(&Depths) -> Option<u32>| all.slots.iter().filter_map(of).max().unwrap_or(0);
    let (syn, accept, limit) = (most(|d| d.syn), most(|d| d.accept), most(|d| d.limit));
    let peak = syn.max(accept);
    // A limit far above everything would press the queues flat: then it is told, not drawn.
    let shown = u64::from(limit) <= 4 * u64::from(peak.max(1));
    let top = u64::from(if shown { peak.max(limit) } else { peak }).max(1);
    let words = format!("most in the accept queue {accept}, in the SYN queue {syn}, limit {limit}");
    HALF.begin(
        out,
        &format!("queue-{number}"),
        &format!("Queues of {name}: {words}"),
        &format!("Depths of both queues of {name} over time: {words}."),
    );
    HALF.scale(out, top);
    let step = HALF.inner().0 / all.slots.len() as f64;
    let line = |of: fn(&Depths) -> Option<u32>| {
        let mut path = String::new();
        let mut last = 0;
        for (i, slot) in all.slots.iter().enumerate() {
            // Between two readings nothing is known: what stood before goes on.
            last = of(slot).unwrap_or(last);
            let (x, y) = (HALF.left + i as f64 * step, HALF.y(f64::from(last) / top as f64));
            let begin = if i == 0 { format!("M{x:.1} {y:.1}") } else { format!("V{y:.1}") };
            write!(path, "{begin}H{:.1}", x + step).expect("a String takes everything");
        }
        path
    };
    let accept_line = line(|d| d.accept);
    let (x0, x1, y0) = (HALF.left, HALF.width - HALF.right, HALF.y(0.0));
    writeln!(
        out,
        "<path class=\"depth-accept\" d=\"{accept_line}V{y0:.1}H{x0:.1}Z\"/><path class=\"depth-syn\" d=\"{}\"/>",
        line(|d| d.syn)
    )
    .expect("a String takes everything");
    if shown {
        let y = HALF.y(f64::from(limit) / top as f64);
        writeln!(out, "<path class=\"limit\" d=\"M{x0:.1} {y:.1}H{x1:.1}\"/>").expect("a String takes everything");
    }
    let span = all.width.saturating_mul(all.slots.len() as u64);
    for (i, slot) in all.slots.iter().enumerate().filter(|(_, slot)| slot.accept.is_some() || slot.syn.is_some()) {
        let n = |n: Option<u32>| n.map_or_else(|| "not known".to_owned(), |n| n.to_string());
        let title = moment(page, all.begin + i as u64 * all.width, span);
        writeln!(
            out,
            "<g><title>{}: accept queue {}, SYN queue {}</title><rect class=\"hit\" x=\"{:.1}\" y=\"{:.1}\" width=\"{step:.2}\" \
             height=\"{:.1}\"/></g>",
            escape(&title),
            n(slot.accept),
            n(slot.syn),
            HALF.left + i as f64 * step,
            HALF.top,
            HALF.inner().1
        )
        .expect("a String takes everything");
    }
    HALF.times(out, page, all.begin, all.begin.saturating_add(span));
    let key = [("fin", "accept queue"), ("refused", "SYN queue"), ("rst", "limit")];
    end(out, &key[..if shown { 3 } else { 2 }]);
}

/// How long things took: as many as were seen, on a logarithmic axis.
pub fn times(out: &mut String, page: &Page) {
    let r = page.report;
    out.push_str("<div class=\"pair\">\n");
    for (id, name, spread) in [
        ("handshakes", "Handshakes", &r.all.group.handshake),
        ("round-trips", "Round-trip times", &r.all.group.rtt),
        ("accept-waits", "Accept waits", &r.accept_wait),
        ("lifetimes", "Lifetimes", &r.all.group.lifetime),
    ] {
        if spread.count() > 0 {
            histogram(out, id, name, spread);
        }
    }
    out.push_str("</div>\n");
}

fn histogram(out: &mut String, id: &str, name: &str, spread: &Spread) {
    // Below a microsecond nothing is told apart.
    let place = |us: u64| (us.max(1) as f64).log10();
    let first = spread.iter().map(|(us, _)| place(us)).fold(f64::MAX, f64::min).floor();
    let last = (spread.iter().map(|(us, _)| place(us)).fold(f64::MIN, f64::max) + 1e-9).ceil().max(first + 1.0);
    let columns = ((last - first) * PER_DECADE).round() as usize;
    let mut counts = vec![0u64; columns];
    for (us, n) in spread.iter() {
        counts[(((place(us) - first) * PER_DECADE) as usize).min(columns - 1)] += u64::from(n);
    }
    let top = counts.iter().copied().max().unwrap_or(1).max(1);
    let shown = |us: f64| {
        let mut text = String::new();
        duration(&mut text, (us * 1000.0).round() as u64);
        text
    };
    let quantile = |percent| spread.quantile(percent).map_or_else(String::new, |us| shown(us as f64));
    let words = format!("half within {}, 99 % within {}", quantile(50), quantile(99));
    HALF.begin(
        out,
        id,
        &format!("{name}: {words}"),
        &format!("A histogram of {} durations on a logarithmic axis: {words}.", spread.count()),
    );
    HALF.scale(out, top);
    let step = HALF.inner().0 / columns as f64;
    let edge = |i: usize| 10f64.powf(first + i as f64 / PER_DECADE);
    for (i, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        let (x, y) = (HALF.left + i as f64 * step, HALF.y(n as f64 / top as f64));
        writeln!(
            out,
            "<g><title>{} to {}: {n}</title><rect class=\"fin\" x=\"{:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\"/></g>",
            shown(edge(i)),
            shown(edge(i + 1)),
            x + 0.5,
            (step - 1.0).max(0.5),
            (HALF.y(0.0) - y).max(0.5)
        )
        .expect("a String takes everything");
    }
    let decades = (last - first) as usize;
    for i in 0..=decades {
        let anchor = if i == 0 {
            "start"
        } else if i == decades {
            "end"
        } else {
            "middle"
        };
        HALF.label(out, i as f64 / decades as f64, anchor, &shown(10f64.powf(first + i as f64)));
    }
    end(out, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_round_numbers() {
        for (top, want) in [
            (1, vec![0, 1]),
            (4, vec![0, 1, 2, 3, 4]),
            (7, vec![0, 2, 4, 6]),
            (23, vec![0, 5, 10, 15, 20]),
            (1234, vec![0, 500, 1000]),
            (90_000, vec![0, 20_000, 40_000, 60_000, 80_000]),
        ] {
            assert_eq!(ticks(top), want, "{top}");
        }
        for top in 1..3000 {
            let n = ticks(top).len();
            assert!((2..=5).contains(&n), "{top}: {n}");
        }
    }

    #[test]
    fn numbers_beside_an_axis_are_short() {
        assert_eq!([999, 1000, 1500, 12_000, 5_000_000].map(short), ["999", "1k", "1.5k", "12k", "5M"]);
    }
}
