//! `phalanx.toml`: one app of it, what a reload takes over of it, and that a wrong one disturbs nothing.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use phalanx_testkit::{LIMIT, Process, Signal};
use serde_json::Value;
use support::{PHALANX, directory, expect_refused, fixture, phalanx};

/// A directory with this file in it, and an empty one for sockets.
fn with_file(text: &str) -> tempfile::TempDir {
    let place = directory();
    fs::write(place.path().join("phalanx.toml"), text).unwrap();
    fs::create_dir(place.path().join("deep")).unwrap();
    fs::create_dir(place.path().join("run")).unwrap();
    place
}

fn verb(place: &Path, words: &[&str]) -> Command {
    let mut command = phalanx(&place.join("run"), words);
    command
        .current_dir(place.join("deep"))
        .env_remove("PHALANX_PROFILE");
    command
}

fn ask(place: &Path, words: &[&str]) -> phalanx_testkit::process::Output {
    Process::run(verb(place, words), LIMIT)
}

/// A server that says the variable ANSWER, on a free port.
fn server() -> String {
    format!("script = {:?}\nworkers = 2\n", fixture("http.js"))
}

fn file_of(answer: &str, more: &str) -> String {
    format!(
        "[app.web]\n{}{more}\n[app.web.env]\nANSWER = \"{answer}\"\n",
        server()
    )
}

fn environment_of(pid: u64) -> String {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
    String::from_utf8_lossy(&text).replace('\0', "\n")
}

fn status(place: &Path) -> Value {
    let output = ask(place, &["status", "--name", "web", "--json"]).expect_success();
    serde_json::from_str(&output.stdout).unwrap()
}

fn pids(place: &Path) -> Vec<u64> {
    let status = status(place);
    let workers = status["workers"].as_array().unwrap().iter();
    workers
        .map(|worker| worker["pid"].as_u64().unwrap())
        .collect()
}

fn expect_answer(place: &Path, answer: &str) {
    for worker in status(place)["workers"].as_array().unwrap() {
        let environment = environment_of(worker["pid"].as_u64().unwrap());
        let wanted = format!("ANSWER={answer}");
        // What else is there is not for a log.
        assert!(environment.lines().any(|line| line == wanted), "{wanted}");
    }
}

/// An app of the file, whose workers say `one`.
fn started() -> (tempfile::TempDir, PathBuf, Process) {
    let place = with_file(&file_of("one", ""));
    let file = place.path().join("phalanx.toml");
    let run = Process::start(verb(place.path(), &["run", "web"]));
    run.wait_for_line("ready: 2 of 2", LIMIT);
    expect_answer(place.path(), "one");
    (place, file, run)
}

#[test]
fn a_reload_takes_over_the_file() {
    let (place, file, run) = started();
    let nothing = ask(place.path(), &["diff"]).expect_success();
    assert_eq!(nothing.stdout, "web: nothing differs\n");

    // What can be applied is applied, and what cannot is named.
    fs::write(
        &file,
        file_of("two", "drain-timeout = \"9s\"\ndispatch = \"handoff\"\n"),
    )
    .unwrap();
    let shown = ask(place.path(), &["diff"]).expect_success().stdout;
    for line in [
        "web: dispatch: (nothing) -> handoff  (needs a stop and a start)\n",
        "web: drain-timeout: (nothing) -> 9s\n",
        "web: env.ANSWER: (not shown) -> (not shown)\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let reloaded = ask(place.path(), &["reload", "web"]).expect_success();
    assert!(
        reloaded
            .stderr
            .contains("not applied without a stop and a start: dispatch"),
        "{}",
        reloaded.stderr
    );
    expect_answer(place.path(), "two");
    let left = ask(place.path(), &["diff"]).expect_success().stdout;
    assert_eq!(
        left,
        "web: dispatch: (nothing) -> handoff  (needs a stop and a start)\n"
    );

    // The number of workers follows the file where the file has changed.
    fs::write(
        &file,
        file_of("three", "").replace("workers = 2", "workers = 3"),
    )
    .unwrap();
    ask(place.path(), &["reload", "web"]).expect_success();
    assert_eq!(status(place.path())["workers"].as_array().unwrap().len(), 3);

    // A rollback brings back what stood before, and that is what differs from the file then.
    ask(place.path(), &["rollback", "--name", "web"]).expect_success();
    expect_answer(place.path(), "two");
    let differs = ask(place.path(), &["diff"]).expect_success().stdout;
    assert!(differs.contains("web: env.ANSWER"), "{differs}");
    ask(place.path(), &["stop", "web"]).expect_success();
    assert!(run.finish(LIMIT).status.success());
}

#[test]
fn a_wrong_file_disturbs_nothing() {
    let (place, file, run) = started();
    // The reload is refused, by the verb and by the signal, and the app goes on.
    let before = pids(place.path());
    fs::write(&file, "[app.web]\nscript = 1\nworkerz = 2\n").unwrap();
    let refused = ask(place.path(), &["reload", "web"]);
    expect_refused(
        &refused,
        78,
        &["script is a number", "did you mean workers?"],
    );
    run.signal(Signal::HUP);
    run.wait_for_line("HUP: ", LIMIT);
    assert_eq!(pids(place.path()), before);
    expect_refused(&ask(place.path(), &["diff"]), 78, &["phalanx.toml:2:10"]);
    // What is no file keeps nobody waiting.
    fs::remove_file(&file).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RUSR).unwrap();
    expect_refused(
        &ask(place.path(), &["reload", "web"]),
        78,
        &["it is no file"],
    );
    fs::remove_file(&file).unwrap();
    expect_answer(place.path(), "one");
    ask(place.path(), &["stop", "web"]).expect_success();
    assert!(run.finish(LIMIT).status.success());
}

#[test]
fn a_release_that_fails_leaves_what_stood() {
    let place = with_file(&file_of("one", ""));
    let file = place.path().join("phalanx.toml");
    let run = Process::start(verb(place.path(), &["run", "web"]));
    run.wait_for_line("ready: 2 of 2", LIMIT);
    let crashes = file_of("two", "").replace("http.js", "exits-at-once.js");
    fs::write(&file, &crashes).unwrap();
    expect_refused(
        &ask(place.path(), &["reload", "web"]),
        1,
        &["was not reloaded"],
    );
    expect_answer(place.path(), "one");
    // A worker that is started now is one of the release that stands.
    ask(place.path(), &["scale", "--name", "web", "3"]).expect_success();
    expect_answer(place.path(), "one");
    let differs = ask(place.path(), &["diff"]).expect_success().stdout;
    assert!(differs.contains("web: command: "), "{differs}");
    run.signal(Signal::TERM);
    assert!(run.finish(LIMIT).status.success());
}

#[test]
fn what_is_typed_comes_before_what_the_file_says() {
    let text = file_of("one", "max-surge = 2\n");
    let place = with_file(&format!(
        "{text}[profile.p.app.web.env]\nANSWER = \"profile\"\n"
    ));
    let words = ["run", "-n", "1", "--profile", "p", "web", "0"];
    let run = Process::start(verb(place.path(), &words));
    run.wait_for_line("ready: 1 of 1", LIMIT);
    expect_answer(place.path(), "profile");
    let pid = status(place.path())["workers"][0]["pid"].as_u64().unwrap();
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(
        words.ends_with(b".js\x000\0"),
        "{}",
        String::from_utf8_lossy(&words)
    );
    // What was typed stays what it was, through reloads.
    ask(place.path(), &["reload", "web"]).expect_success();
    assert_eq!(status(place.path())["workers"].as_array().unwrap().len(), 1);
    run.signal(Signal::TERM);
    assert!(run.finish(LIMIT).status.success());
}

#[test]
fn a_file_is_no_obstacle_to_running_a_program() {
    let place = with_file("[app.web]\nscript = \n");
    for words in [
        &["run", "--", "web"][..],
        &["run", "no-such-program"],
        &["run", "missing.js"],
    ] {
        expect_refused(&ask(place.path(), words), 127, &[]);
    }
    expect_refused(
        &ask(place.path(), &["run", "web"]),
        78,
        &["phalanx.toml:2:"],
    );
    let path = place.path().join("phalanx.toml").display().to_string();
    expect_refused(
        &ask(place.path(), &["run", "--config", &path, "other"]),
        78,
        &[":2:"],
    );
}

#[test]
fn a_word_that_is_neither_program_nor_app_is_told_which_apps_there_are() {
    const NEITHER: &str = "\"no-such\" not found; nor is it an app: ";
    const WRONG: i32 = 78;
    let apps = "[app.web]\n[app.api]\n[profile.production.app.shop]\ncommand = [\"cat\"]\n";
    let place = with_file(apps);
    let path = place.path().join("phalanx.toml").display().to_string();
    let run = |words: &[&str]| ask(place.path(), &[&["run"], words].concat());
    let has = format!("{path} has api, shop, web");
    expect_refused(&run(&["no-such"]), 127, &[NEITHER, &has]);
    // Where no app can be meant, none is spoken of.
    let words: [&[&str]; 3] = [&["--", "no-such"], &["./no-such"], &["no-such.js"]];
    for words in words {
        let refused = run(words);
        expect_refused(&refused, 127, &["no-such"]);
        assert!(!refused.stderr.contains("app"), "{refused:?}");
    }
    fs::write(
        &path,
        "[app.web]\ncommand = [\"cat\"]\n[profile.production.app.shop]\n",
    )
    .unwrap();
    let named = run(&["--config", &path, "no-such"]);
    expect_refused(&named, WRONG, &["no app no-such: it has shop, web"]);
    expect_refused(&run(&["shop"]), WRONG, &["shop only in another profile"]);
    fs::write(&path, "").unwrap();
    let has = format!("{path} has none");
    expect_refused(&run(&["no-such"]), 127, &[NEITHER, &has]);
    fs::remove_file(&path).unwrap();
    expect_refused(&run(&["no-such"]), 127, &[NEITHER, "no phalanx.toml in"]);
}

#[test]
fn a_file_that_somebody_else_left_above_is_not_taken() {
    const STRANGER: u32 = 54_321;
    let place = with_file("[app.web]\ncommand = [\"cat\"]\n");
    let file = place.path().join("phalanx.toml");
    if std::os::unix::fs::chown(&file, Some(STRANGER), None).is_err() {
        assert!(std::env::var_os("CI").is_none(), "root is needed");
        println!("NOT RUN: only root can give a file away");
        return;
    }
    expect_refused(
        &ask(place.path(), &["check"]),
        78,
        &["belongs to the user with id 54321", "--config"],
    );
    // Named, or beside where the user is, it is meant.
    ask(place.path(), &["check", "--config", "../phalanx.toml"]).expect_success();
    let mut here = verb(place.path(), &["check"]);
    here.current_dir(place.path());
    Process::run(here, LIMIT).expect_success();
    // The directory of its owner is no strange place for it.
    std::os::unix::fs::chown(place.path().join("deep"), Some(STRANGER), None).unwrap();
    ask(place.path(), &["check"]).expect_success();
}

#[test]
fn check_tells_everything_that_is_wrong_and_starts_nothing() {
    let place = with_file(
        "[app.web]\nscript = \"missing.js\"\nweights = \"1,2\"\n[app.other]\ncommand = [\"cat\"]\nmax-surge = 0\n",
    );
    let refused = ask(place.path(), &["check"]);
    expect_refused(
        &refused,
        78,
        &[
            "phalanx.toml:4:6: the app other: ",
            "phalanx.toml:1:6: the app web: --weights",
        ],
    );
    fs::write(
        place.path().join("phalanx.toml"),
        "[app.web]\nscript = \"missing.js\"\n",
    )
    .unwrap();
    expect_refused(
        &ask(place.path(), &["check"]),
        78,
        &["phalanx.toml:2:10: the app web: ", "missing.js"],
    );
    let json = ask(place.path(), &["check", "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json[0]["line"], &json[0]["column"]),
        (&2.into(), &10.into())
    );
    fs::write(
        place.path().join("phalanx.toml"),
        "[app.web]\ncommand = [\"cat\"]\n",
    )
    .unwrap();
    let sound = ask(place.path(), &["check"]).expect_success();
    assert!(
        sound
            .stdout
            .ends_with("phalanx.toml: 1 app, nothing is wrong\n"),
        "{}",
        sound.stdout
    );
}

#[test]
fn check_refuses_a_file_without_apps_as_up_does() {
    let place = with_file("# nothing yet\n");
    expect_refused(&ask(place.path(), &["up"]), 78, &["has no apps"]);
    expect_refused(
        &ask(place.path(), &["check"]),
        78,
        &["phalanx.toml:1:1: it has no apps: write [app.NAME]"],
    );
}

#[test]
fn run_and_up_tell_each_error_of_the_file_in_a_line_of_its_own() {
    let place = with_file("[app.web]\ncommand = [\"cat\"]\nworkerz = 2\nweightz = \"1\"\n");
    for verb in [&["run", "web"][..], &["up"]] {
        let refused = ask(place.path(), verb);
        expect_refused(&refused, 78, &["toml:3:1: ", "toml:4:1: "]);
        let lines: Vec<_> = refused.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", refused.stderr);
        for line in lines {
            assert!(line.starts_with("phalanx: "), "{line}");
            assert!(!line.contains("\\n"), "{line}");
        }
    }
}

#[test]
fn init_writes_a_file_that_names_the_schema_and_is_sound() {
    let place = directory();
    let init = |words: &[&str]| {
        let mut command = Command::new(PHALANX);
        command.arg("init").args(words).current_dir(place.path());
        Process::run(command, LIMIT)
    };
    fs::write(place.path().join("app.js"), "").unwrap();
    init(&[]).expect_success();
    let text = fs::read_to_string(place.path().join("phalanx.toml")).unwrap();
    assert!(
        text.starts_with("#:schema https://") && text.contains("script = \"app.js\""),
        "{text}"
    );
    let mut check = phalanx(place.path(), &["check"]);
    check.current_dir(place.path());
    Process::run(check, LIMIT).expect_success();
    expect_refused(&init(&[]), 73, &["is there already"]);
    let printed = init(&["--print", "./server", "--flag"])
        .expect_success()
        .stdout;
    assert!(
        printed.contains("command = [\"./server\", \"--flag\"]"),
        "{printed}"
    );
}

#[test]
fn an_ecosystem_is_read_by_node_and_what_comes_of_it_is_sound() {
    let place = directory();
    let text = "console.log('noise'); module.exports = { apps: [{ name: 'api', script: 'app.js', instances: 2, \
        max_restarts: 3, env: { A: 'b' }, env_production: { A: 'c' } }] }";
    fs::write(place.path().join("ecosystem.config.js"), text).unwrap();
    fs::write(place.path().join("app.js"), "").unwrap();
    let run = |words: &[&str]| {
        let mut command = phalanx(place.path(), words);
        command.current_dir(place.path());
        Process::run(command, LIMIT)
    };
    let imported = run(&["import", "ecosystem.config.js"]).expect_success();
    assert!(
        imported.stdout.contains("# max_restarts: "),
        "{}",
        imported.stdout
    );
    assert!(
        imported
            .stderr
            .contains("ecosystem.config.js: not taken over, with the reasons in comments: 1"),
        "{}",
        imported.stderr
    );
    fs::write(place.path().join("phalanx.toml"), imported.stdout).unwrap();
    run(&["check"]).expect_success();
    run(&["check", "--profile", "production"]).expect_success();
    fs::write(
        place.path().join("broken.config.js"),
        "throw new Error('no')",
    )
    .unwrap();
    expect_refused(
        &run(&["import", "broken.config.js"]),
        1,
        &["cannot read broken.config.js with Node", "no"],
    );
    expect_refused(&run(&["import", "ecosystem.yml"]), 64, &["it is none of"]);
}
