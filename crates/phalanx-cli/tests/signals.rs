//! What each signal does, at any moment.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::{app, connect, wait_report};
use phalanx_testkit::app::{is_settled, pids};
use phalanx_testkit::wait::{self, now};
use phalanx_testkit::{App, LIMIT, Process, Signal};

const PHALANX: &str = env!("CARGO_BIN_EXE_phalanx");

/// An app whose workers tell what they know of themselves.
fn plain(workers: usize) -> App {
    app().workers(workers).script("http.js").start_ready()
}

#[test]
fn term_lets_workers_finish_and_a_second_term_changes_nothing() {
    let mut app = app().workers(2).script("slow.js").start();
    let target = app.address();
    let mut connection = connect(&target).unwrap();
    cluster::ask(connection.as_mut(), "/?ms=800&tag=last").unwrap();
    app.wait_for_line("in service last", LIMIT);
    let events = app.events();
    app.signal(Signal::TERM);
    wait_report(&events, "stop_started");
    app.signal(Signal::TERM);
    assert!(cluster::answer(connection.as_mut()).is_ok());
    assert!(app.wait_exit(LIMIT).success());
    app.wait_family_gone(LIMIT);
}

#[test]
fn int_is_graceful_and_twice_it_is_fast() {
    for (signals, is_answered) in [(1, true), (2, false)] {
        let mut app = app().workers(1).script("slow.js").start();
        let target = app.address();
        let mut connection = connect(&target).unwrap();
        let time = if is_answered { 800 } else { 60_000 };
        cluster::ask(connection.as_mut(), &format!("/?ms={time}&tag=last")).unwrap();
        app.wait_for_line("in service last", LIMIT);
        let events = app.events();
        app.signal(Signal::INT);
        wait_report(&events, "stop_started");
        for _ in 1..signals {
            app.signal(Signal::INT);
        }
        assert_eq!(cluster::answer(connection.as_mut()).is_ok(), is_answered);
        assert!(app.wait_exit(LIMIT).success());
        app.wait_family_gone(LIMIT);
    }
}

#[test]
fn quit_is_fast() {
    let mut app = app().workers(2).script("slow.js").start();
    let target = app.address();
    let mut connection = connect(&target).unwrap();
    cluster::ask(connection.as_mut(), "/?ms=60000&tag=last").unwrap();
    app.wait_for_line("in service last", LIMIT);
    app.signal(Signal::QUIT);
    assert!(app.wait_exit(LIMIT).success());
    app.wait_family_gone(LIMIT);
    assert!(cluster::answer(connection.as_mut()).is_err());
}

#[test]
fn the_verb_stop_waits_for_the_end_and_no_longer() {
    // The primary gives a client two seconds to take its answer: this one has to take it.
    let by_signal = || {
        let mut app = plain(2);
        let began = now();
        assert!(app.stop().success());
        began.elapsed()
    };
    let by_verb = || {
        let mut app = plain(2);
        let began = now();
        app.verb(["stop"]).expect_success();
        let took = began.elapsed();
        assert!(app.try_exit().is_some_and(|status| status.success()));
        took
    };
    // The machine may have no time for it once.
    let is_quick = || by_verb() < by_signal() + Duration::from_millis(1500);
    assert!((0..5).any(|_| is_quick()));
}

#[test]
fn hup_and_usr2_reload() {
    let mut app = plain(2);
    for (number, signal) in [(2, Signal::HUP), (3, Signal::USR2)] {
        let before = app.worker_pids();
        let primary = app.pid();
        app.signal(signal);
        let status = app.wait_status(LIMIT, |status| {
            is_settled(status) && status["generation"] == number
        });
        assert!(
            pids(&status).iter().all(|pid| !before.contains(pid)),
            "{status}"
        );
        assert_eq!(status["pid"], primary);
    }
}

#[test]
fn ttin_adds_a_worker_and_ttou_removes_one() {
    let mut app = plain(2);
    let kept = app.worker_pids();
    app.signal(Signal::TTIN);
    app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 3);
    app.signal(Signal::TTOU);
    let status = app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 2);
    assert_eq!(pids(&status), kept);
}

#[test]
fn a_signal_during_the_start_is_obeyed() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut app = app().workers(4).script("http.js").start();
        app.status();
        app.signal(signal);
        app.wait_exit(LIMIT);
        app.wait_family_gone(LIMIT);
    }
    for signal in [Signal::HUP, Signal::USR2] {
        let mut app = app().workers(2).script("http.js").start();
        app.status();
        app.signal(signal);
        app.wait_status(LIMIT, |status| {
            is_settled(status) && status["generation"] == 2
        });
    }
}

#[test]
fn no_signal_ends_an_app_by_accident() {
    let mut app = plain(1);
    let before = app.worker_pids();
    // By kill(1), which knows the real-time signals too.
    let send = |name: &str| {
        let pid = app.pid().to_string();
        let number = name
            .parse::<phalanx_sys::signal::Signal>()
            .unwrap()
            .number();
        let sent = Command::new("kill")
            .arg(format!("-{number}"))
            .arg(pid)
            .status();
        assert!(sent.unwrap().success());
    };
    for name in [
        "SIGALRM",
        "SIGVTALRM",
        "SIGPROF",
        "SIGIO",
        "SIGSTKFLT",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGRTMIN",
        "SIGRTMIN+3",
        "SIGRTMIN+30",
    ] {
        send(name);
        app.wait_for_line(&format!("{name} received and ignored"), LIMIT);
    }
    app.signal(Signal::USR1);
    app.wait_for_line("SIGUSR1 received: log opened anew", LIMIT);
    for name in ["SIGWINCH", "SIGURG", "SIGCONT", "SIGPIPE"] {
        send(name);
    }
    let status = app.try_status().unwrap();
    assert_eq!(pids(&status), before);
    send("SIGPWR");
    assert!(app.wait_exit(LIMIT).success());
}

/// The words that run an app of one worker, which listens on any port.
fn words(directory: &Path) -> Vec<String> {
    let script = phalanx_testkit::fixtures::fixture("http.js");
    let words = [PHALANX, "run", "--name", "one", "--workers", "1"];
    let words = words.map(str::to_owned).into_iter();
    let place = format!("PHALANX_RUNTIME_DIR={}", directory.display());
    let place = ["env".to_owned(), place, "PORT=0".to_owned()];
    let script = script.display().to_string();
    place.into_iter().chain(words).chain([script]).collect()
}

fn wait_for_text(file: &Path, text: &str) {
    let has = || {
        fs::read_to_string(file)
            .ok()
            .filter(|all| all.contains(text))
    };
    wait::eventually(LIMIT, &format!("{text:?} in {}", file.display()), has);
}

#[test]
fn usr1_opens_a_log_anew_that_was_moved_away() {
    let directory = tempfile::tempdir().unwrap();
    let (log, moved) = (directory.path().join("log"), directory.path().join("log.1"));
    let mut shell = Command::new("sh");
    let script = format!("exec \"$@\" >> {} 2>&1", log.display());
    shell
        .args(["-c", &script, "sh"])
        .args(words(directory.path()));
    let mut app = Process::start(shell);
    wait_for_text(&log, "ready: 1 of 1");
    fs::rename(&log, &moved).unwrap();
    app.signal(Signal::USR1);
    wait_for_text(&log, "log opened anew");
    app.signal(Signal::TERM);
    assert!(app.wait_exit(LIMIT).success());
    wait_for_text(&log, "SIGTERM received");
    assert!(!fs::read_to_string(&moved).unwrap().contains("SIGTERM"));
}

/// Runs the words on a terminal of their own, closes it when the file has the text, and exits as they do.
const ON_A_TERMINAL: &str = "
import os, pty, signal, sys, threading
how, log, words = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGHUP, signal.SIG_IGN if how == 'nohup' else signal.SIG_DFL)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.execvp(words[0], words)
print('pid', pid, flush=True)
sys.stdin.readline()
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn the_end_of_the_terminal_stops_the_app_unless_it_is_to_outlive_it() {
    if phalanx_testkit::require("python3").is_none() {
        return;
    }
    for (how, line) in [
        ("plain", "SIGHUP received because the terminal was closed"),
        (
            "nohup",
            "SIGHUP received and ignored: the terminal was closed",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut python = Command::new("python3");
        python.args(["-c", ON_A_TERMINAL, how]).arg(&log);
        python.args(words(directory.path()));
        let mut terminal = Process::start_with_stdin(python);
        let told = terminal.wait_for_line("pid ", LIMIT);
        wait_for_text(&log, "ready: 1 of 1");
        terminal.write_line("close");
        wait_for_text(&log, line);
        if how == "nohup" {
            let pid = told.rsplit(' ').next().unwrap();
            let kill = |signal: &str| Command::new("kill").args([signal, pid]).status().unwrap();
            assert!(kill("-USR2").success());
            wait_for_text(&log, "generation 2 serves");
            assert!(kill("-TERM").success());
        }
        assert!(terminal.wait_exit(LIMIT).success());
        assert!(
            !fs::read_to_string(&log)
                .unwrap()
                .contains("SIGHUP received\n")
        );
    }
}
