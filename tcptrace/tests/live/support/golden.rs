//! The ladders of a scenario as golden text, `tests/ladders/SCENARIO.txt`: times, raw numbers, ports and processes masked, numbers from the
//! initial ones on. Where one of several things may rightly happen, the file has them all, `or` between them.
//! `TCPTRACE_BLESS=1` adds what is not there.

use std::{
    cell::Cell,
    fs::{self, File},
    path::Path,
};

use jiff::tz::TimeZone;
use tcptrace::{
    decode::{Event, decode},
    filter::Filter,
    frame::Frames,
    pipeline::{Gate, Records},
    recording::{Item, Reader as Recording},
    sink::{
        Output, Sink as _,
        output::Reader,
        text::{Headings, Look, Text, TimeMode},
    },
    tracker::Tracker,
};

use super::{process::me, slowness};

/// Wide enough for all numbers.
const WIDTH: usize = 120;
/// Of an arrow here.
const ARROW: usize = 40;
const OR: &str = "\nor\n\n";

thread_local! {
    /// Runs that this thread has compared: a test may have more than one.
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

/// Compare a recording's ladders with the golden ones of the running test, if it is one of how connections open and close. On the host
/// alone, and where no hook tells of half-open requests: what it adds is checked wherever there is one.
pub fn check(recording: &Path, half_open: bool) {
    let thread = std::thread::current();
    let scenario = thread.name().filter(|name| name.starts_with("open::") || name.starts_with("close::"));
    let Some(scenario) = scenario.filter(|_| slowness() == 1 && !half_open) else { return };
    let run = RUNS.replace(RUNS.get() + 1);
    let run = if run == 0 { String::new() } else { format!("_{}", run + 1) };
    let name = format!("{}{run}.txt", scenario.replace("::", "_").replace("_quick_", "_"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ladders").join(name);
    let drawn = drawn(recording);
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if golden.split(OR).any(|one| one == drawn) {
        return;
    }
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        let text = if golden.is_empty() { drawn } else { format!("{golden}{OR}{drawn}") };
        return fs::write(&path, text).expect("the repository can be written");
    }
    panic!("{}\n— has\n{golden}\n— but this is\n{drawn}", path.display());
}

/// What `conns --ladder --from` prints in so many columns, masked.
fn drawn(recording: &Path) -> String {
    let look = Look {
        width: Some(WIDTH),
        follow: false,
        color: false,
        time: TimeMode::Utc,
        zone: TimeZone::UTC,
        header: false,
        ascii: false,
    };
    let text = Text::new(Output::new(Vec::new(), Reader::Waiting), look, Headings::Connections);
    let mut gate = Gate::new(text, Records::Connections, Filter::default(), None);
    gate.ladders = Some(Box::default());
    let mut tracker = Tracker::new();
    let mut reader = Recording::new(File::open(recording).expect("a recording")).expect("a recording");
    let mut frames = Frames::default();
    loop {
        match reader.next(&mut frames).expect("a recording") {
            Item::Block(_) => {}
            Item::Gap(gap) => panic!("{gap:?}"),
            Item::End(_) => break,
        }
        for record in frames.iter() {
            let event = decode(record).expect("a record");
            match event {
                Event::Clock(clock) => gate.sink.clock(clock.offset_ns),
                Event::Tick(ts) => gate.draw(ts, false),
                Event::End(ts, _) => {
                    tracker.finish(ts, &mut gate);
                    gate.draw(ts, true);
                    continue;
                }
                _ => {}
            }
            tracker.event(&event, &mut gate);
        }
        frames.clear();
    }
    gate.sink.flush(true).expect("a Vec takes everything");
    let text = String::from_utf8(gate.sink.into_inner()).expect("text is UTF-8");
    let mut ladders: Vec<(String, u32)> = Vec::new();
    for ladder in text.split("\n\n").filter(|ladder| !ladder.is_empty()).map(masked) {
        match ladders.last_mut() {
            Some((last, times)) if *last == ladder => *times += 1,
            _ => ladders.push((ladder, 1)),
        }
    }
    let times = |(ladder, n): (String, u32)| if n == 1 { ladder } else { format!("{n} times:\n{ladder}") };
    ladders.into_iter().map(times).collect::<Vec<_>>().join("\n")
}

fn masked(ladder: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut both = false;
    for (i, line) in ladder.lines().enumerate() {
        let words = || line.split_whitespace().map(str::to_owned);
        let line = match i {
            0 => {
                both = line.contains(" → ");
                words().skip(1).map(|word| process(&word)).collect::<Vec<_>>().join(" ")
            }
            1 => words().map(|word| end(&word)).collect::<Vec<_>>().join("  "),
            2 => {
                let how = line.split(" after ").next().expect("one");
                how.split_whitespace().map(process).collect::<Vec<_>>().join(" ")
            }
            3 if line.trim_start().starts_with("MSS") => settled(line),
            _ => step(line, both),
        };
        // How often depends on how slow the machine is.
        let same = line.contains(" again") && lines.last() == Some(&line);
        if !same {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// Which options; their values are the kernel's business.
fn settled(line: &str) -> String {
    let mut text = String::new();
    for c in line.trim().chars() {
        match (c.is_ascii_digit(), text.ends_with('n') && !text.ends_with("in")) {
            (true, true) => {}
            (true, false) => text.push('n'),
            (false, _) => text.push(c),
        }
    }
    text
}

/// `test`, or the name of another process.
fn process(word: &str) -> String {
    let Some((name, rest)) = word.split_once('[') else { return word.to_owned() };
    let mark = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ']');
    let before = if name.starts_with('*') { "*" } else { "" };
    if name.trim_start_matches('*') == me().1 { format!("{before}test{mark}") } else { format!("{name}[pid]{mark}") }
}

/// An address, the port masked where it is one of those that the kernel chooses.
fn end(word: &str) -> String {
    match word.rsplit_once(':') {
        Some((addr, port)) if port.parse::<u16>().is_ok_and(|port| port >= 32768) => format!("{addr}:port"),
        _ => word.to_owned(),
    }
}

fn step(line: &str, both: bool) -> String {
    let chars: Vec<char> = line.chars().collect();
    let cut = |from: usize, to: usize| -> String {
        chars.iter().take(to.min(chars.len())).skip(from).collect::<String>().trim().to_owned()
    };
    let right = if both { 101 } else { 107 };
    let [left_time, left, middle, right, right_time] =
        [cut(0, 6), cut(7, 19), cut(20, right), cut(right, 113.max(right + 13)), cut(114, WIDTH)];
    let right_time = if both { right_time } else { String::new() };
    let time = |text: &str| if text.is_empty() { "" } else { "+t" };
    let text = format!("{:2} {left:<12} {} {right:<12} {}", time(&left_time), arrow(&middle), time(&right_time));
    text.trim_end().to_owned()
}

/// As an arrow is drawn, in columns of its own.
fn arrow(middle: &str) -> String {
    let line = if middle.contains('┄') { '┄' } else { '─' };
    if !middle.contains(['┄', '─']) {
        return format!("{middle:^ARROW$}");
    }
    let mut words: Vec<String> = Vec::new();
    let label = middle.trim_matches(|c| matches!(c, '┄' | '─' | '→' | '←' | ' '));
    for word in label.split_whitespace() {
        let relative = word.strip_prefix('(').and_then(|word| word.strip_suffix(')'));
        match (word.split_once('='), relative, words.last_mut()) {
            (Some((name, _)), ..) => words.push(format!("{name}=n")),
            (None, Some(number), Some(last)) => *last = last.replace("=n", &format!("={number}")),
            _ => words.push(word.to_owned()),
        }
    }
    let label = format!(" {} ", words.join(" "));
    let rest = (ARROW - 1).saturating_sub(label.chars().count());
    let fill = |n: usize| String::from(line).repeat(n);
    if middle.starts_with('←') {
        format!("←{}{label}{}", fill(rest / 2), fill(rest - rest / 2))
    } else {
        format!("{}{label}{}→", fill(rest / 2), fill(rest - rest / 2))
    }
}
