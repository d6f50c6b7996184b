//! Signals: what we want to know, each with its hook candidates, best first. The first whose programs all load and attach wins; the
//! others leave nothing behind, and why they were refused is kept for `doctor`.

use std::{collections::HashMap, io, os::fd::OwnedFd};

use aya::{
    Btf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, TracePoint, links::FdLink},
};

use super::{
    Error,
    load::Settings,
    objects::{Globals, Object, Objects, Opener},
    prototypes::Prototypes,
};

mod table;
mod why;

pub use table::PROGRAMS;
use table::{CONNECTIONS, Need, QUEUES, Wanted};

/// A signal and the hooks that serve it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signal {
    /// What it tells.
    pub name: &'static str,
    /// Hooks in use, for example `tp_btf:inet_sock_set_state` or `fentry:tcp_time_wait+inet_twsk_kill`; None: no candidate works here.
    pub hook: Option<String>,
    /// Kind of those hooks; None: it is known from counters and samples alone, or not at all.
    pub tier: Option<Tier>,
    /// Nothing that it tells escapes the hooks.
    pub exact: bool,
    /// Better candidates, and why each was refused.
    pub refused: Vec<(String, String)>,
    /// Kernel programs behind the hooks.
    pub programs: Vec<Attached>,
    /// What the hooks cost that other work passes, too; where it was measured.
    pub costs: Vec<Cost>,
}

/// An attached program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it is.
    pub object: Object,
    /// Its name there.
    pub program: &'static str,
    /// Other work than that of TCP listeners passes its hook.
    pub hot: bool,
    /// The program behind it, if there is one.
    pub second: Option<Second>,
}

/// A second program on the same hook, which takes what the first must skip because it would interrupt itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// Its name in the same object.
    pub program: &'static str,
    /// Where it counts what it took: [`tcptrace_common::settings::second`].
    pub number: usize,
}

/// What a hook costs that other work passes, too.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Kernel program.
    pub program: &'static str,
    /// How often it ran.
    pub hits_per_second: f64,
    /// Time of a run; None: it did not run.
    pub ns_per_hit: Option<f64>,
}

/// Kinds of hooks, best first. A signal takes the best candidate that works; a tier other than the first passes better ones over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// fentry and fexit: the least overhead, typed arguments.
    #[default]
    Fentry,
    /// kprobe and kretprobe.
    Kprobe,
    /// Typed tracepoints alone.
    Tracepoint,
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        })
    }
}

/// Names under which the kernel's type information has what typed programs attach to, where `tier` is the best.
pub(super) fn attach_points(tier: Tier) -> impl Iterator<Item = String> {
    let candidates = CONNECTIONS.iter().chain(QUEUES).flat_map(|w| w.candidates).filter(move |c| c.tier >= tier);
    candidates.flat_map(|c| c.parts).filter_map(|part| match part.hook {
        Hook::Tracepoint(name) => Some(format!("btf_trace_{name}")),
        Hook::Fentry(name) | Hook::Fexit(name) => Some(name.to_owned()),
        Hook::Exits(_) | Hook::Kprobe(_) | Hook::Kretprobe(_) => None,
    })
}

/// A way to learn a signal: programs that belong together.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    tier: Tier,
    object: Object,
    needs: &'static [Need],
    parts: &'static [Part],
}

/// A program and its hook.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Name of the program in the object.
    program: &'static str,
    hook: Hook,
    /// See [`Attached::hot`].
    hot: bool,
    second: Option<Second>,
}

#[derive(Clone, Copy, Debug)]
enum Hook {
    Tracepoint(&'static str),
    /// The exits of system calls, by the names of their events.
    Exits(&'static [&'static str]),
    Fentry(&'static str),
    Fexit(&'static str),
    Kprobe(&'static str),
    Kretprobe(&'static str),
}

impl Hook {
    fn targets(&self) -> &[&'static str] {
        match self {
            Self::Exits(names) => names,
            Self::Tracepoint(name)
            | Self::Fentry(name)
            | Self::Fexit(name)
            | Self::Kprobe(name)
            | Self::Kretprobe(name) => std::slice::from_ref(name),
        }
    }

    /// As messages name it.
    fn target(&self) -> String {
        self.targets().join("+")
    }

    fn kind(self) -> Tier {
        match self {
            Self::Fentry(_) | Self::Fexit(_) => Tier::Fentry,
            Self::Kprobe(_) | Self::Kretprobe(_) => Tier::Kprobe,
            Self::Tracepoint(_) | Self::Exits(_) => Tier::Tracepoint,
        }
    }
}

/// `fentry:` and what is hooked, once each.
impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut targets: Vec<_> = self.parts.iter().flat_map(|p| p.hook.targets()).copied().collect();
        let mut seen = Vec::new();
        targets.retain(|target| !seen.contains(target) && (seen.push(*target), true).1);
        let kind = match self.tier {
            Tier::Fentry => "fentry",
            Tier::Kprobe => "kprobe",
            Tier::Tracepoint if self.parts.iter().all(|p| matches!(p.hook, Hook::Exits(_))) => "tp",
            Tier::Tracepoint => "tp_btf",
        };
        write!(f, "{kind}:{}", targets.join("+"))
    }
}

/// Attaches signals' programs, and remembers which.
pub(super) struct Attacher<'a, 'o> {
    pub objects: &'a mut Objects,
    pub opener: &'a mut Opener<'o>,
    pub globals: &'a mut Globals,
    pub btf: &'a Btf,
    pub prototypes: &'a Prototypes,
    pub settings: &'a Settings,
    attached: Vec<(Object, &'static str)>,
    /// What keeps each of them attached.
    links: Links,
    /// Kinds of hooks that the kernel refuses altogether, and why: it would say the same of one program after the other.
    refused: HashMap<Tier, String>,
}

impl<'a, 'o> Attacher<'a, 'o> {
    pub fn new(
        objects: &'a mut Objects,
        opener: &'a mut Opener<'o>,
        globals: &'a mut Globals,
        btf: &'a Btf,
        prototypes: &'a Prototypes,
        settings: &'a Settings,
    ) -> Self {
        let (links, refused) = (Links::default(), HashMap::new());
        Self { objects, opener, globals, btf, prototypes, settings, attached: Vec::new(), links, refused }
    }

    /// Dropping these detaches all programs.
    pub fn into_links(self) -> Links {
        self.links
    }

    /// Attach the best candidates of the signals about queues. Unless `all`, only those that a trace of connections can have for little:
    /// what tracepoints serve are hot hooks, which are tried last, and some signals serve nothing but an account of the queues. What only
    /// the kernel's counters tell needs no program.
    ///
    /// # Errors
    /// Objects that do not fit each other or this program.
    pub fn queues(&mut self, all: bool) -> Result<Vec<Signal>, Error> {
        let mut signals = Vec::with_capacity(QUEUES.len());
        for wanted in QUEUES {
            let mut signal = Signal { name: wanted.name, ..Signal::default() };
            if all || !wanted.audit {
                self.best(wanted, |tier| tier < Tier::Tracepoint, &mut signal)?;
            }
            signals.push(signal);
        }
        if all {
            self.tracepoints(&mut signals)?;
            for (signal, wanted) in signals.iter_mut().zip(QUEUES).filter(|(signal, _)| signal.hook.is_none()) {
                signal.hook = wanted.counters.map(|counters| format!("counters:{counters}"));
            }
        }
        for object in [Object::Fentry, Object::Kprobe, Object::Tracepoint] {
            if !self.attached.iter().any(|(o, _)| *o == object) {
                self.objects.close(object);
            }
        }
        Ok(signals)
    }

    /// The last tier, for the signals that no better one serves. One program serves several of them: what a better tier tells already
    /// is switched off in it.
    fn tracepoints(&mut self, signals: &mut [Signal]) -> Result<(), Error> {
        let open = |need: Need| {
            signals.iter().zip(QUEUES).any(|(signal, wanted)| {
                signal.hook.is_none()
                    && wanted.rides_on.is_none()
                    && wanted.candidates.iter().any(|c| c.needs.contains(&need))
            })
        };
        if !signals.iter().any(|s| s.hook.is_none()) {
            return Ok(());
        }
        let (half_open, time_wait) = (open(Need::ReqskTimer), open(Need::TwTimer));
        // Where the kernel does not say, what needs it is refused with that reason.
        let address = |need: Need| super::symbols::address(need.symbol()).ok().flatten().unwrap_or(0);
        self.globals.reqsk_timer = if half_open { address(Need::ReqskTimer) } else { 0 };
        self.globals.tw_timer = if time_wait { address(Need::TwTimer) } else { 0 };
        let mut served = Vec::new();
        for (signal, wanted) in signals.iter_mut().zip(QUEUES).filter(|(signal, _)| signal.hook.is_none()) {
            match wanted.rides_on {
                Some(carrier) if !served.contains(&carrier) => {
                    let tracepoints = wanted.candidates.iter().filter(|c| c.tier == Tier::Tracepoint);
                    let why = || format!("better hooks serve {carrier}, whose tracepoints would tell");
                    signal.refused.extend(tracepoints.map(|c| (c.to_string(), why())));
                }
                _ => self.best(wanted, |tier| tier == Tier::Tracepoint, signal)?,
            }
            if signal.hook.is_some() {
                served.push(signal.name);
            }
        }
        Ok(())
    }

    /// Attach the best candidates of what tracing connections needs, or, with `listeners_only`, of the part that is about listeners.
    ///
    /// # Errors
    /// A required signal without a working candidate.
    pub fn connections(&mut self, listeners_only: bool) -> Result<Vec<Signal>, Error> {
        let mut signals = Vec::with_capacity(CONNECTIONS.len());
        let (descendants, probes) = (self.settings.filter.follow, self.settings.probes);
        let wanted =
            |w: &&Wanted| (w.listeners || !listeners_only) && (descendants || !w.descendants) && (probes || !w.probes);
        for wanted in CONNECTIONS.iter().filter(wanted) {
            let mut signal = Signal { name: wanted.name, ..Signal::default() };
            self.best(wanted, |_| true, &mut signal)?;
            if signal.hook.is_none() && wanted.required {
                let reason = signal.refused.pop().map_or_else(String::new, |(_, reason)| reason);
                return Err(Error::Signal { signal: wanted.name, reason });
            }
            signals.push(signal);
        }
        Ok(signals)
    }

    /// Attach a part's second program, if it has one. Without it more runs are missed, and counted as such; `doctor` says why.
    fn second(&mut self, object: Object, part: Part, signal: &mut Signal) -> Result<Option<Second>, Error> {
        let Some(second) = part.second else { return Ok(None) };
        Ok(match self.part(object, Part { program: second.program, ..part })? {
            Ok(()) => {
                if self.settings.seconds_only {
                    self.links.0.retain(|held| held.program != (object, part.program));
                }
                Some(second)
            }
            Err(reason) => {
                signal.refused.push((format!("a second tp_btf:{}", part.hook.target()), reason));
                None
            }
        })
    }

    /// Try the candidates of some tiers in order.
    fn best(&mut self, wanted: &Wanted, tiers: impl Fn(Tier) -> bool, signal: &mut Signal) -> Result<(), Error> {
        for candidate in wanted.candidates.iter().filter(|c| tiers(c.tier)) {
            match self.candidate(candidate)? {
                Ok(()) => {
                    signal.hook = Some(candidate.to_string());
                    signal.tier = Some(candidate.tier);
                    signal.exact = candidate.tier < Tier::Tracepoint || wanted.exact_by_tracepoint;
                    let object = candidate.object;
                    for part in candidate.parts {
                        let second = self.second(object, *part, signal)?;
                        signal.programs.push(Attached { object, program: part.program, hot: part.hot, second });
                    }
                    return Ok(());
                }
                Err(reason) => signal.refused.push((candidate.to_string(), reason)),
            }
        }
        Ok(())
    }

    /// All of a candidate's programs or none; why not.
    fn candidate(&mut self, candidate: &Candidate) -> Result<Result<(), String>, Error> {
        if candidate.tier < self.settings.tier {
            return Ok(Err(format!("passed over by --tier {}", self.settings.tier)));
        }
        if let Some(need) = candidate.needs.iter().find(|need| !need.is_met(self.globals)) {
            return Ok(Err(need.reason()));
        }
        for part in candidate.parts {
            let refusal = match part.hook {
                Hook::Tracepoint(name) => self.prototypes.refuse_tracepoint(name),
                Hook::Fentry(name) | Hook::Fexit(name) | Hook::Kprobe(name) | Hook::Kretprobe(name) => {
                    self.prototypes.refuse_function(name)
                }
                // What they return is in the same place for all of them.
                Hook::Exits(_) => None,
            };
            if let Some(refusal) = refusal {
                return Ok(Err(one_of(candidate, part.hook, refusal)));
            }
        }
        for part in candidate.parts {
            if let Some(reason) = self.refused.get(&part.hook.kind()) {
                return Ok(Err(one_of(candidate, part.hook, reason.clone())));
            }
        }
        self.objects.open(candidate.object, self.globals, self.opener)?;
        let (before, links) = (self.attached.len(), self.links.0.len());
        for part in candidate.parts {
            if let Err(reason) = self.part(candidate.object, *part)? {
                self.links.0.truncate(links);
                for (object, program) in self.attached.drain(before..) {
                    unload(self.objects.program_mut(object, program)?);
                }
                return Ok(Err(one_of(candidate, part.hook, reason)));
            }
        }
        Ok(Ok(()))
    }

    /// Load and attach a program, unless another signal did.
    fn part(&mut self, object: Object, part: Part) -> Result<Result<(), String>, Error> {
        if self.attached.contains(&(object, part.program)) {
            return Ok(Ok(()));
        }
        let program = self.objects.program_mut(object, part.program)?;
        Ok(match attach(program, part.hook, self.btf) {
            Ok((link, probe)) => {
                let program = (object, part.program);
                self.attached.push(program);
                let waits = matches!(part.hook, Hook::Kprobe(_) | Hook::Kretprobe(_) | Hook::Exits(_));
                self.links.0.push(Held { program, link, waits, probe });
                Ok(())
            }
            Err(error) => {
                // It may be loaded and not attached.
                unload(program);
                let reason = why::reason(&error);
                // Tracepoints are what everything rests on: their refusals are told one by one.
                if part.hook.kind() < Tier::Tracepoint && why::is_of_the_kind(&error) {
                    self.refused.insert(part.hook.kind(), reason.clone());
                }
                Err(reason)
            }
        })
    }
}

/// Names the hook that spoils a candidate of several.
fn one_of(candidate: &Candidate, hook: Hook, reason: String) -> String {
    let target = hook.target();
    if candidate.parts.iter().all(|p| p.hook.target() == target) { reason } else { format!("{target}: {reason}") }
}

/// Nothing can be done about a failure, and closing the object does the rest.
fn unload(program: &mut Program) {
    let _ = match program {
        Program::FEntry(p) => p.unload(),
        Program::FExit(p) => p.unload(),
        Program::KProbe(p) => p.unload(),
        Program::BtfTracePoint(p) => p.unload(),
        Program::TracePoint(p) => p.unload(),
        _ => Ok(()),
    };
}

/// Keeps a program attached.
type Link = Box<dyn Send>;

/// The links of all attached programs; dropping them detaches these.
///
/// Each perf event (of a kprobe, of a system call's exit) waits for the kernel's grace periods when it goes, a tenth of a second: all at
/// once wait for the same ones. The others take a lock that they would only spin for.
#[derive(Default)]
pub(super) struct Links(Vec<Held>);

struct Held {
    program: (Object, &'static str),
    link: Link,
    /// It is a perf event.
    waits: bool,
    /// Of a kprobe, where the kernel counts what it misses.
    probe: Option<OwnedFd>,
}

impl Links {
    /// Hits of a program's kprobe that could not run it.
    pub fn missed_hits(&self, object: Object, program: &'static str) -> u64 {
        let held = self.0.iter().filter(|held| held.program == (object, program));
        // A kernel that cannot say counts none.
        held.filter_map(|held| super::bpf::missed_hits(held.probe.as_ref()?).ok()).sum()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            let (events, others): (Vec<_>, Vec<_>) = self.0.drain(..).partition(|held| held.waits);
            for Held { link, probe, .. } in events {
                // Where there can be no thread, the link goes with the closure, now.
                let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop((probe, link)));
            }
            drop(others);
        });
    }
}

fn attach(program: &mut Program, hook: Hook, btf: &Btf) -> Result<(Link, Option<OwnedFd>), ProgramError> {
    let link: Link = match hook {
        Hook::Tracepoint(name) => {
            let p: &mut BtfTracePoint = program.try_into()?;
            p.load(name, btf)?;
            let link = p.attach()?;
            Box::new(p.take_link(link)?)
        }
        Hook::Exits(names) => {
            let p: &mut TracePoint = program.try_into()?;
            p.load()?;
            let links = names.iter().map(|name| p.attach("syscalls", name).and_then(|link| p.take_link(link)));
            Box::new(links.collect::<Result<Vec<_>, _>>()?)
        }
        Hook::Fentry(name) => {
            let p: &mut FEntry = program.try_into()?;
            p.load(name, btf)?;
            let link = p.attach()?;
            Box::new(p.take_link(link)?)
        }
        Hook::Fexit(name) => {
            let p: &mut FExit = program.try_into()?;
            p.load(name, btf)?;
            let link = p.attach()?;
            Box::new(p.take_link(link)?)
        }
        Hook::Kprobe(name) | Hook::Kretprobe(name) => {
            let p: &mut KProbe = program.try_into()?;
            p.load()?;
            let link = p.attach(name, 0)?;
            let link = p.take_link(link)?;
            // Before Linux 5.15 it is a perf event alone.
            let link = FdLink::try_from(link).map_err(io::Error::other).map_err(ProgramError::IOError)?;
            // Another descriptor by number wants more rights than the link itself: without them nobody counts.
            let probe = link.info().ok().and_then(|info| super::bpf::link_by_id(info.id()).ok());
            return Ok((Box::new(link), probe));
        }
    };
    Ok((link, None))
}

#[cfg(test)]
mod tests;
