//! Dispatch in the kernel with exactly the capabilities that docs/dispatch.md names, and what is told when one of them is missing.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;
use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cluster::burst::can_steer;
use phalanx_testkit::{LIMIT, Process, Signal, missing, require};
use support::PHALANX;

/// What docs/dispatch.md names, in the words of setpriv(1).
const DOCUMENTED: [&str; 2] = ["bpf", "perfmon"];
/// Whoever has no other rights.
const NOBODY: &str = "65534";

/// An app of a user with these capabilities and no others.
fn app(capabilities: &[&str]) -> (tempfile::TempDir, Process) {
    let directory = support::directory();
    let place = directory.path().join("run");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&place, Some(65_534), Some(65_534)).unwrap();
    let set: Vec<String> = capabilities.iter().map(|one| format!("+{one}")).collect();
    let set = if set.is_empty() {
        "-all".to_owned()
    } else {
        set.join(",")
    };
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .args([
            "--inh-caps",
            &set,
            "--ambient-caps",
            &set,
            "--bounding-set",
            &set,
        ])
        .args([PHALANX, "run", "--name", "app", "-n", "1", "--"])
        .args(["python3", "-c", SERVER])
        .env("PHALANX_RUNTIME_DIR", &place)
        .current_dir("/");
    (directory, Process::start(command))
}

const SERVER: &str = "
import http.server
http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).serve_forever()
";

#[test]
fn the_documented_capabilities_are_enough_and_each_is_named_when_it_is_missing() {
    if require("setpriv").is_none() || require("python3").is_none() || !can_steer() {
        return;
    }
    if !can_be_executed_by_nobody() {
        missing!("a build directory that every user can reach");
        return;
    }
    let (_directory, mut enough) = app(&DOCUMENTED);
    enough.wait_for_line(
        "dispatch: kernel, policy: round-robin (eBPF program loaded)",
        LIMIT,
    );
    enough.signal(Signal::TERM);
    assert!(enough.wait_exit(LIMIT).success());
    for without in DOCUMENTED {
        let others: Vec<_> = DOCUMENTED
            .into_iter()
            .filter(|one| *one != without)
            .collect();
        let (_directory, mut fewer) = app(&others);
        let wanted = format!("it needs CAP_{}: run as root", without.to_uppercase());
        let line = fewer.wait_for_line(&wanted, LIMIT);
        assert!(line.contains("os error"), "{line}");
        fewer.signal(Signal::TERM);
        assert!(fewer.wait_exit(LIMIT).success());
    }
}

#[test]
fn a_worker_does_not_inherit_what_the_primary_needs_for_the_kernel() {
    if require("setpriv").is_none() || require("python3").is_none() {
        return;
    }
    if phalanx_sys::identity::effective_uid() != 0 || !can_be_executed_by_nobody() {
        missing!("root, and a build directory that every user can reach");
        return;
    }
    let (directory, mut app) = app(&["bpf", "perfmon", "net_bind_service"]);
    app.wait_for_line("ready: 1 of 1", LIMIT);
    let mut ask = Command::new(PHALANX);
    ask.args(["status", "--name", "app", "--json"])
        .env("PHALANX_RUNTIME_DIR", directory.path().join("run"));
    let status = Process::run(ask, LIMIT).expect_success().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let worker = status["workers"][0]["pid"].as_u64().unwrap();
    // Bit 10 of linux/capability.h: CAP_NET_BIND_SERVICE, which servers need themselves.
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(capabilities(worker, set), 1 << 10, "{set}");
    }
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
}

fn capabilities(pid: u64, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

fn can_be_executed_by_nobody() -> bool {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
        PHALANX,
        "--version",
    ]);
    command.output().is_ok_and(|output| output.status.success())
}
