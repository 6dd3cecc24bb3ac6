//! What Node's `Worker` class offers: see `docs/node-parity.md`, which names these tests.

use phalanx_testkit::{LIMIT, procs, wait};
use serde_json::{Value, json};

use crate::probe::{Probe, get, number};

fn look(probe: &mut Probe, worker: u32) -> Value {
    probe.done(json!({"do": "worker", "worker": worker}))
}

#[test]
fn ids_count_up_and_are_never_used_again_while_positions_are() {
    let mut probe = Probe::start();
    assert_eq!(probe.fork().0, 1);
    assert_eq!(probe.fork().0, 2);
    probe.start_asking(1, json!({"do": "exit"}));
    probe.event(1, "exit");
    assert_eq!(probe.fork().0, 3);
    assert_eq!(look(&mut probe, 3)["position"], 0);
    assert_eq!(
        probe.ask(3, json!({"do": "about"}))["env"]["PHALANX_POSITION"],
        "0"
    );
}

#[test]
fn the_process_of_a_worker_is_known_by_its_pid() {
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    assert_eq!(probe.ask(worker, json!({"do": "about"}))["pid"], pid);
    assert!(procs::children(probe.pid()).contains(&pid));
}

#[test]
fn send_carries_every_kind_of_json_both_ways() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let kinds =
        json!([null, true, 0, -1, 1.5, "", "text", [], {}, {"cmd": "USER"}, "x".repeat(300_000)]);
    let answer = probe.ask(worker, json!({"kinds": kinds}));
    assert_eq!(answer["echo"]["kinds"], kinds);
}

#[test]
fn send_to_a_worker_that_is_gone_is_an_error() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    probe.start_asking(worker, json!({"do": "exit"}));
    probe.event(worker, "exit");
    let answer = probe.tell(json!({"do": "send", "worker": worker, "message": 1}));
    assert_eq!(answer["error"], "the channel is closed");
}

#[test]
fn send_says_when_the_channel_is_full_and_loses_nothing_else() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    probe.ask(worker, json!({"do": "about"}));
    // The order to flood is written before the primary stops reading.
    probe.start_asking(worker, json!({"do": "flood"}));
    let line = probe.wait("the flood's end", |line| {
        line["message"].get("sent").is_some()
    });
    // Whether it was ever full depends on how fast the primary reads; nothing may be lost either way.
    let sent = line["message"]["sent"].as_u64().unwrap_or(64);
    let large = |line: &Value| line["message"]["length"] == 1 << 20;
    let came = probe.seen().iter().filter(|line| large(line)).count();
    assert_eq!(came as u64, sent);
}

#[test]
fn disconnect_lets_the_worker_finish_and_leave() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    probe.serve(worker, "127.0.0.1:0");
    assert_eq!(
        look(&mut probe, worker)["exited_after_disconnect"],
        Value::Null
    );
    probe.done(json!({"do": "disconnect", "worker": worker}));
    assert_eq!(look(&mut probe, worker)["exited_after_disconnect"], true);
    let exit = probe.event(worker, "exit");
    assert_eq!(
        (&exit["code"], &exit["exited_after_disconnect"]),
        (&json!(0), &json!(true))
    );
    let history = probe.history(worker);
    assert_eq!(history[history.len() - 2..], ["disconnect", "exit"]);
}

#[test]
fn a_worker_leaves_by_its_own_wish_and_a_successor_is_forked_on_its_exit() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let address = probe.serve(worker, "127.0.0.1:0");
    assert_eq!(probe.ask(worker, json!({"do": "disconnect"}))["left"], true);
    let exit = probe.event(worker, "exit");
    assert_eq!(
        (&exit["code"], &exit["exited_after_disconnect"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(look(&mut probe, worker)["exited_after_disconnect"], true);
    assert!(probe.history(worker).contains(&"leaving".to_owned()));
    // The listener is there still: what connects now is served by the successor.
    let client = std::thread::spawn(move || get(&address));
    let (successor, _) = probe.fork();
    let place = probe.ask(
        successor,
        json!({"do": "listen", "at": "127.0.0.1:0", "with": "axum"}),
    );
    assert!(place["address"].is_string());
    assert_eq!(client.join().unwrap().worker, successor);
}

#[test]
fn kill_sends_a_signal_and_is_no_disconnect() {
    let mut probe = Probe::start();
    for (name, number) in [("TERM", 15), ("KILL", 9)] {
        let (worker, pid) = probe.fork();
        probe.event(worker, "online");
        probe.done(json!({"do": "kill", "worker": worker, "signal": name}));
        let exit = probe.event(worker, "exit");
        assert_eq!(
            (&exit["code"], &exit["signal"]),
            (&Value::Null, &json!(number))
        );
        assert_eq!(exit["exited_after_disconnect"], false);
        assert!(!procs::is_alive(pid));
        // One that is gone is no error.
        probe.done(json!({"do": "kill", "worker": worker, "signal": name}));
    }
}

#[test]
fn kill_ends_a_worker_that_does_not_leave() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork_with(json!({"PROBE_STUBBORN": "1"}));
    probe.event(worker, "online");
    probe.done(json!({"do": "disconnect", "worker": worker}));
    // It is told, and stays.
    probe.done(json!({"do": "kill", "worker": worker, "signal": "KILL"}));
    let exit = probe.event(worker, "exit");
    assert_eq!(
        (&exit["signal"], &exit["exited_after_disconnect"]),
        (&json!(9), &json!(true))
    );
}

#[test]
fn a_crash_is_not_exited_after_disconnect() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    probe.start_asking(worker, json!({"do": "abort"}));
    assert_eq!(
        probe.event(worker, "exit")["exited_after_disconnect"],
        false
    );
    assert_eq!(look(&mut probe, worker)["exited_after_disconnect"], false);
}

#[test]
fn is_connected_and_is_dead_follow_the_worker() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let about = look(&mut probe, worker);
    assert_eq!(
        (&about["connected"], &about["dead"]),
        (&json!(true), &json!(false))
    );
    probe.start_asking(worker, json!({"do": "exit", "code": 3}));
    probe.event(worker, "exit");
    let about = look(&mut probe, worker);
    assert_eq!(
        (&about["connected"], &about["dead"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(about["exit_status"], "Code(3)");
}

#[test]
fn a_worker_has_events_of_its_own_that_end_with_its_exit() {
    let mut probe = Probe::start();
    let watched = number(&probe.done(json!({"do": "fork", "watch": true}))["worker"]);
    let (other, _) = probe.fork();
    probe.listen(other, "127.0.0.1:0");
    let address = probe.listen(watched, "127.0.0.1:0");
    probe.start_asking(watched, json!({"do": "exit", "code": 4}));
    let last = probe.wait("the end", |line| {
        line["of"] == watched && line["watched"].is_null()
    });
    assert_eq!(number(&last["of"]), watched);
    let seen = probe.seen();
    let events: Vec<_> = seen.iter().filter_map(|line| line.get("watched")).collect();
    let names: Vec<_> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert_eq!(
        names,
        ["online", "listening", "message", "disconnect", "exit"]
    );
    assert!(
        events
            .iter()
            .all(|event| event.is_null() || event["worker"] == watched)
    );
    assert_eq!(events[1]["address"], address);
    assert_eq!(events[4]["code"], 4);
    // Nothing comes of one that is gone.
    let mark = probe.process.lines().count();
    probe.done(json!({"do": "watch", "worker": watched}));
    let line = probe.wait_after(mark, "the end at once", |line| line["of"] == watched);
    assert!(line["watched"].is_null());
}

#[test]
fn messages_written_just_before_the_exit_come_before_it() {
    let mut probe = Probe::start();
    for _ in 0..20 {
        let (worker, _) = probe.fork();
        let last = probe.start_asking(worker, json!({"text": "last words"}));
        probe.start_asking(worker, json!({"do": "exit"}));
        probe.answer(worker, last);
        probe.event(worker, "exit");
        let history = probe.history(worker);
        assert_eq!(history, ["fork", "online", "message", "disconnect", "exit"]);
    }
}

#[test]
fn a_long_message_is_written_whole_before_a_worker_ends() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    // Far more than the channel's buffer takes at once.
    let answer = probe.ask(worker, json!({"do": "last words"}));
    assert_eq!(answer["words"].as_str().unwrap().len(), 3 << 20);
    assert_eq!(probe.event(worker, "exit")["code"], 0);
}

#[test]
fn what_a_worker_left_in_its_process_group_goes_with_it() {
    let mut probe = Probe::start();
    let script = "sleep 1000 & echo \"{\\\"left\\\": $!}\"; exit 1";
    probe.done(json!({"do": "setup", "exec": "sh", "args": ["-c", script]}));
    let (worker, _) = probe.fork();
    let left = probe.wait("its child", |line| line.get("left").is_some());
    probe.event(worker, "exit");
    assert!(procs::wait_gone(number(&left["left"]), LIMIT));
}

#[test]
fn many_workers_come_and_go_at_once() {
    let mut probe = Probe::start();
    let workers: Vec<_> = (0..24).map(|_| probe.fork()).collect();
    for (worker, _) in &workers {
        probe.event(*worker, "online");
    }
    probe.done(json!({"do": "disconnect"}));
    probe.wait("the end of disconnect", |line| {
        line["cluster"] == "disconnected"
    });
    for (worker, pid) in workers {
        assert_eq!(probe.event(worker, "exit")["code"], 0);
        assert!(wait::try_eventually(LIMIT, || (!procs::is_alive(pid)).then_some(())).is_some());
    }
}
