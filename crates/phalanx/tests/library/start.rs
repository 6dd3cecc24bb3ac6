//! How a worker is started: its streams, its user, the options of Node. `docs/node-parity.md` names these tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use phalanx_testkit::{LIMIT, Process, free_port, node};
use serde_json::json;

use crate::probe::{Probe, command};

#[test]
fn output_of_silent_workers_goes_to_the_primary_and_else_past_it() {
    let mut probe = Probe::start();
    probe.done(json!({"do": "output"}));
    let script = "echo to stdout; echo to stderr >&2; printf 'no newline'";
    probe.done(json!({"do": "setup", "exec": "sh", "args": ["-c", script], "silent": true}));
    let (worker, _) = probe.fork();
    probe.event(worker, "exit");
    let line = |text: &str| {
        let text = text.to_owned();
        probe.wait("a line of output", move |line| line["output"] == text)
    };
    assert_eq!(line("to stdout\n")["stream"], "stdout");
    assert_eq!(line("to stderr\n")["stream"], "stderr");
    assert_eq!(line("no newline")["worker"], worker);
    // What it wrote comes before its exit.
    let seen = probe.seen();
    let last = seen.iter().rposition(|line| line.get("output").is_some());
    assert!(last < seen.iter().position(|line| line["event"] == "exit"));

    let (script, loud) = ("echo '{\"past\": \"the primary\"}'", false);
    probe.done(json!({"do": "setup", "exec": "sh", "args": ["-c", script], "silent": loud}));
    probe.fork();
    probe.wait("the worker's own line", |line| {
        line["past"] == "the primary"
    });
}

#[test]
fn each_standard_stream_goes_where_stdio_says() {
    let mut probe = Probe::start();
    probe.done(json!({"do": "output"}));
    let script = "echo lost; echo read >&2; cat; echo end of input >&2";
    let stdio = ["null", "null", "piped"];
    probe.done(json!({"do": "setup", "exec": "sh", "args": ["-c", script], "stdio": stdio}));
    let (worker, _) = probe.fork();
    assert_eq!(probe.event(worker, "exit")["code"], 0);
    let output: Vec<_> = probe
        .seen()
        .into_iter()
        .filter_map(|line| line.get("output").cloned())
        .collect();
    assert_eq!(output, ["read\n", "end of input\n"]);
}

#[test]
fn workers_run_as_the_user_and_group_of_setup() {
    let me = fs::read_to_string("/proc/self/status").unwrap();
    let own = |name: &str| -> u32 {
        let line = me.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let is_root = own("Uid:") == 0;
    if !is_root {
        phalanx_testkit::missing!("root, to run a worker as somebody else");
        return;
    }
    let mut probe = Probe::start();
    let script = "echo \"{\\\"uid\\\": $(id -u), \\\"gid\\\": $(id -g)}\"";
    probe.done(
        json!({"do": "setup", "exec": "sh", "args": ["-c", script], "uid": 65534, "gid": 65533}),
    );
    probe.fork();
    let ids = probe.wait("its ids", |line| line.get("uid").is_some());
    assert_eq!((&ids["uid"], &ids["gid"]), (&json!(65534), &json!(65533)));
}

/// A program called `node` that prints its arguments.
fn fake_node(directory: &std::path::Path) -> String {
    let path = directory.join("node");
    fs::write(&path, "#!/bin/sh\necho \"{\\\"args\\\": \\\"$*\\\"}\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn node_workers_with_an_inspector_get_a_port_each() {
    let directory = tempfile::tempdir().unwrap();
    let mut probe = Probe::start();
    let exec = fake_node(directory.path());
    let args = ["--inspect=9500", "server.js", "--inspect=no"];
    probe.done(json!({"do": "setup", "exec": exec, "args": args}));
    for port in [9501, 9502] {
        probe.fork();
        let wanted = format!("--inspect=9500 --inspect-port={port} server.js --inspect=no");
        probe.wait("its arguments", |line| line["args"] == wanted);
    }
    probe.done(json!({"do": "setup", "exec": exec, "args": args, "inspect_port": 0}));
    probe.fork();
    let wanted = "--inspect=9500 --inspect-port=0 server.js --inspect=no";
    probe.wait("its arguments", |line| line["args"] == wanted);
    // Without an inspector the arguments are left alone.
    probe.done(json!({"do": "setup", "exec": exec, "args": ["server.js"]}));
    probe.fork();
    probe.wait("its arguments", |line| line["args"] == "server.js");
}

#[test]
fn a_node_worker_inspects_on_the_port_it_was_given() {
    let Some(node) = node::require() else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("url.js");
    let print =
        "console.log(JSON.stringify({url: require('inspector').url()})); process.disconnect()";
    fs::write(&script, print).unwrap();
    let mut probe = Probe::start();
    let port = free_port();
    // The port in `--inspect` is not the one that counts.
    let args = ["--inspect=127.0.0.1:9229", script.to_str().unwrap()];
    probe.done(json!({"do": "setup", "exec": node.path, "args": args, "inspect_port": port}));
    let (worker, _) = probe.fork();
    let line = probe.wait("the inspector's address", |line| line.get("url").is_some());
    let url = line["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("ws://127.0.0.1:{port}/")), "{url}");
    probe.event(worker, "exit");
}

#[test]
fn advanced_serialization_is_refused_clearly() {
    let mut command = command("cluster");
    command
        .env("NODE_CHANNEL_FD", "3")
        .env("NODE_UNIQUE_ID", "1")
        .env("NODE_CHANNEL_SERIALIZATION_MODE", "advanced");
    let output = Process::run(command, LIMIT);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("advanced"), "{}", output.stderr);
}

/// A parent may have left it so; no handler of anybody's stands in for the disposition here.
#[test]
fn an_end_is_told_truly_where_ended_children_were_ignored() {
    let mut probe = Probe::start_with(|command| {
        // Not `trap`: a dash that ignores SIGCHLD does not pass that on.
        let mut ignoring = Command::new("env");
        ignoring.arg("--ignore-signal=CHLD");
        ignoring.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => ignoring.env(name, value),
                None => ignoring.env_remove(name),
            };
        }
        *command = ignoring;
    });
    probe.done(json!({"do": "setup", "exec": "sh", "args": ["-c", "exit 3"]}));
    let (worker, _) = probe.fork();
    assert_eq!(probe.event(worker, "exit")["code"], 3);
}
