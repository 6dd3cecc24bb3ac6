//! Workers that hang are found, looked at and replaced; those that only seem to are left alone.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::{answer, app, ask, connect, get, pid_in, side_by_side};
use phalanx_sys::delay::DelayLink;
use phalanx_testkit::app::{AppBuilder, is_settled, pids};
use phalanx_testkit::lines::Stream;
use phalanx_testkit::{App, LIMIT, Load, Signal, fixtures, node, procs, require, wait};
use serde_json::Value;

/// So long may a worker hang here. On a machine that is busy it takes up to four times as long.
const HANG: &str = "1500ms";
/// Much longer than that takes.
const MUCH_LONGER: Duration = Duration::from_secs(8);

/// The limit of an answer, the timeout, and a busy machine.
const PROBED_WITHIN: Duration = Duration::from_mins(1);

fn kinds() -> Vec<(&'static str, AppBuilder)> {
    let mut kinds = Vec::new();
    let rust = || {
        let program = cluster::example("loops").to_str().unwrap().to_owned();
        app().command([program])
    };
    kinds.push(("Rust", rust()));
    kinds.push(("Rust by handoff", rust().options(["--dispatch", "handoff"])));
    if node::require().is_some() {
        let node = || app().script("loops.js");
        kinds.push(("Node", node()));
        kinds.push(("Node by handoff", node().options(["--dispatch", "handoff"])));
        let least = ["--policy", "least-connections"];
        kinds.push(("Node by load", node().options(least)));
        let unmodified = ["--no-preload", "--dispatch", "handoff"];
        kinds.push(("Node unmodified", node().options(unmodified)));
    }
    if require("python3").is_some() {
        let script = fixtures::fixture("programs/loops.py");
        kinds.push(("Python", app().command(["python3"]).arg(script).arg("0")));
    }
    kinds
}

/// Node opens an inspector where another one may be open: each cell is in a network of its own, or, where that may not be, one
/// comes after the other.
#[expect(dead_code, reason = "held until the cell is over")]
enum Alone {
    Apart(DelayLink),
    InTurn(MutexGuard<'static, ()>),
}

/// Leaves this thread alone with what it starts, until the cell is over.
fn alone() -> Alone {
    static TURN: Mutex<()> = Mutex::new(());
    match DelayLink::new(Duration::ZERO) {
        Ok(link) => {
            link.enter_server().unwrap();
            Alone::Apart(link)
        }
        Err(_) => Alone::InTurn(TURN.lock().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn with_port(builder: AppBuilder) -> App {
    builder
        .workers(2)
        .options(["--hang-timeout", HANG])
        .start_ready()
}

/// Sends one request for this path, and waits for no answer.
fn send(app: &mut App, path: &str) -> Box<dyn cluster::Connection> {
    let mut client = connect(&app.address()).unwrap();
    ask(client.as_mut(), path).unwrap();
    client
}

fn of_worker(status: &Value, pid: u32) -> Value {
    let mut workers = status["workers"].as_array().unwrap().iter();
    let found = workers.find(|worker| worker["pid"] == pid);
    found.cloned().unwrap_or_default()
}

#[test]
fn a_worker_that_loops_is_replaced_and_nobody_else_suffers() {
    side_by_side(kinds(), |(kind, builder)| {
        let _alone = alone();
        let mut app = with_port(builder);
        let events = app.events();
        let before = app.worker_pids();
        let _lost = send(&mut app, "/loop");
        if kind != "Python" {
            // What it has accepted when it begins to loop is on it.
            events.wait_for(LIMIT, kind, |event| event["event"] == "suspect");
        }
        let load = Load::new(app.address())
            .clients(4)
            .pause(Duration::from_millis(5))
            .start();
        let hung = events.wait_for(LIMIT, kind, |event| event["event"] == "hung");
        let status = app.wait_status(LIMIT, |status| {
            is_settled(status) && pids(status).iter().any(|pid| !before.contains(pid))
        });
        load.stop().expect_none_lost();
        let after = pids(&status);
        let kept = before.iter().filter(|pid| after.contains(pid)).count();
        assert_eq!((kept, after.len()), (1, 2), "{kind}: {before:?} {after:?}");
        let replaced = status["workers"].as_array().unwrap().iter();
        let why: Vec<&str> = replaced
            .filter_map(|worker| worker["recycled"]["why"].as_str())
            .collect();
        assert!(why.len() == 1 && why[0].contains("hung"), "{kind}: {why:?}");
        let text = fs::read_to_string(hung["evidence"].as_str().unwrap()).unwrap();
        assert!(text.contains("== process"), "{kind}: {text}");
        if kind.starts_with("Node") && !kind.contains("unmodified") {
            expect_stack(&hung, kind);
        }
        assert!(app.stop().success(), "{kind}");
    });
}

/// The stack is that of the loop, and its function on top is told. For a moment that may be one of Node's own, which it runs
/// in the midst of the loop when its inspector opens.
#[track_caller]
fn expect_stack(hung: &Value, name: &str) {
    let text = fs::read_to_string(hung["evidence"].as_str().unwrap()).unwrap();
    assert!(
        text.contains("    at spinsForEver (file:"),
        "{name}: {text}"
    );
    let function = hung["function"].as_str().unwrap();
    assert!(
        function.starts_with("spinsForEver (file:") || function.contains(" (node:"),
        "{name}: {function}"
    );
    let on_top = format!("== JavaScript stack\n    at {function}\n");
    assert!(text.contains(&on_top), "{name}: {function}, {text}");
}

#[test]
fn the_stack_of_every_version_of_node_is_found() {
    side_by_side(node::require_versions(), |node| {
        let _alone = alone();
        let mut app = with_port(app().node(&node, "loops.js"));
        let events = app.events();
        let _lost = send(&mut app, "/loop");
        let hung = events.wait_for(LIMIT, "hung", |event| event["event"] == "hung");
        expect_stack(&hung, &format!("Node {}", node.major));
        assert!(app.stop().success());
    });
}

#[test]
fn workers_that_somebody_holds_are_not_replaced() {
    if node::require().is_none() {
        return;
    }
    let mut app = with_port(app().script("loops.js"));
    let held = app.worker_pids();
    let signal = |which| {
        for pid in &held {
            assert!(procs::signal(*pid, which));
        }
    };
    signal(Signal::STOP);
    let queued: Vec<_> = (0..4).map(|_| send(&mut app, "/")).collect();
    let all = |status: &Value, health: &Value| {
        held.iter()
            .all(|pid| of_worker(status, *pid)["health"] == *health)
    };
    let status = app.wait_status(LIMIT, |status| all(status, &"frozen".into()));
    assert_eq!(
        of_worker(&status, held[0])["health_why"],
        "stopped by a signal"
    );
    // Nothing is to happen, however long one waits.
    let changed = wait::try_eventually(MUCH_LONGER, || (app.worker_pids() != held).then_some(()));
    assert!(changed.is_none());
    signal(Signal::CONT);
    app.wait_status(LIMIT, |status| all(status, &Value::Null));
    drop(queued);
    assert_eq!(app.worker_pids(), held);
    assert!(app.stop().success());
}

#[test]
fn only_a_client_of_an_open_inspector_holds_a_worker() {
    const OPENS: &str = "--inspect=0";
    if node::require().is_none() {
        return;
    }
    side_by_side(["--inspect-port=0", OPENS], |option| {
        let _alone = alone();
        let mut app = with_port(app().env("NODE_OPTIONS", option).script("loops.js"));
        let events = app.events();
        let said = app.lines().text(Stream::Stderr);
        let ports = said
            .split("Debugger listening on ws://127.0.0.1:")
            .skip(1)
            .map(|rest| rest.split_once('/').unwrap().0.parse().unwrap());
        let debuggers: Vec<TcpStream> = ports
            .map(|port: u16| TcpStream::connect(("127.0.0.1", port)).unwrap())
            .collect();
        assert_eq!(debuggers.len(), if option == OPENS { 2 } else { 0 });
        // The client that sends it counts for nothing.
        let _lost = send(&mut app, "/loop");
        let wait_for = |what| events.wait_for(LIMIT, what, |event| event["event"] == what);
        if option == OPENS {
            let frozen = wait_for("frozen");
            assert_eq!(frozen["by"], "inspected", "{frozen}");
            drop(debuggers);
        }
        wait_for("hung");
        assert!(app.stop().success());
    });
}

#[test]
fn a_worker_that_a_signal_has_stopped_gives_way_and_finishes_its_work() {
    if node::require().is_none() {
        return;
    }
    side_by_side(["kernel", "handoff"], |dispatch| {
        let options = ["--hang-timeout", "20s", "--dispatch", dispatch];
        let mut app = app()
            .workers(2)
            .options(options)
            .script("slow.js")
            .start_ready();
        let (address, before) = (app.address(), app.worker_pids());
        let mut begun: Vec<_> = (0..4).map(|_| send(&mut app, "/?ms=4000")).collect();
        wait::eventually(LIMIT, "all in service", || {
            let lines = app.lines().all();
            let told = lines.iter().filter(|line| line.text.contains("in service"));
            (told.count() == begun.len()).then_some(())
        });
        let held = before[0];
        assert!(procs::signal(held, Signal::STOP));
        let load = Load::new(address)
            .clients(4)
            .pause(Duration::from_millis(5))
            .start();
        let status = app.wait_status(LIMIT, |status| {
            is_settled(status) && !pids(status).contains(&held)
        });
        load.stop().expect_none_lost();
        let answers = begun.iter_mut().map(|client| answer(client.as_mut()));
        let answered: Vec<u32> = answers.map(|body| pid_in(&body.unwrap())).collect();
        assert!(answered.contains(&held), "{answered:?}, not {held}");
        let mut workers = status["workers"].as_array().unwrap().iter();
        let why = workers.find_map(|worker| worker["recycled"]["why"].as_str());
        assert!(why.unwrap().contains("stopped by a signal"), "{status}");
        assert!(app.stop().success());
    });
}

#[test]
fn a_worker_that_recovers_in_time_stays() {
    if node::require().is_none() {
        return;
    }
    let mut app = app()
        .workers(2)
        .options(["--hang-timeout", "60s"])
        .script("slow.js")
        .start_ready();
    let before = app.worker_pids();
    // A question every other second, a second without an answer, and time to see it on a busy machine.
    let _busy = send(&mut app, "/busy?ms=10000");
    let suspect = |status: &Value| {
        let mut workers = status["workers"].as_array().unwrap().iter();
        workers.any(|worker| worker["health"] == "suspect")
    };
    app.wait_status(LIMIT, suspect);
    app.wait_status(LIMIT, |status| !suspect(status));
    assert_eq!(app.worker_pids(), before);
    let status = app.status();
    assert!(status["workers"][0]["loop_lag_us"].is_u64(), "{status}");
    assert!(app.stop().success());
}

#[test]
fn where_all_wait_for_something_nobody_is_killed_and_that_is_said() {
    if require("python3").is_none() {
        return;
    }
    let script = fixtures::fixture("programs/loops.py");
    let mut app = with_port(app().command(["python3"]).arg(script).arg("0"));
    let before = app.worker_pids();
    let waiting: Vec<_> = (0..2).map(|_| send(&mut app, "/wait")).collect();
    let queued: Vec<_> = (0..4).map(|_| send(&mut app, "/")).collect();
    app.wait_for_line("none is killed", LIMIT);
    assert_eq!(app.worker_pids(), before);
    drop((waiting, queued));
}

#[test]
fn while_nobody_serves_a_successor_comes_early_and_nobody_is_killed_for_it() {
    if node::require().is_none() {
        return;
    }
    side_by_side(["kernel", "handoff"], |dispatch| {
        let _alone = alone();
        let options = ["--hang-timeout", "20s", "--dispatch", dispatch];
        let script = app().workers(2).options(options).script("loops.js");
        let mut app = script.start_ready();
        let events = app.events();
        let (address, before) = (app.address(), app.worker_pids());
        let mut lost = vec![send(&mut app, "/loop")];
        events.wait_for(LIMIT, dispatch, |event| event["event"] == "suspect");
        lost.push(send(&mut app, "/loop"));
        let early = |event: &Value| event["event"] == "hung" && event["early"] == true;
        let hung = events.wait_for(LIMIT * 2, dispatch, early);
        assert!(hung["evidence"].is_string(), "{hung}");
        let gives_way = |status: &Value| {
            let workers = status["workers"].as_array().unwrap();
            let is_new = |worker: &Value| {
                let pid = worker["pid"]
                    .as_u64()
                    .and_then(|pid| u32::try_from(pid).ok());
                pid.is_some_and(|pid| !before.contains(&pid))
            };
            let serves = |worker: &&Value| worker["state"] == "ready" && is_new(worker);
            let leaves = |worker: &&Value| worker["state"] == "draining" && !is_new(worker);
            workers.iter().any(|one| serves(&one)) && workers.iter().any(|one| leaves(&one))
        };
        let status = app.wait_status(LIMIT, gives_way);
        assert!(!before.contains(&pid_in(&get(&address, "/"))));
        let mut workers = status["workers"].as_array().unwrap().iter();
        let why = workers.find_map(|worker| worker["recycled"]["why"].as_str());
        assert!(why.unwrap().contains("nobody serves"), "{status}");
        drop(lost);
    });
}

#[test]
fn one_that_takes_connections_and_answers_none_is_found_by_the_probe() {
    let mut kinds = Vec::new();
    if node::require().is_some() {
        let node = || app().script("mute.js");
        kinds.push(("Node", node()));
        kinds.push(("Node by handoff", node().options(["--dispatch", "handoff"])));
    }
    if require("python3").is_some() {
        let script = fixtures::fixture("programs/locks.py");
        kinds.push(("Python", app().command(["python3"]).arg(script).arg("0")));
    }
    side_by_side(kinds, |(kind, builder)| {
        let _alone = alone();
        let mut app = with_port(builder.options(["--probe", "http:/health"]));
        let events = app.events();
        let before = app.worker_pids();
        let _unanswered = send(&mut app, "/mute");
        let hung = events.wait_for(PROBED_WITHIN, kind, |event| event["event"] == "hung");
        assert!(
            hung["text"].as_str().unwrap().contains("probe"),
            "{kind}: {hung}"
        );
        app.wait_status(LIMIT, |status| {
            is_settled(status) && pids(status).iter().any(|pid| !before.contains(pid))
        });
        let kept = app.worker_pids();
        let kept = before.iter().filter(|pid| kept.contains(pid)).count();
        assert_eq!(kept, 1, "{kind}: only the mute one is replaced");
        assert!(app.stop().success(), "{kind}");
    });
}

#[test]
fn what_a_program_prints_at_a_signal_is_kept() {
    if require("python3").is_none() {
        return;
    }
    let script = fixtures::fixture("programs/loops.py");
    let builder = app().command(["python3"]).arg(script).arg("0");
    let mut app = with_port(builder.options(["--hang-signal", "USR2"]));
    let events = app.events();
    let _lost = send(&mut app, "/loop");
    // Its queue alone tells of it.
    let _queued: Vec<_> = (0..8).map(|_| send(&mut app, "/")).collect();
    let hung = events.wait_for(LIMIT, "hung", |event| event["event"] == "hung");
    let text = fs::read_to_string(hung["evidence"].as_str().unwrap()).unwrap();
    let said = text.split("== after").nth(1).unwrap_or_default();
    let said = said.split("\n==").next().unwrap_or_default();
    assert!(said.contains("in do_GET"), "{text}");
    assert!(app.stop().success());
}

#[test]
fn a_connection_that_comes_while_a_question_waits_is_not_taken_for_its_answer() {
    for node in node::require_versions() {
        let builder = app().workers(1).options(["--dispatch", "handoff"]);
        let mut app = builder.node(&node, "full.js").arg("100").start_ready();
        let worker = app.worker_pids()[0];
        let tells =
            |field: &'static str| move |status: &Value| !status["workers"][0][field].is_null();
        app.wait_status(LIMIT, tells("loop_lag_us"));
        procs::suspend(worker);
        app.wait_status(LIMIT, tells("health"));
        let mut client = connect(&app.address()).unwrap();
        ask(client.as_mut(), "/?").unwrap();
        // Node gives a descriptor to the first line of a read that may have one: were the connection sent now, that would be the
        // question, and the application would get a message that nobody has sent.
        wait::try_eventually(Duration::from_millis(250), || {
            (app.status()["workers"][0]["connections"] == 1).then_some(())
        });
        assert!(procs::signal(worker, Signal::CONT));
        assert_eq!(
            pid_in(&answer(client.as_mut()).unwrap()),
            worker,
            "{node:?}"
        );
        assert_eq!(app.worker_pids(), [worker], "{node:?}");
        assert!(app.stop().success(), "{node:?}");
    }
}
