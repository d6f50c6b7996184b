//! The page of `report` in a real browser, of a recording made here. Not one of the live tests, which run on emulated machines, too.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process,
    run::parse,
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{netns_list, replay, tcptrace, tier},
    wait_until,
};

/// Some of everything that a page has.
fn traffic(ns: &Netns) {
    for port in 7961..7981 {
        let Pair { listener, client, server } = pair(ns, local(port));
        client.send(b"request");
        server.receive(7);
        server.send(&[b'a'; 5000]);
        client.receive(5000);
        if port % 3 == 0 {
            client.linger_zero();
            client.close();
            server.close();
        } else {
            close_in_order(client, server);
        }
        listener.close();
        Sock::new(ns, local(port)).connect(local(port)).expect_err("nobody listens");
    }
    ns.quiet();
}

/// A recording with queues of `traffic`.
fn recorded(ns: &Netns, file: &Path) {
    let mut command = tcptrace();
    command.args(["record", "--queues", "--netns", &netns_list(&[ns]), "--tier", &tier()]).arg(file);
    let mut child = process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    // It says on stderr that it records once it does.
    let (line, _stderr) = process::first_line(child.child().stderr.take().expect("piped"));
    assert!(line.contains("recording to"), "{line}");
    // Is there at the end of an interval, which a second one begins.
    let stays = Sock::listen(ns, local(7981), 16);
    traffic(ns);
    wait_until("a second interval to end", || {
        let out = process::output(tcptrace().args(["queues", "--json", "--from"]).arg(file));
        let text = String::from_utf8(out.stdout).expect("UTF-8");
        text.lines().filter(|l| l.contains("\"type\":\"listener\"") && l.contains("\"lport\":7981")).count() >= 2
    });
    child.signal(libc::SIGINT);
    assert!(child.wait().success());
    drop(stays);
}

/// Measures the page in a frame, and writes what it finds into the document, which the browser prints.
const WRAPPER: &str = "<!DOCTYPE html><html><body>
<iframe id='page' src='page.html' style='width:WIDTHpx;height:2000px;border:0'></iframe><pre id='found'></pre>
<script>
document.getElementById('page').onload = event => {
  const d = event.target.contentDocument, w = event.target.contentWindow;
  const size = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  const found = {
    title: d.title,
    background: w.getComputedStyle(d.documentElement).backgroundColor,
    text: w.getComputedStyle(d.body).color,
    requests: w.performance.getEntriesByType('resource').map(e => e.name),
    scripts: d.scripts.length,
    wide: d.documentElement.scrollWidth,
    charts: [...d.querySelectorAll('svg')].map(s => ({
      id: s.id, size: size(s), box: [s.getBBox().width, s.getBBox().height], label: s.getAttribute('aria-labelledby'),
      shapes: [...s.querySelectorAll('rect,path,line')].filter(e => !e.classList.contains('hit')).length,
      empty: [...s.querySelectorAll('rect,path,line')].filter(e => { const b = e.getBBox(); return b.width + b.height <= 0; }).length,
      outside: [...s.querySelectorAll('text')].filter(e => {
        const b = e.getBBox(), v = s.viewBox.baseVal; return b.x < -1 || b.y < -1 || b.x + b.width > v.width + 1 || b.y + b.height > v.height + 1;
      }).map(e => e.textContent),
    })),
    tables: [...d.querySelectorAll('table')].map(size),
    bars: [...d.querySelectorAll('.bars i')].map(size),
  };
  document.getElementById('found').textContent = JSON.stringify(found);
};
</script></body></html>";

/// What a browser makes of a page.
struct Seen {
    /// What the wrapper measured.
    found: Value,
    /// What pages asked a network for, by the browser's own log.
    asked: Vec<String>,
    /// What was said on the console, and all else that the browser says.
    messages: String,
}

/// The page in so many columns and a scheme of colours: 0 is dark, 1 is light.
fn seen(ns: &Netns, dir: &Path, width: u32, scheme: u8) -> Seen {
    let wrapper = dir.join("wrapper.html");
    fs::write(&wrapper, WRAPPER.replace("WIDTH", &width.to_string())).expect("our directory");
    let log = dir.join("net.json");
    // In a namespace that leads nowhere.
    let mut command = ns.command("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        // The wrapper measures a file beside it.
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        // Until there is nothing left to do, however slow the machine.
        "--virtual-time-budget=10000",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    command.arg(format!("--log-net-log={}", log.display()));
    command.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    command.arg(format!("--window-size={},2000", width + 50));
    command.arg(format!("file://{}", wrapper.display()));
    let out = process::output(&mut command);
    let (dom, messages) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr).into_owned());
    assert!(out.status.success(), "{messages}");
    let found = dom.split_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let found = found.unwrap_or_else(|| panic!("nothing was measured: {dom}\n{messages}")).0;
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let found = serde_json::from_str(&found).unwrap_or_else(|e| panic!("{e}: {found}"));
    // An event a line. What the browser asks for itself, such as its updates, has no origin.
    let net = fs::read_to_string(&log).expect("its log");
    let by_a_page = |line: &&str| line.contains("\"initiator\":") && !line.contains("\"initiator\":\"not an origin\"");
    let url =
        |line: &str| line.split_once("\"url\":\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
    let asked = net.lines().filter(by_a_page).filter_map(url).filter(|url| !url.starts_with("file:")).collect();
    Seen { found, asked, messages }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|n| n.as_f64().expect("a number")).collect()
}

#[test]
fn a_browser_draws_the_page() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let recording = dir.path().join("day.rec");
    recorded(&ns, &recording);
    process::run(tcptrace().args(["report", "--html"]).arg(dir.path().join("page.html")).arg(&recording));
    let conns = parse(&replay("conns", &recording));
    let conns = conns.iter().filter(|line| line["type"] == "connection").count();
    assert!(conns >= 60, "{conns}");

    let mut backgrounds = Vec::new();
    for (width, scheme) in [(1100, 1), (1100, 0), (400, 1)] {
        let Seen { found, asked, messages } = seen(&ns, dir.path(), width, scheme);
        assert!(!messages.contains("CONSOLE"), "{messages}");
        assert_eq!(asked, [""; 0]);
        assert!(found["title"].as_str().is_some_and(|t| t.contains("day.rec")), "{found}");
        assert_eq!((&found["requests"], &found["scripts"]), (&Value::Array(vec![]), &0.into()), "{found}");
        // What is wider scrolls for itself.
        assert!(found["wide"].as_f64() <= Some(width.into()), "{} in {width}", found["wide"]);
        let charts = found["charts"].as_array().expect("a list");
        let ids: Vec<_> = charts.iter().map(|c| c["id"].as_str().expect("an id")).collect();
        for id in
            ["over-time", "queue-0", "handshakes", "round-trips", "accept-waits", "lifetimes", "ladder-0", "ladder-1"]
        {
            assert!(ids.contains(&id), "{id} of {ids:?}");
        }
        for chart in charts {
            for size in [&chart["size"], &chart["box"]] {
                assert!(numbers(size).iter().all(|&n| n > 40.0), "{chart}");
            }
            assert!(chart["shapes"].as_u64() > Some(2) && chart["empty"] == 0, "{chart}");
            assert_eq!(chart["outside"], Value::Array(vec![]), "text that is cut off: {chart}");
        }
        for size in found["tables"].as_array().expect("a list").iter().chain(found["bars"].as_array().expect("a list"))
        {
            assert!(numbers(size).iter().all(|&n| n > 1.0), "{size}");
        }
        assert_ne!(found["background"], found["text"]);
        backgrounds.push(found["background"].clone());
    }
    assert_eq!(backgrounds[0], "rgb(255, 255, 255)");
    assert_ne!(backgrounds[0], backgrounds[1], "dark where it is asked for");

    // What would be noticed, if there were any.
    let picture = "http://192.0.2.1/x.png";
    let page = format!("<!DOCTYPE html><title>x</title><img src='{picture}'><script>console.error('no')</script>");
    fs::write(dir.path().join("page.html"), page).expect("our directory");
    let Seen { found, asked, messages } = seen(&ns, dir.path(), 400, 1);
    assert_eq!((asked, &found["scripts"]), (vec![picture.to_owned()], &1.into()));
    assert!(messages.contains("CONSOLE"), "{messages}");
}
