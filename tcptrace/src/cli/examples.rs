//! What follows the options in the help of each command: examples, and what marks mean.

pub const HELP: &str = "\
Examples:
  tcptrace trace --port 443       what happens on a port, as it happens
  tcptrace conns --role client    what this host asks of others, and how it went
  tcptrace queues                 whether a backlog is too small
  tcptrace explain CLOSE_WAIT     what it means, and what to do
  tcptrace doctor                 whether everything works here";

pub const TRACE_HELP: &str = "\
Examples:
  tcptrace trace                          everything on this host
  tcptrace trace --port 443 --comm nginx  one service
  tcptrace trace --state CLOSE_WAIT       who enters and leaves a state
  tcptrace trace --json --from day.rec    a recording, for programs
  tcptrace trace -- curl example.net      a command, and all that it starts
Marks:
  → this end connected   ← the peer did   ↔ not known
  ~ concluded, not seen  * was there before the trace began";

pub const CONNS_HELP: &str = "\
Examples:
  tcptrace conns                          everything on this host
  tcptrace conns --raddr 10.0.0.0/8 --role client
                                          what this host asks of others
  tcptrace conns --ladder --port 443      handshake and teardown, segment by segment
  tcptrace conns --failed --min-us 1s     what took long, and then failed
  tcptrace conns --by comm,rport,raddr    who asks whom, how often, how fast, with what end
  tcptrace conns --json --record day.rec  for programs, and to look at again
  tcptrace conns -- make test             a command, and all that it starts
Groups (--by):
  comm pid uid role laddr lport raddr rport netns container pod unit cgroup end
  LIFE50 LIFE99  half of the lifetimes, 99 % of them, are not longer   SHAKE, RTT: likewise
Marks:
  → this end connected   ← the peer did   ↔ not known
  ~ concluded, not seen  * was there before the trace began
  ── a segment           ┄┄ one that was not seen but follows from the states
  SHAKE handshake   RTT round-trip time   ↑↓ payload out and in   RTX segments sent again";

pub const QUEUES_HELP: &str = "\
Examples:
  tcptrace queues                         every listener, repainted every second
  tcptrace queues --once --lport 443      one look at one service
  tcptrace queues --interval 10s --json   for programs
Queues:
  n/peak/max  entries now, most in the interval, limit (full: more than that)
  DONE  connections put into the accept queue   ACC  taken from it
  WAIT  time in the accept queue: half, 99 %, longest
  ~ concluded, not seen  * was there before the trace began";

pub const WATCH_HELP: &str = "\
Examples:
  tcptrace watch                                   trouble as it begins and ends; nothing while all is well
  tcptrace watch --lport 443 --json                one service, for programs
  tcptrace watch --print-config > watch.toml       every rule and limit, to be changed
  tcptrace watch --config watch.toml
  tcptrace watch --exec 'mail -s tcptrace ops'     each finding as JSON on the command's standard input
  tcptrace watch --duration 30s --fail-on warning  status 10 if there was trouble: for scripts
  tcptrace watch --fail-on critical --count 1      ends at the first finding
  tcptrace watch --from day.rec                    what would have been found
A recording has what rules need if it was made with --queues.
`tcptrace explain RULE` says what a rule measures, and what helps.";

pub const RECORD_HELP: &str = "\
Examples:
  tcptrace record day.rec --duration 10m
  tcptrace record - | ssh admin 'cat > day.rec'
  tcptrace conns --from day.rec
  tcptrace record --ring 64M crash.rec               a flight recorder: the latest 64 MB
  tcptrace record --ring 5m crash.rec                the latest five minutes
  tcptrace record --rotate 100M --keep 10 day.rec    day.rec.0001, day.rec.0002 ...
Sizes are 512K, 64M, 2G, times 30s, 5m, 1h: M is megabytes, m is minutes.
--ring 5m takes as much memory as five minutes need; --ring 64M,5m keeps to both.
With --ring, SIGUSR1 writes what there is to FILE.0001, the next one to FILE.0002, and so on, and the end writes
FILE. Without, SIGUSR1 says how much was recorded. --rotate begins FILE.0001, and the next number when a file has
that size or age; numbers go on after the highest that is taken. Each file can be read alone: it begins with what
was told before of the connections that are open.";

pub const REPORT_HELP: &str = "\
Examples:
  tcptrace report day.rec                   one page of text
  tcptrace report day.rec --html day.html   with charts and ladders, for a browser
  tcptrace report day.rec --lport 443       one service
  tcptrace report day.rec --json            for programs
Marks:
  → this end connected   ← the peer did   ↔ not known
  ~ concluded, not seen  * was there before the recording began
  #12  the connection's id in `tcptrace conns --json --from FILE`
  SHAKE handshake   RTT round-trip time   ↑↓ payload out and in   RTX segments sent again";

pub const DOCTOR_HELP: &str = "\
Examples:
  tcptrace doctor                what works here, how well, and at what cost
  tcptrace doctor --tier kprobe  the same without fentry
  tcptrace doctor --json         for programs";

pub const EXPLAIN_HELP: &str = "\
Examples:
  tcptrace explain             every state and term, one line each
  tcptrace explain close-wait  as ss spells it, or CLOSE_WAIT
  tcptrace explain half open   a term of two words
  tcptrace explain --json rst  for programs";

pub const COMPLETIONS_HELP: &str = "\
Examples:
  source <(tcptrace completions bash)  in ~/.bashrc
  source <(tcptrace completions zsh)   in ~/.zshrc
  tcptrace completions fish | source   in ~/.config/fish/config.fish";
