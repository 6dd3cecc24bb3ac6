//! What Node's `cluster` object offers: see `docs/node-parity.md`, which names these tests.

use std::collections::BTreeSet;
use std::fs;

use phalanx_testkit::{LIMIT, Signal, fixtures, procs, wait};
use serde_json::{Value, json};

use crate::probe::{Client, Probe, get, number};

#[test]
fn every_row_of_the_table_names_a_test_that_exists() {
    let tests = fixtures::root().join("crates/phalanx/tests/library");
    let table = fs::read_to_string(fixtures::root().join("docs/node-parity.md")).unwrap();
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let proof = line.trim_end_matches('|').rsplit('|').next().unwrap();
        let mut named = proof.split('`').skip(1).step_by(2).peekable();
        assert!(named.peek().is_some(), "no test: {line}");
        for test in named {
            let (file, function) = test.split_once("::").expect(line);
            let source = fs::read_to_string(tests.join(format!("{file}.rs"))).expect(line);
            let head = format!("#[test]\nfn {function}()");
            assert!(source.contains(&head), "no such test: {test}");
        }
        rows += 1;
    }
    assert!(rows >= 50, "only {rows} rows");
}

#[test]
fn each_side_knows_which_it_is() {
    let mut probe = Probe::start();
    let role = probe.done(json!({"do": "role"}));
    assert_eq!(
        (&role["is_primary"], &role["is_worker"]),
        (&json!(true), &json!(false))
    );
    let (worker, pid) = probe.fork();
    let about = probe.ask(worker, json!({"do": "about"}));
    assert_eq!(
        (&about["is_primary"], &about["is_worker"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(about["id"], worker);
    assert_eq!(about["position"], 0);
    assert_eq!(about["pid"], pid);
    assert_eq!(about["connected"], true);
    assert_eq!(about["draining"], false);
}

#[test]
fn workers_are_the_live_ones() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    assert_eq!(
        probe.done(json!({"do": "workers"}))["workers"],
        json!([first, second])
    );
    probe.start_asking(first, json!({"do": "exit", "code": 0}));
    probe.event(first, "exit");
    assert_eq!(
        probe.done(json!({"do": "workers"}))["workers"],
        json!([second])
    );
}

#[test]
fn fork_starts_this_program_again_with_variables_of_its_own() {
    let mut probe = Probe::start_with(|command| {
        command
            .env("KEPT", "from the primary")
            .env("REPLACED", "old");
    });
    probe.fork();
    let (worker, _) = probe.fork_with(json!({"OWN": "yes", "REPLACED": "new"}));
    let about = probe.ask(worker, json!({"do": "about"}));
    assert_eq!(about["args"], json!(["cluster"]));
    let env = &about["env"];
    assert_eq!(env["KEPT"], "from the primary");
    assert_eq!(env["OWN"], "yes");
    assert_eq!(env["REPLACED"], "new");
    assert_eq!(env["PHALANX_WORKER_ID"], "2");
    assert_eq!(env["PHALANX_POSITION"], "1");
    assert_eq!(env["NODE_APP_INSTANCE"], "1");
}

#[test]
fn setup_chooses_program_arguments_directory_and_environment() {
    let directory = tempfile::tempdir().unwrap();
    let mut probe = Probe::start();
    probe.done(json!({
        "do": "setup",
        "exec": "sh",
        "args": ["-c", "echo \"{\\\"cwd\\\": \\\"$PWD\\\", \\\"own\\\": \\\"$OWN\\\", \\\"args\\\": \\\"$*\\\"}\"", "name", "one", "two"],
        "cwd": directory.path(),
        "env": {"OWN": "set"},
    }));
    let (worker, _) = probe.fork();
    let said = probe.wait("the shell's line", |line| line["cwd"].is_string());
    assert_eq!(said["own"], "set");
    assert_eq!(said["args"], "one two");
    let there = directory.path().canonicalize().unwrap();
    assert_eq!(said["cwd"], there.to_str().unwrap());
    assert_eq!(probe.event(worker, "exit")["code"], 0);
}

#[test]
fn setup_changes_only_workers_to_come_and_is_an_event() {
    let mut probe = Probe::start();
    let (before, _) = probe.fork();
    probe.done(json!({"do": "setup", "env": {"RELEASE": "2"}}));
    probe.wait("setup", |line| line["event"] == "setup");
    let (after, _) = probe.fork();
    assert_eq!(
        probe.ask(before, json!({"do": "about"}))["env"]["RELEASE"],
        Value::Null
    );
    assert_eq!(
        probe.ask(after, json!({"do": "about"}))["env"]["RELEASE"],
        "2"
    );
}

#[test]
fn settings_are_what_setup_was_given() {
    let mut probe = Probe::start();
    probe.done(
        json!({"do": "setup", "exec": "/bin/server", "args": ["--fast"], "cwd": "/tmp", "uid": 7}),
    );
    let settings = probe.done(json!({"do": "settings"}));
    let settings = settings["settings"].as_str().unwrap();
    for part in ["/bin/server", "--fast", "/tmp", "uid: Some(7)", "gid: None"] {
        assert!(settings.contains(part), "{part} in {settings}");
    }
}

#[test]
fn a_program_that_is_not_there_is_an_error_of_fork() {
    let mut probe = Probe::start();
    probe.done(json!({"do": "setup", "exec": "/no/such/program"}));
    let answer = probe.tell(json!({"do": "fork"}));
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("/no/such/program"), "{error}");
    assert_eq!(probe.done(json!({"do": "workers"}))["workers"], json!([]));
}

#[test]
fn the_policy_is_round_robin_unless_the_environment_or_the_program_says_none() {
    let policy = |value: Option<&str>| {
        let mut probe = Probe::start_with(|command| {
            if let Some(value) = value {
                command.env("NODE_CLUSTER_SCHED_POLICY", value);
            }
        });
        let before = probe.done(json!({"do": "policy"}));
        let after = probe.done(json!({"do": "policy", "set": "none"}));
        assert_eq!(after["policy"], "none");
        before["policy"].as_str().unwrap().to_owned()
    };
    assert_eq!(policy(None), "round-robin");
    assert_eq!(policy(Some("rr")), "round-robin");
    assert_eq!(policy(Some("none")), "none");
    assert_eq!(policy(Some("nonsense")), "round-robin");
}

#[test]
fn sched_rr_has_the_primary_accept_and_sched_none_the_workers() {
    for (policy, accepts) in [("rr", "primary"), ("none", "worker")] {
        let mut probe = Probe::start_with(|command| {
            command.env("NODE_CLUSTER_SCHED_POLICY", policy);
            let dispatch = if policy == "rr" { "handoff" } else { "auto" };
            command.env("PROBE_DISPATCH", dispatch);
        });
        let (worker, pid) = probe.fork();
        let address = probe.serve(worker, "127.0.0.1:0");
        assert_eq!(get(&address).worker, worker);
        // Whoever accepts has the listening socket open; the primary keeps it in either case.
        let inode = listening_inode(&address);
        assert!(procs::fd_targets(probe.pid()).contains(&inode));
        let in_worker = procs::fd_targets(pid).contains(&inode);
        assert_eq!(in_worker, accepts == "worker", "{policy}");
    }
}

/// The listening socket of a TCP address on 127.0.0.1, as `/proc/PID/fd` shows it.
pub(crate) fn listening_inode(address: &str) -> String {
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let local = format!("0100007F:{port:04X}");
    let line = lines
        .find(|fields| fields[1] == local && fields[3] == "0A")
        .unwrap();
    format!("socket:[{}]", line[9])
}

#[test]
fn disconnect_waits_until_all_have_left_and_closes_the_listeners() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    let address = probe.serve(first, "127.0.0.1:0");
    assert_eq!(probe.serve(second, "127.0.0.1:0"), address);
    probe.done(json!({"do": "disconnect"}));
    probe.wait("the end of disconnect", |line| {
        line["cluster"] == "disconnected"
    });
    for worker in [first, second] {
        let exit = probe.event(worker, "exit");
        assert_eq!(
            (&exit["code"], &exit["exited_after_disconnect"]),
            (&json!(0), &json!(true))
        );
        assert_eq!(probe.history(worker).last().unwrap(), "exit");
    }
    let refused = Client::try_connect(&address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // The cluster may be used again.
    let (third, _) = probe.fork();
    probe.serve(third, &address);
    assert_eq!(get(&address).worker, third);
}

#[test]
fn disconnect_waits_for_requests_in_service() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let address = probe.listen_with(
        worker,
        json!({"do": "listen", "at": "127.0.0.1:0", "with": "tokio"}),
    );
    let mut client = Client::connect(&address);
    let connections = json!({"do": "worker", "worker": worker});
    // Accepted, the primary has no copy of it any more; only then it is in service.
    let mut second = Client::connect(&address);
    second.request();
    second.answer();
    probe.done(json!({"do": "disconnect"}));
    probe.wait("its leaving", |line| line.get("answer").is_some());
    assert_eq!(probe.done(connections)["connected"], true);
    client.request();
    assert_eq!(client.answer().worker, worker);
    probe.wait("the end of disconnect", |line| {
        line["cluster"] == "disconnected"
    });
}

#[test]
fn a_worker_is_forked_online_listening_and_gone_in_this_order() {
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    let fork = probe.event(worker, "fork");
    assert_eq!((number(&fork["pid"]), &fork["position"]), (pid, &json!(0)));
    let address = probe.listen(worker, "127.0.0.1:0");
    assert_eq!(probe.event(worker, "listening")["address"], address);
    probe.start_asking(worker, json!({"do": "exit", "code": 7}));
    let exit = probe.event(worker, "exit");
    assert_eq!((&exit["code"], &exit["signal"]), (&json!(7), &Value::Null));
    assert_eq!(exit["exited_after_disconnect"], false);
    let history = probe.history(worker);
    let order = [
        "fork",
        "online",
        "listening",
        "message",
        "disconnect",
        "exit",
    ];
    assert_eq!(history, order);
}

#[test]
fn the_listening_event_has_the_actual_address_of_every_kind() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}/a.sock", directory.path().display());
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let mut addresses = BTreeSet::new();
    for at in [
        "127.0.0.1:0",
        "[::1]:0",
        ":0",
        &path,
        "unix:@phalanx-test-listening-event",
    ] {
        let as_ = format!("{at} ");
        let address = probe.listen_with(worker, json!({"do": "listen", "at": at, "as": as_}));
        addresses.insert(address);
    }
    let events = probe
        .seen()
        .into_iter()
        .filter(|line| line["event"] == "listening");
    let told: BTreeSet<_> = events
        .map(|line| line["address"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, addresses);
    assert!(told.contains(&path));
    assert!(
        !told.iter().any(|address| address.ends_with(":0")),
        "{told:?}"
    );
}

#[test]
fn messages_are_events_with_their_sender() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    for worker in [first, second] {
        let order = json!({"text": "é\n\"q\" 日本", "list": [1, null, {"a": 1.5}]});
        let answer = probe.ask(worker, order.clone());
        assert_eq!(answer["echo"]["text"], order["text"]);
        assert_eq!(answer["echo"]["list"], order["list"]);
    }
}

#[test]
fn a_broadcast_reaches_every_worker() {
    let mut probe = Probe::start();
    let workers: Vec<_> = (0..3).map(|_| probe.fork().0).collect();
    let answer = probe.done(json!({"do": "broadcast", "message": {"n": "all"}}));
    assert_eq!(answer["reached"], 3);
    for worker in workers {
        probe.wait("its answer", |line| {
            line["worker"] == worker && line["message"]["n"] == "all"
        });
    }
}

#[test]
fn the_exit_event_names_the_signal() {
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    probe.signal(pid, Signal::KILL);
    let exit = probe.event(worker, "exit");
    assert_eq!((&exit["code"], &exit["signal"]), (&Value::Null, &json!(9)));
    let (worker, _) = probe.fork();
    probe.start_asking(worker, json!({"do": "abort"}));
    assert_eq!(probe.event(worker, "exit")["signal"], 6);
}

#[test]
fn dropping_the_cluster_cuts_its_workers_off() {
    let mut probe = Probe::start();
    let (worker, pid) = probe.fork();
    // It says nothing any more that would make the primary look.
    probe.serve(worker, "127.0.0.1:0");
    probe.done(json!({"do": "drop"}));
    probe.wait("the end of events", |line| line["events"] == "ended");
    assert!(procs::wait_gone(pid, LIMIT), "{pid} lives on");
    assert!(wait::try_eventually(LIMIT, || procs::is_alive(probe.pid()).then_some(())).is_some());
}
