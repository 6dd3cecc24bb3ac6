//! Programs that open their listeners one after the other: a successor is ready when it has all of them.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use cluster::{app, free_port, side_by_side, wait_report, wait_state};
use phalanx_testkit::app::is_settled;
use phalanx_testkit::lines::Stream;
use phalanx_testkit::load::{Failure, RunningLoad};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{App, LIMIT, Load, Target, fixtures, missing, node, require};

/// How the program is adopted and its connections are dispatched.
#[derive(Clone, Copy, Debug)]
enum Way {
    Channel(&'static str),
    Intercept(Standing),
    Activation(Standing),
}

/// How the connections of workers without a channel are dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// As the test may: by eBPF, where it is root.
    Own,
    /// Without eBPF: a classic program draws.
    Classic,
    /// All accept from one socket.
    Shared,
}

impl Way {
    fn standing(self) -> Standing {
        match self {
            Self::Channel("shared") => Standing::Shared,
            Self::Channel(_) => Standing::Own,
            Self::Intercept(standing) | Self::Activation(standing) => standing,
        }
    }
}

/// The user who may load no eBPF program.
const NOBODY: u32 = 65_534;

/// An app with two listeners, and the file that says how its next worker opens them.
struct Staged {
    app: App,
    plan: PathBuf,
    main: u16,
    admin: u16,
    _directory: tempfile::TempDir,
}

impl Staged {
    /// Nothing where the program's interpreter is missing.
    fn start(way: Way, workers: usize, plan: &str, options: &[&str]) -> Option<Self> {
        let interpreter = match way {
            Way::Channel(_) => node::require()?.path,
            Way::Intercept(_) | Way::Activation(_) => {
                // The one that comes first may lie where others may not look.
                let found = fixtures::on_path_for_all("python3");
                found.or_else(|| require("python3"))?
            }
        };
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("plan");
        fs::write(&file, plan).unwrap();
        let [main, admin] = [free_port(), free_port()];
        let fixture = match way {
            Way::Channel(_) => "staged.js",
            Way::Intercept(_) | Way::Activation(_) => "programs/staged.py",
        };
        let mut builder = app().workers(workers).options(options);
        match way {
            Way::Channel(dispatch) => builder = builder.options(["--dispatch", dispatch]),
            Way::Activation(_) => {
                for port in [main, admin] {
                    builder = builder.options(["--bind", &format!("127.0.0.1:{port}")]);
                }
            }
            Way::Intercept(_) => {}
        }
        match way {
            Way::Channel(_) | Way::Intercept(Standing::Own) | Way::Activation(Standing::Own) => {}
            Way::Intercept(Standing::Classic) | Way::Activation(Standing::Classic) => {
                if !phalanx_sys::identity::is_root() {
                    missing!("root");
                    return None;
                }
                builder = builder.uid(NOBODY);
            }
            Way::Intercept(Standing::Shared) | Way::Activation(Standing::Shared) => {
                builder = builder.options(["--dispatch", "shared"]).env("POLITE", "1");
            }
        }
        let app = builder
            .command([interpreter])
            .arg(fixtures::fixture(fixture))
            .arg(main.to_string())
            .arg(admin.to_string())
            .arg(&file)
            .start_ready();
        let mut staged = Self {
            app,
            plan: file,
            main,
            admin,
            _directory: directory,
        };
        staged.wait_for_both(workers);
        Some(staged)
    }

    /// The first generation may be ready before its second listener is open.
    fn wait_for_both(&mut self, workers: usize) {
        self.app.wait_status(LIMIT, |status| {
            let listeners = status["listeners"].as_array().unwrap();
            listeners.len() == 2 && listeners.iter().all(|one| one["workers"] == workers)
        });
    }

    fn deploy(&self, plan: &str) {
        fs::write(&self.plan, plan).unwrap();
    }
}

fn load(port: u16) -> RunningLoad {
    let target = Target::Tcp(([127, 0, 0, 1], port).into());
    // A program without a pause is hardly ever seen waiting, and what it serves is not known for sure (docs/activation.md).
    let load = Load::new(target).clients(2).request_limit(LIMIT);
    let load = load.pause(Duration::from_millis(10)).start();
    load.wait_until_ok(20, LIMIT);
    load
}

/// Reloads to a release that opens its main listener late: nothing is lost. Then to one that never opens it,
/// and to one that ends before: both are refused, and nothing is lost.
#[track_caller]
fn expect_waited_for_and_refused(way: Way, workers: usize) {
    // Nobody can be left out who shares a socket: what he has taken he must be able to finish.
    let kill_timeout = match way.standing() {
        Standing::Shared => "15s",
        Standing::Own | Standing::Classic => "1s",
    };
    let options = ["--ready-timeout", "15s", "--kill-timeout", kill_timeout];
    let Some(mut staged) = Staged::start(way, workers, "late", &options) else {
        return;
    };
    let (main, admin) = (load(staged.main), load(staged.admin));
    let before = staged.app.worker_pids();
    staged.app.verb(["reload"]).expect_success();
    let good = staged.app.worker_pids();
    assert!(good.iter().all(|pid| !before.contains(pid)));
    main.wait_for_more(20, LIMIT);

    for (plan, words) in [
        ("never", ["does not listen on", "--allow-fewer-listeners"]),
        ("throws", ["ended before it was ready", "position 0"]),
    ] {
        staged.deploy(plan);
        let refused = staged.app.verb(["reload"]);
        assert_eq!(refused.status.code(), Some(1), "{way:?}: {refused:?}");
        for word in words {
            assert!(refused.stderr.contains(word), "{word}: {refused:?}");
        }
        assert_eq!(staged.app.worker_pids(), good, "{way:?}");
        main.wait_for_more(20, LIMIT);
    }
    assert_eq!(staged.app.status()["generation"], 2);
    main.stop().expect_none_lost();
    let admin = admin.stop();
    if way.standing() != Standing::Shared {
        // Whoever shares a socket accepts from it as soon as it listens, even before it fails.
        admin.expect_none_lost();
    }
}

#[test]
fn kernel_dispatch() {
    expect_waited_for_and_refused(Way::Channel("kernel"), 2);
}

#[test]
fn kernel_dispatch_with_one_worker() {
    expect_waited_for_and_refused(Way::Channel("kernel"), 1);
}

#[test]
fn handoff() {
    expect_waited_for_and_refused(Way::Channel("handoff"), 2);
}

#[test]
fn handoff_with_one_worker() {
    expect_waited_for_and_refused(Way::Channel("handoff"), 1);
}

#[test]
fn shared_dispatch() {
    expect_waited_for_and_refused(Way::Channel("shared"), 2);
}

#[test]
fn interception_with_one_worker() {
    expect_waited_for_and_refused(Way::Intercept(Standing::Own), 1);
}

#[test]
fn interception() {
    expect_waited_for_and_refused(Way::Intercept(Standing::Own), 2);
}

#[test]
fn activation() {
    expect_waited_for_and_refused(Way::Activation(Standing::Own), 2);
}

#[test]
fn activation_with_one_worker() {
    expect_waited_for_and_refused(Way::Activation(Standing::Own), 1);
}

#[test]
fn shared_dispatch_with_one_worker() {
    expect_waited_for_and_refused(Way::Channel("shared"), 1);
}

#[test]
fn interception_without_ebpf() {
    expect_waited_for_and_refused(Way::Intercept(Standing::Classic), 2);
}

#[test]
fn interception_without_ebpf_with_one_worker() {
    expect_waited_for_and_refused(Way::Intercept(Standing::Classic), 1);
}

#[test]
fn activation_without_ebpf() {
    expect_waited_for_and_refused(Way::Activation(Standing::Classic), 2);
}

#[test]
fn activation_without_ebpf_with_one_worker() {
    expect_waited_for_and_refused(Way::Activation(Standing::Classic), 1);
}

#[test]
fn interception_of_shared_sockets() {
    expect_waited_for_and_refused(Way::Intercept(Standing::Shared), 2);
}

#[test]
fn interception_of_shared_sockets_with_one_worker() {
    expect_waited_for_and_refused(Way::Intercept(Standing::Shared), 1);
}

#[test]
fn activation_of_shared_sockets() {
    expect_waited_for_and_refused(Way::Activation(Standing::Shared), 2);
}

#[test]
fn activation_of_shared_sockets_with_one_worker() {
    expect_waited_for_and_refused(Way::Activation(Standing::Shared), 1);
}

#[test]
fn a_release_that_gives_up_a_listener_is_accepted_when_that_is_allowed() {
    let options = ["--ready-timeout", "10s"];
    let Some(mut staged) = Staged::start(Way::Channel("auto"), 1, "late", &options) else {
        return;
    };
    staged.deploy("never");
    let events = staged.app.events();
    let reload = ["reload", "--allow-fewer-listeners"];
    staged.app.verb(reload).expect_success();
    let told = wait_report(&events, "fewer_listeners");
    assert_eq!(told["missing"][0], format!("127.0.0.1:{}", staged.main));
}

/// A program that listens, closes and listens again, to see whether its port is free.
#[track_caller]
fn expect_tries_to_lose_nothing(way: Way, workers: usize) {
    let Some(staged) = Staged::start(way, workers, "tries", &[]) else {
        return;
    };
    let load = load(staged.main);
    for _ in 0..3 {
        staged.app.verb(["reload"]).expect_success();
        load.wait_for_more(20, LIMIT);
    }
    load.stop().expect_none_lost();
}

#[test]
fn a_port_that_is_tried_first_counts_only_when_it_is_open_for_good() {
    let cells = ["kernel", "handoff", "shared"].map(|way| [(way, 1), (way, 2)]);
    side_by_side(cells.into_iter().flatten(), |(way, workers)| {
        expect_tries_to_lose_nothing(Way::Channel(way), workers);
    });
}

#[test]
fn an_intercepted_port_that_is_tried_first_counts_only_when_it_is_open_for_good() {
    side_by_side([1, 2], |workers| {
        expect_tries_to_lose_nothing(Way::Intercept(Standing::Own), workers);
    });
}

/// A successor gets nothing before it gives its word, or answers.
#[track_caller]
fn expect_no_request_before(ready: &str, way: Way, plan: &str) {
    let options = ["--ready", ready];
    let Some(mut staged) = Staged::start(way, 1, plan, &options) else {
        return;
    };
    let load = load(staged.main);
    let events = staged.app.events();
    let reload = staged.app.start_verb(["reload"]);
    let old = staged.app.worker_pids()[0];
    wait_state(&events, "online");
    load.wait_for_more(20, LIMIT);
    reload.finish(LIMIT).expect_success();
    assert_ne!(staged.app.worker_pids(), [old]);
    load.wait_for_more(20, LIMIT);
    // 503 is a failed request.
    load.stop().expect_none_failed();
}

#[test]
fn a_node_worker_is_ready_when_it_says_so() {
    expect_no_request_before("message", Way::Channel("auto"), "says");
}

#[test]
fn a_node_worker_is_ready_when_it_answers_well() {
    expect_no_request_before("http:/", Way::Channel("kernel"), "warms");
    expect_no_request_before("http:/", Way::Channel("handoff"), "warms");
}

#[test]
fn an_intercepted_worker_is_ready_when_it_answers_well() {
    expect_no_request_before("http:/", Way::Intercept(Standing::Own), "warms");
}

#[test]
fn a_worker_that_is_given_its_listeners_is_ready_when_it_answers_well() {
    expect_no_request_before("http:/", Way::Activation(Standing::Own), "warms");
}

/// Nobody serves, and whoever is to serve next is killed when it listens and is not ready yet: newcomers wait.
#[track_caller]
fn expect_nobody_refused_without_a_worker(way: Way) {
    const WORKERS: usize = 2;
    let options = ["--ready", "http:/"];
    let Some(mut staged) = Staged::start(way, WORKERS, "late", &options) else {
        return;
    };
    let workers = staged.app.worker_pids();
    let (first, last) = (workers[0], workers[1]);
    staged.deploy("cold");
    let loads = [load(staged.main), load(staged.admin)];
    assert!(staged.app.kill_worker(first), "{way:?}");
    // Each as soon as it is known to listen, and the last that serves after the first of them.
    let mut killed = BTreeSet::from([first]);
    let mut kill_who_is_due = |app: &mut App| {
        for pid in app.worker_pids() {
            let is_due = if pid == last {
                killed.len() > 1
            } else {
                let output = app.lines().text(Stream::Stdout);
                output.contains(&format!("cold {pid}\n"))
            };
            if is_due && !killed.contains(&pid) && app.kill_worker(pid) {
                killed.insert(pid);
            }
        }
        killed.len()
    };
    // Each has to start, and waits longer than the one before.
    eventually(4 * LIMIT, "successors that listen and are killed", || {
        (kill_who_is_due(&mut staged.app) >= 6 * WORKERS).then_some(())
    });
    staged.deploy("late");
    // Who has begun before that would stay cold until its time is over.
    eventually(4 * LIMIT, "successors that serve", || {
        kill_who_is_due(&mut staged.app);
        staged.app.try_status().filter(is_settled)
    });
    for load in loads {
        load.wait_for_more(20, LIMIT);
        let report = load.stop();
        assert_eq!(report.count(Failure::Refused), 0, "{way:?}: {report}");
    }
}

#[test]
fn nobody_is_refused_while_successors_are_killed_before_they_serve() {
    // Who shares a socket cannot be asked alone whether he is ready.
    let channels = ["kernel", "handoff"].map(Way::Channel);
    let others = [Standing::Own, Standing::Classic]
        .map(|standing| [Way::Intercept(standing), Way::Activation(standing)]);
    let ways = channels.into_iter().chain(others.into_iter().flatten());
    side_by_side(ways, expect_nobody_refused_without_a_worker);
}
