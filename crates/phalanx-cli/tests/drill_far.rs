//! `phalanx drill` from far away, with the cluster's privileges and without: every server that people run, and every way
//! in which it gets its connections. In network namespaces of the drill's own.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;
use crate::support;

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use phalanx_sys::delay::DelayLink;
use phalanx_sys::identity;
use phalanx_testkit::process::Output;
use phalanx_testkit::{Process, fixtures, missing, node, require};
use serde_json::{Value, json};
use support::{directory, expect_refused, phalanx};

/// A drill waits for its actions, and those for processors: this is only to end at all.
const LONG: Duration = Duration::from_mins(15);
const SHORT: &str = "--for 3s --rate 100 --clients 8 --timeout 60s --reloads 2 --scales 1";
const WHOLE: &str = "--for 10s --rate 200";
const MAIN: &str = "8080";
const ADMIN: &str = "8081";

/// What the cluster may do, which decides what steers its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The kernel's program is eBPF.
    Kernel,
    /// The primary hands over.
    Handoff,
    /// No eBPF: handoff to who has a channel, classic BPF for the others.
    Unprivileged,
    /// As a container with default settings: no `pidfd_getfd(2)` either.
    Contained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Node,
    NpmStart,
    Rust,
    Python,
    NodeTwoPorts,
    PythonTwoPorts,
    GunicornOnUnix,
}

/// A drill.
#[derive(Clone, Copy, Debug)]
struct Cell {
    server: Server,
    standing: Standing,
    /// Each way, in milliseconds.
    delay: u32,
}

impl fmt::Display for Server {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Node => "Node (`http.js`)",
            Self::NpmStart => "Node, by `npm start`",
            Self::Rust => "Rust (`axum_app`)",
            Self::Python => "Python, intercepted (`drilled.py`)",
            Self::NodeTwoPorts => "Node, two ports, the main one late (`staged.js`)",
            Self::PythonTwoPorts => "Python, intercepted, two ports, the main one late",
            Self::GunicornOnUnix => "gunicorn (gthread) on a Unix socket, intercepted",
        })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Kernel => "root, kernel (eBPF)",
            Self::Handoff => "root, handoff",
            Self::Unprivileged => "no eBPF",
            Self::Contained => "container's default profile",
        })
    }
}

impl Server {
    /// Nothing where its interpreter is missing. What the server needs lies in `place`.
    fn command(self, place: &Path) -> Option<Vec<String>> {
        let fixture = |name: &str| fixtures::fixture(name).to_str().unwrap().to_owned();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match self {
            Self::Node => {
                node::require()?;
                Some(words(&[&fixture("http.js"), MAIN]))
            }
            Self::NpmStart => {
                node::require()?;
                require("npm")?;
                let start = format!("node {} {MAIN}", fixture("http.js"));
                let package = json!({"name": "shop", "scripts": {"start": start}});
                fs::write(place.join("package.json"), package.to_string()).unwrap();
                Some(words(&["npm", "start"]))
            }
            Self::Rust => {
                let app = cluster::example("axum_app");
                let address = format!("127.0.0.1:{MAIN}");
                Some(words(&[app.to_str().unwrap(), &address]))
            }
            Self::Python => {
                require("python3")?;
                Some(words(&["python3", &fixture("programs/drilled.py"), MAIN]))
            }
            Self::NodeTwoPorts => {
                node::require()?;
                let plan = place.join("plan");
                fs::write(&plan, "late").unwrap();
                let script = fixture("staged.js");
                Some(words(&[&script, MAIN, ADMIN, plan.to_str().unwrap()]))
            }
            Self::PythonTwoPorts => {
                require("python3")?;
                let script = fixture("programs/drilled.py");
                Some(words(&["python3", &script, MAIN, ADMIN]))
            }
            Self::GunicornOnUnix => {
                require("gunicorn")?;
                let bind = format!("unix:{}", place.join("gunicorn.sock").display());
                let directory = fixtures::root().join("fixtures/programs");
                let fixed = "gunicorn -w 1 -k gthread --threads 16 reads:app";
                let mut words: Vec<String> = words(&fixed.split(' ').collect::<Vec<_>>());
                words.extend([
                    format!("--bind={bind}"),
                    format!("--chdir={}", directory.display()),
                ]);
                Some(words)
            }
        }
    }

    /// All by which its connections can come.
    fn standings(self) -> &'static [Standing] {
        use Standing::{Contained, Handoff, Kernel, Unprivileged};
        match self {
            Self::Node | Self::NpmStart | Self::Rust | Self::NodeTwoPorts => {
                &[Kernel, Handoff, Unprivileged, Contained]
            }
            Self::Python | Self::PythonTwoPorts | Self::GunicornOnUnix => {
                &[Kernel, Unprivileged, Contained]
            }
        }
    }
}

impl Cell {
    /// What `phalanx drill` is told, after its form and length.
    fn words(self, place: &Path) -> Option<Vec<String>> {
        // What has no channel keeps its kept connections until then. An upload from the farthest takes more than two seconds,
        // and any request may on a busy machine.
        let limit = if self.delay < 200 { "5s" } else { "10s" };
        let run = format!("--run=--drain-timeout {limit}");
        let mut words = vec![format!("--delay={}", self.delay), run];
        words.extend(match (self.standing, self.server) {
            // There is one socket.
            (Standing::Kernel, Server::GunicornOnUnix) => None,
            (Standing::Kernel, _) => Some("--run=--dispatch kernel".to_owned()),
            (Standing::Handoff, _) => Some("--run=--dispatch handoff".to_owned()),
            (Standing::Unprivileged, _) => Some(
                "--under=setpriv --inh-caps=-all --bounding-set=-bpf,-perfmon,-sys_admin".into(),
            ),
            (Standing::Contained, _) => {
                let contained = fixtures::fixture("contained.py");
                Some(format!("--under=python3 {}", contained.display()))
            }
        });
        match self.server {
            Server::Rust => words.push("--upload-path=/upload".to_owned()),
            Server::NodeTwoPorts | Server::PythonTwoPorts => words.push(format!("--port={MAIN}")),
            Server::Node | Server::NpmStart | Server::Python | Server::GunicornOnUnix => {}
        }
        words.push("--".to_owned());
        words.extend(self.server.command(place)?);
        Some(words)
    }

    /// Runs it with this load; its exit and its report.
    fn drill(self, load: &str) -> Option<(Output, Value)> {
        let place = directory();
        let fixed = ["drill", "--json", "--quiet", "-n", "2"].into_iter();
        let mut words: Vec<String> = fixed.chain(load.split(' ')).map(str::to_owned).collect();
        words.extend(self.words(place.path())?);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut command = phalanx(place.path(), &words);
        command.current_dir(place.path());
        let output = Process::run(command, LONG);
        let report = serde_json::from_str(&output.stdout).unwrap_or_default();
        Some((output, report))
    }
}

fn can_be_far() -> bool {
    if !identity::is_root() {
        missing!("root, for network namespaces");
        return false;
    }
    if let Err(error) = DelayLink::new(Duration::ZERO) {
        missing!("network namespaces, /dev/net/tun and ip: {error}");
        return false;
    }
    require("setpriv").is_some() && require("python3").is_some()
}

#[track_caller]
fn expect_none_lost(cells: &[(Server, Standing, u32)]) {
    if !can_be_far() {
        return;
    }
    for &(server, standing, delay) in cells {
        let cell = Cell {
            server,
            standing,
            delay,
        };
        let Some((output, report)) = cell.drill(SHORT) else {
            continue;
        };
        assert!(output.status.success(), "{cell:?}: {output:?}");
        assert_eq!(
            (&report["lost"], &report["retried"], &report["reloads"]),
            (&0.into(), &0.into(), &2.into()),
            "{cell:?}: {report}"
        );
    }
}

#[test]
fn workers_with_a_channel_lose_nothing_from_far_away() {
    expect_none_lost(&[
        (Server::Node, Standing::Kernel, 70),
        (Server::NpmStart, Standing::Contained, 20),
        (Server::NodeTwoPorts, Standing::Unprivileged, 20),
        (Server::Rust, Standing::Contained, 20),
    ]);
}

#[test]
fn intercepted_programs_lose_nothing_from_far_away() {
    expect_none_lost(&[
        (Server::Python, Standing::Unprivileged, 20),
        (Server::PythonTwoPorts, Standing::Contained, 70),
    ]);
}

#[test]
fn workers_on_a_unix_socket_lose_nothing_from_far_away() {
    expect_none_lost(&[(Server::GunicornOnUnix, Standing::Unprivileged, 20)]);
}

#[test]
fn a_drill_that_cannot_make_namespaces_says_what_it_needs() {
    if require("setpriv").is_none() || !identity::is_root() {
        return missing!("root, and the program setpriv");
    }
    let place = directory();
    let mut weak = std::process::Command::new("setpriv");
    weak.args([
        "--inh-caps=-all",
        "--bounding-set=-sys_admin",
        cluster::PHALANX,
    ]);
    weak.args(["drill", "--delay", "20", "--", "server.js"]);
    weak.current_dir(place.path());
    let output = Process::run(weak, LONG);
    expect_refused(&output, 73, &["--delay", "network namespaces", "root"]);
}

/// The table of docs/zero-loss.md, on standard output: `just drill-far`.
#[test]
#[ignore = "takes half an hour"]
fn the_whole_table() {
    use Server::{GunicornOnUnix, Node, NodeTwoPorts, NpmStart, Python, PythonTwoPorts, Rust};

    const DELAYS: [u32; 4] = [0, 20, 70, 200];
    let mut failures = Vec::new();
    println!("| server | cluster | 0 ms | 20 ms | 70 ms | 200 ms |\n|---|---|---|---|---|---|");
    for server in [
        Node,
        NpmStart,
        Rust,
        Python,
        NodeTwoPorts,
        PythonTwoPorts,
        GunicornOnUnix,
    ] {
        for &standing in server.standings() {
            let figures = DELAYS.map(|delay| {
                let cell = Cell {
                    server,
                    standing,
                    delay,
                };
                let Some((output, report)) = cell.drill(WHOLE) else {
                    return "not run".to_owned();
                };
                let number = |field: &str| report[field].as_u64().unwrap_or(u64::MAX);
                if !output.status.success() {
                    failures.push(format!("{cell:?}: {output:?}"));
                }
                format!(
                    "{} of {}",
                    number("lost") + number("retried"),
                    number("requests")
                )
            });
            println!("| {server} | {standing} | {} |", figures.join(" | "));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
