//! Between the tracker and a sink: lets through what is wanted, holds back what may yet turn out to be, counts.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    detect::{Detect, seen::Seen},
    filter::{Filter, Verdict},
    group::Groups,
    model::{
        Connection, Final, Found, Listening, Mark, Mini, NetnsCounters, Observer, Orphans, Probe, Remnant, Request,
        Role, Stack, State, Transition, Unread,
    },
    sink::Sink,
};

use super::ladders::Ladders;

/// What a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// `trace`: transitions, and the sockets found at the start.
    Transitions,
    /// `conns`: connections that are over.
    Connections,
    /// `queues`: listeners, at the end of each interval.
    Queues,
    /// `watch`: findings.
    Findings,
    /// `report`: everything but single transitions.
    Report,
}

impl Records {
    /// Are connections told when they are over?
    const fn have_connections(self) -> bool {
        matches!(self, Self::Connections | Self::Report)
    }

    /// Are listeners told at the end of each interval?
    const fn have_queues(self) -> bool {
        matches!(self, Self::Queues | Self::Report)
    }
}

/// Transitions held back in all. A host that accepts 10,000 connections a second and leaves them 6 s in the accept queue
/// fits.
const HELD: usize = 1 << 16;

/// What waits until more is known of its connection.
#[derive(Clone, Debug)]
enum Held {
    Transition(Transition),
    OpenedAt(u64, Arc<Stack>),
}

/// See the module.
#[derive(Debug)]
pub struct Gate<S> {
    /// Everything wanted goes there.
    pub sink: S,
    records: Records,
    /// The command line's, if it has one, and the recording's.
    filters: Vec<Filter>,
    /// How many of them are the command line's.
    own: usize,
    /// What the kernel programs filter by.
    kernel: Filter,
    /// Cookies of connections that the kernel programs will not tell of any more, since the last look.
    pub stopped: Vec<u64>,
    /// Keep a note of every impossible transition.
    pub verbose: bool,
    /// `--requests`: everything that happens to a half-open request, not only ends that are no connections.
    pub requests: bool,
    /// `--by`: connections are counted here in place of printed, and nothing else is printed.
    pub groups: Option<Groups>,
    /// `--ladder`: connections are drawn when they are over; `report` tells of them, too.
    pub ladders: Option<Box<Ladders>>,
    /// Looks for trouble.
    pub detect: Option<Box<Detect>>,
    /// What to tell under `-v`.
    pub notes: Vec<String>,
    limit: Option<u64>,
    held: HashMap<u64, Vec<(Connection, Held)>>,
    /// Timelines in `held`, in the order in which they came; some may be gone already.
    order: VecDeque<u64>,
    held_now: usize,
    /// What was let through and what was not.
    pub counts: Counts,
}

/// Numbers for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transitions that passed the filters.
    pub transitions: u64,
    /// Connections that passed the filters, those open at the end included.
    pub connections: u64,
    /// Of these, connections with lost records.
    pub gaps: u64,
    /// Impossible transitions that passed the filters.
    pub impossible: u64,
    /// Sockets found at the start that passed the filters.
    pub found: u64,
    /// Transitions given up because more than could be held waited for their owner.
    pub held_dropped: u64,
    /// Intervals of listeners' queues.
    pub intervals: u64,
    /// Records printed, as `--count` counts them.
    pub printed: u64,
}

impl<S: Sink> Gate<S> {
    /// `limit` is `--count`.
    pub fn new(sink: S, records: Records, filter: Filter, limit: Option<u64>) -> Self {
        let filters = if filter.is_empty() { vec![] } else { vec![filter] };
        Self {
            sink,
            records,
            own: filters.len(),
            filters,
            kernel: Filter::default(),
            stopped: Vec::new(),
            verbose: false,
            requests: false,
            groups: None,
            ladders: None,
            detect: None,
            notes: Vec::new(),
            limit,
            held: HashMap::new(),
            order: VecDeque::new(),
            held_now: 0,
            counts: Counts::default(),
        }
    }

    /// Demand that the filter that the frames were made with is met, too, in place of the last one.
    pub fn set_recorded(&mut self, filter: Filter) {
        self.filters.truncate(self.own);
        self.kernel = filter.clone();
        // How a connection ends says nothing about what else is printed.
        let filter = if self.records.have_connections() { filter } else { filter.without_outcome() };
        if !filter.is_empty() && !self.filters.contains(&filter) {
            self.filters.push(filter);
        }
    }

    /// A process was forked: it may be one of those asked for now.
    pub fn forked(&mut self, parent: u32, child: u32) {
        for filter in self.filters.iter_mut().chain([&mut self.kernel]) {
            filter.forked(parent, child);
        }
    }

    /// The options of all filters, those of the recording first.
    pub fn options(&self) -> Vec<(String, String)> {
        self.filters.iter().rev().flat_map(Filter::to_pairs).collect()
    }

    /// Have as many records been printed as were asked for?
    pub fn is_done(&self) -> bool {
        self.limit.is_some_and(|limit| self.counts.printed >= limit)
    }

    /// Requests and remnants are not printed.
    fn tells_nothing_smaller(&self) -> bool {
        matches!(self.records, Records::Queues | Records::Findings) || self.groups.is_some() || self.is_done()
    }

    /// Connections by what they have in common, as they stand after `elapsed_us`; at the end the `last` time.
    pub fn tell_groups(&mut self, ts: u64, elapsed_us: u64, last: bool) {
        if let Some(groups) = &self.groups {
            self.sink.groups(ts, elapsed_us, groups, last);
        }
    }

    /// Look for trouble: time passed, or an interval is over.
    pub fn check(&mut self, now: u64) {
        let Some(detect) = &mut self.detect else { return };
        detect.check(now);
        while let Some(finding) = detect.findings.pop_front() {
            if self.records == Records::Findings {
                if self.limit.is_some_and(|limit| self.counts.printed >= limit) {
                    return;
                }
                self.counts.printed += 1;
            }
            self.sink.finding(&finding);
        }
    }

    /// Draw what is ready to be drawn: all of it, if nothing will come any more.
    pub fn draw(&mut self, now: u64, last: bool) {
        let Some(ladders) = &mut self.ladders else { return };
        ladders.advance(now);
        if last {
            ladders.finish();
        }
        self.draw_ready();
    }

    fn draw_ready(&mut self) {
        let Some(ladders) = &mut self.ladders else { return };
        while let Some(ladder) = ladders.ready.pop_front() {
            if self.limit.is_some_and(|limit| self.counts.printed >= limit) {
                return;
            }
            self.counts.printed += 1;
            self.sink.ladder(&ladder);
        }
    }

    fn verdict(&self, f: impl Fn(&Filter) -> Verdict) -> Verdict {
        self.filters.iter().fold(Verdict::Wanted, |verdict, filter| verdict.and(f(filter)))
    }

    /// Is what is known of a network namespace wanted?
    fn of_netns(&self, netns: u32) -> Verdict {
        let wanted = |f: &Filter| f.netns.is_empty() || f.netns.contains(&netns);
        self.verdict(|f| if wanted(f) { Verdict::Wanted } else { Verdict::Unwanted })
    }

    /// What rules look at, where something is told to it that has this verdict. What is not known yet is not.
    fn judged(&mut self, verdict: Verdict) -> Option<&mut Seen> {
        self.detect.as_mut().map(|detect| &mut detect.seen).filter(|_| verdict == Verdict::Wanted)
    }

    /// The same of what nobody else asks for a verdict of.
    fn seen(&mut self, f: impl Fn(&Filter) -> Verdict) -> Option<&mut Seen> {
        let verdict = self.detect.as_ref().map(|_| self.verdict(f))?;
        self.judged(verdict)
    }

    /// An unwanted connection of which nothing more will come is to be forgotten, or it would stay for ever. Nor is its other end to
    /// wait for it.
    fn unwanted(&mut self, c: &Connection) {
        if let Some(ladders) = &mut self.ladders {
            ladders.unwanted(c.id);
            self.draw_ready();
        }
        if c.cookie != 0 && self.kernel.stopped(c) {
            self.stopped.push(c.cookie);
        }
    }

    fn print_transition(&mut self, c: &Connection, t: &Transition) {
        if !self.filters.iter().all(|f| f.shows(t.from, t.to)) || self.is_done() {
            return;
        }
        self.counts.transitions += 1;
        if self.records == Records::Transitions {
            self.counts.printed += 1;
            self.sink.transition(c, t);
        }
    }

    fn print_stack(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {
        let shown = self.filters.iter().all(|f| f.shows(c.state, c.state));
        if shown && self.records == Records::Transitions && !self.is_done() {
            self.sink.opened_at(c, ts, stack);
        }
    }

    fn hold(&mut self, c: &Connection, what: Held) {
        // A transition is not printed by `conns`, and its connection is judged at its end.
        if self.records != Records::Transitions {
            return;
        }
        while self.held_now >= HELD
            && let Some(oldest) = self.order.pop_front()
        {
            let dropped = self.take(oldest);
            let transitions = dropped.iter().filter(|(_, what)| matches!(what, Held::Transition(_)));
            self.counts.held_dropped += transitions.count() as u64;
        }
        let of_connection = self.held.entry(c.id).or_default();
        if of_connection.is_empty() {
            self.order.push_back(c.id);
        }
        of_connection.push((c.clone(), what));
        self.held_now += 1;
    }

    fn take(&mut self, id: u64) -> Vec<(Connection, Held)> {
        let taken = self.held.remove(&id).unwrap_or_default();
        self.held_now -= taken.len();
        // Ids of timelines that are gone would pile up.
        if self.order.len() > 2 * self.held.len() + 64 {
            self.order.retain(|id| self.held.contains_key(id));
        }
        taken
    }

    /// Now that more is known of `c`: print or drop what was held back of it.
    fn settle(&mut self, c: &Connection, verdict: Verdict) {
        if self.held.is_empty() || verdict == Verdict::Unknown {
            return;
        }
        for (mut then, what) in self.take(c.id) {
            if verdict == Verdict::Wanted {
                then.owner.clone_from(&c.owner);
                then.fd = c.fd;
                then.inode = c.inode;
                then.role = c.role;
                if then.tuple.lport == 0 {
                    then.tuple.lport = c.tuple.lport;
                }
                match what {
                    Held::Transition(t) => self.print_transition(&then, &t),
                    Held::OpenedAt(ts, stack) => self.print_stack(&then, ts, &stack),
                }
            }
        }
    }
}

impl<S: Sink> Observer for Gate<S> {
    #[inline]
    fn transition(&mut self, c: &Connection, t: &Transition) {
        if let Some(ladders) = &mut self.ladders {
            ladders.transition(c, t);
        }
        let verdict = self.verdict(|f| f.connection(c));
        if let Some(seen) = self.judged(verdict) {
            seen.transition(c, t);
        }
        if self.filters.is_empty() {
            return self.print_transition(c, t);
        }
        self.settle(c, verdict);
        match verdict {
            Verdict::Wanted => self.print_transition(c, t),
            Verdict::Unwanted => self.unwanted(c),
            Verdict::Unknown => self.hold(c, Held::Transition(*t)),
        }
    }

    fn mark(&mut self, c: &Connection, m: &Mark) {
        if let Some(ladders) = &mut self.ladders {
            ladders.mark(c, m);
        }
        if let Some(seen) = self.seen(|f| f.connection(c)) {
            seen.mark(c, m);
        }
    }

    fn owner(&mut self, c: &Connection) {
        let verdict = self.verdict(|f| f.connection(c));
        if let Some(seen) = self.judged(verdict) {
            seen.owner(c);
        }
        if self.filters.is_empty() {
            return;
        }
        self.settle(c, verdict);
        if verdict == Verdict::Unwanted {
            self.unwanted(c);
        }
    }

    fn opened_at(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {
        let verdict = self.verdict(|f| f.connection(c));
        if let Some(seen) = self.judged(verdict) {
            seen.opened_at(c, ts, stack);
        }
        match verdict {
            Verdict::Wanted => self.print_stack(c, ts, stack),
            Verdict::Unwanted => {}
            Verdict::Unknown => self.hold(c, Held::OpenedAt(ts, Arc::clone(stack))),
        }
    }

    #[inline]
    fn connection(&mut self, c: &Connection, f: &Final) {
        let mut verdict = self.verdict(|filter| filter.connection(c));
        if verdict == Verdict::Unknown {
            // It is over: what is still not known is not what was asked for.
            verdict = Verdict::Unwanted;
        }
        self.settle(c, verdict);
        if let Some(seen) = self.judged(verdict) {
            seen.connection(c, f);
        }
        // A listener is no connection, but may be asked for.
        let listener =
            c.role == Some(Role::Listener) && !self.filters.iter().any(|f| f.roles.contains(&Role::Listener));
        let shown = self.filters.iter().all(|f| f.shows_any(c.states.iter().map(|(state, _)| state)));
        let outcome = self.filters.iter().all(|filter| filter.outcome(c, f));
        if verdict != Verdict::Wanted || listener || !shown || !outcome || self.is_done() {
            if let Some(ladders) = &mut self.ladders {
                ladders.forget(c.id);
                self.draw_ready();
            }
            return;
        }
        self.counts.connections += 1;
        self.counts.gaps += u64::from(c.gaps != 0);
        if let Some(ladders) = &mut self.ladders {
            ladders.over(c, f);
            self.draw(f.ts, false);
        }
        if self.records == Records::Report || self.ladders.is_none() && self.records == Records::Connections {
            self.counts.printed += 1;
            match &mut self.groups {
                Some(groups) => groups.add(c, f),
                None => self.sink.connection(c, f),
            }
        }
    }

    fn socket(&mut self, c: &Connection, f: &Found) {
        // What was held back of it belongs to who had it before it was given to a process that is asked for.
        self.take(c.id);
        if let Some(ladders) = &mut self.ladders {
            ladders.forget(c.id);
            self.draw_ready();
        }
        let shown = self.filters.iter().all(|filter| filter.shows(c.state, c.state));
        let verdict = self.verdict(|filter| filter.connection(c));
        if verdict == Verdict::Unwanted {
            self.unwanted(c);
        }
        if let Some(seen) = self.judged(verdict) {
            seen.socket(c, f);
        }
        if shown && verdict == Verdict::Wanted && !self.is_done() {
            self.counts.found += 1;
            if self.records == Records::Transitions {
                self.sink.socket(c, f);
            }
        }
    }

    fn mini_socket(&mut self, m: &Mini) {
        let role = (m.state == State::NewSynRecv).then_some(Role::Server);
        let shown = self.filters.iter().all(|filter| filter.shows(m.state, m.state));
        let verdict = self.verdict(|filter| filter.mini(&m.tuple, role));
        if let Some(seen) = self.judged(verdict) {
            seen.mini_socket(m);
        }
        if shown && verdict == Verdict::Wanted && !self.is_done() {
            self.counts.found += 1;
            if self.records == Records::Transitions {
                self.sink.mini_socket(m);
            }
        }
    }

    fn probe(&mut self, p: &Probe) {
        if let Some(seen) = self.seen(|filter| filter.mini(&p.tuple, None)) {
            seen.probe(p);
        }
    }

    fn request(&mut self, r: &Request) {
        if let Some(seen) = self.seen(|f| f.remnant(&r.tuple, Some(Role::Server), r.owner.as_deref())) {
            seen.request(r);
        }
        if self.tells_nothing_smaller() || !(self.requests || r.failed()) {
            return;
        }
        let wanted = self.verdict(|f| f.remnant(&r.tuple, Some(Role::Server), r.owner.as_deref())) == Verdict::Wanted;
        let shown = self.filters.iter().all(|f| f.shows(State::NewSynRecv, State::NewSynRecv) && f.request(r));
        if wanted && shown {
            self.sink.request(r);
        }
    }

    fn time_wait(&mut self, r: &Remnant) {
        if let Some(seen) = self.seen(|f| f.remnant(&r.tuple, None, r.owner.as_deref())) {
            seen.time_wait(r);
        }
        // How its connection ended was forgotten with it.
        if self.tells_nothing_smaller() || self.filters.iter().any(Filter::asks_for_outcome) {
            return;
        }
        // Which side it was on was forgotten with the connection.
        let wanted = self.verdict(|f| f.remnant(&r.tuple, None, r.owner.as_deref())) == Verdict::Wanted;
        if wanted && self.filters.iter().all(|f| f.shows(State::TimeWait, State::Close)) {
            self.sink.time_wait(r);
        }
    }

    fn netns(&mut self, n: &NetnsCounters) {
        let verdict = self.of_netns(n.netns);
        if let Some(seen) = self.judged(verdict) {
            seen.netns(n);
        }
        if self.records.have_queues() && verdict == Verdict::Wanted && !self.is_done() {
            self.sink.netns(n);
        }
    }

    fn unread(&mut self, c: &Connection, u: &Unread) {
        if let Some(seen) = self.seen(|f| f.connection(c)) {
            seen.unread(c, u);
        }
    }

    fn orphans(&mut self, o: &Orphans) {
        if let Some(seen) = self.judged(self.of_netns(o.netns)) {
            seen.orphans(o);
        }
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        let verdict = self.verdict(|f| f.connection(c));
        if let Some(seen) = self.judged(verdict) {
            seen.listener(c, l);
        }
        if self.records.have_queues() && verdict == Verdict::Wanted && !self.is_done() {
            self.sink.listener(c, l);
        }
    }

    fn interval(&mut self, ts: u64, interval_us: u64) {
        self.check(ts);
        if self.records.have_queues() && !self.is_done() {
            self.counts.printed += 1;
            self.counts.intervals += 1;
            self.sink.interval(ts, interval_us);
        }
    }

    fn impossible(&mut self, c: &Connection, t: &Transition) {
        if self.verdict(|filter| filter.connection(c)) != Verdict::Unwanted {
            self.counts.impossible += 1;
            self.sink.impossible(c, t);
            if self.verbose {
                self.notes.push(format!("connection {}: {}→{} is no transition of TCP", c.id, t.from, t.to));
            }
        }
    }
}

#[cfg(test)]
mod tests;
