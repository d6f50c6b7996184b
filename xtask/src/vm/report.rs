//! What a guest prints, line by line in, counts and what is wrong out. Pure.
//!
//! | line | meaning |
//! |---|---|
//! | `vm: kernel RELEASE` | the guest is up |
//! | `vm: begin RUN` … `vm: end RUN STATUS` | a run of the plan |
//! | `test NAME ... ok` (`FAILED`, `ignored`) | a test |
//! | `skipped: NAME: kernel has no FEATURE` | a test, or a part of one, that did not run |

/// Counts of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and runs that did not end as they should.
    pub failed: u64,
    /// Tests that say themselves that they are not to be run.
    pub ignored: u64,
    /// What was skipped because the kernel lacks a feature.
    pub skipped: u64,
}

/// Reads the lines of a guest.
#[derive(Debug, Default)]
pub struct Report {
    /// Counts so far.
    pub counts: Counts,
    /// `uname -r`.
    pub release: String,
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
    /// Features without which something may be skipped.
    lacks: Vec<String>,
    /// The run that has begun, and its counts.
    run: Option<(String, Counts)>,
    /// Names of the runs that have ended.
    ended: Vec<String>,
    /// What a run printed that is none of the above, since it began.
    other: Vec<String>,
}

impl Report {
    /// Of a kernel that may lack these features.
    pub fn new(lacks: &[String]) -> Self {
        Self { lacks: lacks.to_vec(), ..Self::default() }
    }

    /// The next line.
    pub fn line(&mut self, line: &str) {
        if let Some(said) = line.strip_prefix("vm: ") {
            self.said(said);
        } else if let Some(skipped) = line.strip_prefix("skipped: ") {
            self.skipped(skipped);
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|test| test.split_once(" ... ")) {
            self.test(name, result);
        } else {
            self.other.push(line.to_owned());
        }
    }

    /// The guest is off; `runs` are those that the plan has.
    pub fn finish(&mut self, runs: &[String]) {
        if let Some((run, counts)) = self.run.take() {
            self.add(counts);
            self.fail(format!("{run}: did not end"));
        }
        for run in runs {
            if !self.ended.contains(run) && !self.wrong.iter().any(|w| w.starts_with(&format!("{run}: "))) {
                self.fail(format!("{run}: did not begin"));
            }
        }
    }

    /// What the run that ended last printed beside results, with its exit status.
    fn said(&mut self, said: &str) {
        let mut words = said.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("kernel"), Some(release), None) => self.release = release.to_owned(),
            (Some("begin"), Some(run), None) => {
                self.run = Some((run.to_owned(), Counts::default()));
                self.other.clear();
            }
            (Some("end"), Some(run), Some(status)) => self.end(run, status),
            // `module NAME is refused`, or what a later version says.
            _ => self.fail(said.to_owned()),
        }
    }

    fn end(&mut self, run: &str, status: &str) {
        let Some((_, counts)) = self.run.take().filter(|(begun, _)| begun == run) else {
            return self.fail(format!("{run}: ended without a beginning"));
        };
        self.add(counts);
        self.ended.push(run.to_owned());
        if run == REFUSAL {
            return match refusal(status, &self.other) {
                Ok(()) => self.counts.passed += 1,
                Err(why) => self.fail(format!("{run}: {why}")),
            };
        }
        if counts.failed == 0 && status != "0" {
            self.fail(format!("{run}: status {status}"));
        } else if counts.passed + counts.failed == 0 {
            self.fail(format!("{run}: no test ran"));
        }
    }

    fn test(&mut self, name: &str, result: &str) {
        let Some((run, counts)) = &mut self.run else { return };
        match result {
            "ok" => counts.passed += 1,
            "FAILED" => {
                counts.failed += 1;
                self.wrong.push(format!("{run}: {name}"));
            }
            result if result.starts_with("ignored") => counts.ignored += 1,
            _ => {}
        }
    }

    fn skipped(&mut self, what: &str) {
        let feature = what.split_once("kernel has no ").map_or("", |(_, feature)| feature);
        self.counts.skipped += 1;
        if !self.lacks.iter().any(|lack| lack == feature) {
            self.fail(format!("skipped although this kernel should have it: {what}"));
        }
    }

    fn add(&mut self, counts: Counts) {
        self.counts.passed += counts.passed;
        self.counts.failed += counts.failed;
        self.counts.ignored += counts.ignored;
    }

    fn fail(&mut self, what: String) {
        self.counts.failed += 1;
        self.wrong.push(what);
    }
}

/// Name of the run of a kernel that tcptrace refuses.
pub const REFUSAL: &str = "refusal";

/// A kernel that is too old: status 4 and one line that names it.
fn refusal(status: &str, lines: &[String]) -> Result<(), String> {
    let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
    match (status, &lines[..]) {
        ("4", [line]) if line.starts_with("tcptrace: ") => Ok(()),
        _ => Err(format!("status {status}, {} lines: {}", lines.len(), lines.join(" / "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lacks: &[&str], lines: &str, runs: &[&str]) -> Report {
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let mut report = Report::new(&owned(lacks));
        lines.lines().for_each(|line| report.line(line));
        report.finish(&owned(runs));
        report
    }

    #[test]
    fn results_are_counted_run_by_run() {
        let r = report(
            &[],
            "vm: kernel 6.1.0-50\nvm: begin auto\nrunning 3 tests\ntest a::b ... ok\ntest c ... FAILED\n\
             test d ... ignored, slow\nvm: end auto 101\nvm: begin kprobe\ntest a::b ... ok\nvm: end kprobe 0\n",
            &["auto", "kprobe"],
        );
        assert_eq!(r.counts, Counts { passed: 2, failed: 1, ignored: 1, skipped: 0 });
        assert_eq!((r.release.as_str(), r.wrong), ("6.1.0-50", vec!["auto: c".to_owned()]));
    }

    #[test]
    fn a_guest_that_dies_fails() {
        let r = report(&[], "vm: begin auto\ntest a ... ok\nKernel panic\n", &["auto", "kprobe"]);
        assert_eq!(r.counts, Counts { passed: 1, failed: 2, ignored: 0, skipped: 0 });
        assert_eq!(r.wrong, ["auto: did not end", "kprobe: did not begin"]);
    }

    #[test]
    fn a_run_without_a_test_or_with_a_status_fails() {
        let r = report(&[], "vm: begin auto\nvm: end auto 0\n", &["auto"]);
        assert_eq!(r.wrong, ["auto: no test ran"]);
        let r = report(&[], "vm: begin auto\ntest a ... ok\nvm: end auto 139\n", &["auto"]);
        assert_eq!(r.wrong, ["auto: status 139"]);
        let r = report(&[], "vm: module tun is refused\n", &[]);
        assert_eq!(r.wrong, ["module tun is refused"]);
    }

    #[test]
    fn a_skip_is_told_and_must_be_expected() {
        let lines = "vm: begin auto\nskipped: trap11: kernel has no SCTP\ntest a ... ok\nvm: end auto 0\n";
        let r = report(&["SCTP"], lines, &["auto"]);
        assert_eq!(r.counts, Counts { passed: 1, failed: 0, ignored: 0, skipped: 1 });
        let r = report(&[], lines, &["auto"]);
        assert_eq!(r.counts, Counts { passed: 1, failed: 1, ignored: 0, skipped: 1 });
    }

    #[test]
    fn a_refusal_is_status_4_and_one_line() {
        let run = |status, lines: &str| {
            report(&[], &format!("vm: begin refusal\n{lines}\nvm: end refusal {status}\n"), &["refusal"])
        };
        assert_eq!(run(4, "tcptrace: too old").counts, Counts { passed: 1, ..Counts::default() });
        assert_eq!(run(1, "tcptrace: too old").counts, Counts { failed: 1, ..Counts::default() });
        assert_eq!(run(4, "").counts, Counts { failed: 1, ..Counts::default() });
        assert_eq!(run(4, "tcptrace: a\ntcptrace: b").counts, Counts { failed: 1, ..Counts::default() });
    }
}
