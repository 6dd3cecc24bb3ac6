//! Workers that are more than one process: nothing of them outlives its worker, the app, or a primary that is killed.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use cluster::{PHALANX, app, free_port, get, pid_in};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::{
    App, LIMIT, Process, Signal, Target, fixtures, procs, report_missing, require, wait,
};

/// `sh -c TEXT`, in which `SERVER` is one that binds the port itself; nothing without Python.
fn shell(text: &str, port: u16) -> Option<AppBuilder> {
    require("python3")?;
    let script = fixtures::fixture("programs/binds.py");
    let server = format!("python3 {} plain {port}", script.display());
    let text = text.replace("SERVER", &server);
    Some(in_haste().command(["sh", "-c"]).arg(text))
}

fn forks(way: &str, port: u16) -> Option<AppBuilder> {
    require("python3")?;
    let script = fixtures::fixture("programs/forks.py");
    let command = in_haste().command(["python3"]).arg(script);
    Some(command.arg(way).arg(port.to_string()))
}

/// Without cgroups: here the other signs have to tell who belongs to a worker.
fn in_haste() -> AppBuilder {
    app().workers(2).options([
        "--cgroup",
        "off",
        "--drain-timeout",
        "2s",
        "--kill-timeout",
        "1s",
        "--settle-timeout",
        "1s",
    ])
}

/// Kills the primary: soon nothing that descends from it lives, and the port is free.
#[track_caller]
fn expect_nothing_left_of_a_killed_primary(mut app: App, port: u16) {
    let descendants = procs::descendants(app.pid());
    assert!(descendants.len() >= 4, "{descendants:?}");
    app.signal(Signal::KILL);
    app.wait_exit(LIMIT);
    for pid in descendants {
        assert!(procs::wait_gone(pid, LIMIT), "{pid} lives on");
    }
    TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn a_shell_and_its_server_end_with_a_primary_that_is_killed() {
    let port = free_port();
    if let Some(builder) = shell("SERVER & wait", port) {
        expect_nothing_left_of_a_killed_primary(builder.start_ready(), port);
    }
}

#[test]
fn a_server_in_a_session_of_its_own_ends_with_a_primary_that_is_killed() {
    let port = free_port();
    if let Some(builder) = shell("trap '' TERM; setsid SERVER & wait", port) {
        expect_nothing_left_of_a_killed_primary(builder.start_ready(), port);
    }
}

#[test]
fn a_worker_that_changes_its_user_ends_with_a_primary_that_is_killed() {
    if require("setpriv").is_none() || !phalanx_sys::identity::is_root() {
        return;
    }
    let port = free_port();
    // The first change makes the kernel forget whom it is to end with; the server is a child of the second.
    let text = "exec setpriv --clear-groups --reuid 65534 sh -c 'SERVER & wait'";
    if let Some(builder) = shell(text, port) {
        expect_nothing_left_of_a_killed_primary(builder.start_ready(), port);
    }
}

#[test]
fn a_master_and_its_workers_end_with_a_primary_that_is_killed() {
    let port = free_port();
    if let Some(builder) = forks("prefork", port) {
        expect_nothing_left_of_a_killed_primary(builder.start_ready(), port);
    }
}

/// No variable, group or session tells whose it is.
/// Starts a keeper as a primary does, but for one stop before it runs, tells its number and is gone.
const SHORT_LIVED_PRIMARY: &str = r#"
import os, subprocess, sys
os.dup2(os.pidfd_open(os.getpid()), 4)
env = {"PHALANX_KEEPER": "PHALANX_TREE=of-nobody"}
words = ["sh", "-c", 'kill -STOP $$; exec "$0"', sys.argv[1]]
nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
keeper = subprocess.Popen(words, stdin=subprocess.PIPE, env=env, pass_fds=[4], start_new_session=True, **nowhere)
os.waitpid(keeper.pid, os.WUNTRACED)
print(keeper.pid, flush=True)
"#;

#[test]
fn a_keeper_whose_primary_is_gone_before_it_looks_ends() {
    if require("python3").is_none() {
        return;
    }
    let mut primary = Command::new("python3");
    primary.args(["-c", SHORT_LIVED_PRIMARY, PHALANX]);
    let told = Process::run(primary, LIMIT).expect_success();
    let keeper = told.stdout.trim().parse().unwrap();
    procs::signal(keeper, Signal::CONT);
    let is_gone = procs::wait_gone(keeper, LIMIT);
    procs::signal(keeper, Signal::KILL);
    assert!(is_gone, "the keeper waits for whoever has adopted it");
}

#[test]
fn a_server_without_an_environment_ends_with_the_app() {
    let port = free_port();
    let text = "env -i PATH=\"$PATH\" setsid SERVER & wait";
    let Some(builder) = shell(text, port) else {
        return;
    };
    let mut app = builder.start_ready();
    let descendants = procs::descendants(app.pid());
    for shell in app.worker_pids() {
        assert!(app.kill_worker(shell));
    }
    assert!(app.stop().success());
    for pid in descendants {
        assert!(procs::wait_gone(pid, LIMIT), "{pid} lives on");
    }
}

/// The worker is the shell; its server deafly lives in a session of its own.
#[test]
fn a_server_ends_with_its_shell_before_there_is_another() {
    let port = free_port();
    let Some(builder) = shell("trap '' TERM; setsid SERVER & wait", port) else {
        return;
    };
    let mut app = builder.start_ready();
    let shell = app.worker_pids()[0];
    let servers = procs::descendants(shell);
    assert_eq!(servers.len(), 1);
    assert!(app.kill_worker(shell));
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().unwrap();
        workers.iter().all(|worker| worker["pid"] != shell) && workers.len() == 2
    });
    assert!(!procs::is_alive(servers[0]), "it serves without its worker");
    app.wait_ready(LIMIT);
    assert!(app.stop().success());
}

#[test]
fn the_workers_of_a_killed_master_answer_no_more() {
    let port = free_port();
    let Some(builder) = forks("prefork", port) else {
        return;
    };
    let mut app = builder.start_ready();
    let target = app.address();
    let master = app.worker_pids()[0];
    let orphans = procs::descendants(master);
    assert!(app.kill_worker(master));
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().unwrap();
        workers.iter().all(|worker| worker["pid"] != master)
    });
    app.wait_ready(LIMIT);
    for _ in 0..20 {
        let answered = pid_in(&get(&target, "/"));
        assert!(!orphans.contains(&answered), "{answered} is an orphan");
    }
    assert!(app.stop().success());
}

#[test]
fn a_reload_and_a_stop_leave_nothing_of_a_master_with_deaf_workers() {
    let port = free_port();
    let Some(builder) = forks("prefork", port) else {
        return;
    };
    let mut app = builder.start_ready();
    // A master listens before it forks.
    let before = wait::eventually(LIMIT, "all servers", || {
        let masters = app.worker_pids().into_iter();
        let servers: Vec<_> = masters.flat_map(procs::descendants).collect();
        (servers.len() == 4).then_some(servers)
    });
    app.verb(["reload"]).expect_success();
    for pid in before {
        assert!(procs::wait_gone(pid, LIMIT), "{pid} outlives its release");
    }
    app.wait_ready(LIMIT);
    assert!(app.stop().success());
}

#[test]
fn nothing_is_left_of_a_program_that_daemonizes() {
    let Some(builder) = forks("daemon", free_port()) else {
        return;
    };
    // After the quiet time it is gone; without one it is ready at once, or is gone before that is noticed.
    let options = ["--ready-quiet", "0s", "--on-boot-failure", "retry"];
    let mut app = builder.options(options).start();
    app.wait_for_line("it has left processes behind", LIMIT);
    app.wait_for_line("after 3 failures", LIMIT);
    let of_two_starts = 2 * 2 + 1;
    // A start that is just under way has more for a moment; what every start left behind would stay.
    wait::eventually(LIMIT, "few processes", || {
        (app.family().len() <= of_two_starts).then_some(())
    });
    app.signal(Signal::TERM);
    app.wait_exit(LIMIT);
    app.wait_family_gone(LIMIT);
}

/// Whoever enters a container, as `docker exec` does, is in a session of the host, which has no number inside.
#[test]
fn what_a_worker_left_goes_with_it_in_a_session_of_another_namespace() {
    if require("unshare").is_none() || !phalanx_sys::identity::is_root() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args([PHALANX, "run", "-n", "1", "--adopt", "none", "--"]);
    command.args(["sh", "-c", "sleep 1000 & wait"]);
    let run = Process::start(command);
    let named = |name: &str| {
        let mut all = procs::descendants(run.pid()).into_iter();
        all.find(|pid| {
            let own = fs::read_to_string(format!("/proc/{pid}/comm"));
            own.is_ok_and(|own| own.trim_end() == name)
        })
    };
    let left = wait::eventually(LIMIT, "what the worker has started", || named("sleep"));
    let worker = wait::eventually(LIMIT, "the worker", || named("sh"));
    procs::signal(worker, Signal::KILL);
    assert!(procs::wait_gone(left, LIMIT), "{left} lives on");
}

/// One worker in a cgroup of its own, ready, and its address; nothing where there can be no cgroup.
fn one_that_escapes(port: u16) -> Option<(App, Target)> {
    require("python3")?;
    let script = fixtures::fixture("programs/forks.py");
    let command = app().workers(1).options(["--kill-timeout", "1s"]);
    let command = command.command(["python3"]).arg(script);
    let mut app = command.arg("escape").arg(port.to_string()).start_ready();
    let target = app.address();
    cgroup_of(&mut app).map(|_| (app, target))
}

/// Where the workers' cgroups are.
fn cgroup_of(app: &mut App) -> Option<PathBuf> {
    let primary = app.status()["primary"].clone();
    let path = primary["cgroup"].as_str().map(PathBuf::from);
    if path.is_none() {
        report_missing(&format!("a cgroup of its own ({})", primary["no_cgroup"]));
    }
    path
}

/// Neither a variable, a group, a session, a parent nor a look at who descends from the worker tells whose it is.
#[test]
fn what_has_left_everything_but_its_cgroup_ends_with_a_primary_that_is_killed() {
    let port = free_port();
    let Some((mut app, target)) = one_that_escapes(port) else {
        return;
    };
    let root = cgroup_of(&mut app).unwrap();
    let escaped = pid_in(&get(&target, "/escape"));
    assert!(procs::is_alive(escaped));
    app.signal(Signal::KILL);
    app.wait_exit(LIMIT);
    assert!(procs::wait_gone(escaped, LIMIT), "{escaped} lives on");
    wait::eventually(LIMIT, "no cgroup left", || (!root.exists()).then_some(()));
    TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn what_has_left_everything_but_its_cgroup_ends_with_its_worker() {
    let Some((mut app, target)) = one_that_escapes(free_port()) else {
        return;
    };
    let root = cgroup_of(&mut app).unwrap();
    let worker = app.worker_pids()[0];
    let escaped = pid_in(&get(&target, "/escape"));
    assert!(app.kill_worker(worker));
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().unwrap();
        workers.iter().any(|one| one["pid"] != worker)
    });
    assert!(!procs::is_alive(escaped), "it outlives its worker");
    app.wait_ready(LIMIT);
    let left = fs::read_dir(&root).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.contains(&"worker-2".into()) && !left.contains(&"worker-1".into()));
    let escaped = pid_in(&get(&target, "/escape"));
    assert!(app.stop().success());
    assert!(!procs::is_alive(escaped), "it outlives its app");
    assert!(!root.exists());
}

#[test]
fn cgroups_of_primaries_that_are_gone_are_removed_and_others_stay() {
    let Some((mut first, _)) = one_that_escapes(free_port()) else {
        return;
    };
    let root = cgroup_of(&mut first).unwrap();
    let stale = root.with_file_name("phalanx-of-nobody");
    fs::create_dir_all(stale.join("worker-1")).unwrap();
    let (mut second, _) = one_that_escapes(free_port()).unwrap();
    assert!(root.exists() && !stale.exists());
    assert!(first.stop().success() && second.stop().success());
}

#[test]
fn a_primary_that_may_make_no_cgroup_says_why_and_goes_without() {
    if !phalanx_sys::identity::is_root() {
        return report_missing("root, to become somebody else");
    }
    let mut app = app().uid(65534).script("http.js").start_ready();
    let primary = app.status()["primary"].clone();
    assert!(primary["cgroup"].is_null(), "{primary}");
    let reason = primary["no_cgroup"].as_str().unwrap();
    assert!(
        reason.contains("ermission denied") || reason.contains("cgroup"),
        "{reason}"
    );
    assert!(app.stop().success());
}
