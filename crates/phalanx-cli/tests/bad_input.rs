//! What must be refused is refused with the status that `docs/exit-codes.md` names and with words that
//! say what to do.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use phalanx_testkit::{LIMIT, Process};
use support::{expect_refused, fixture, phalanx, run_alone};

#[test]
fn an_unknown_option_is_a_usage_error() {
    let output = run_alone(&["run", "--kernel", "server.js"]);
    expect_refused(
        &output,
        64,
        &["unexpected argument '--kernel'", "Usage: phalanx run"],
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn wrong_values_are_usage_errors_that_name_the_option() {
    for (words, part) in [
        (
            &["run", "-n", "0", "cat"][..],
            "use a number from 1 to 4096, a range such as 2..8, or auto",
        ),
        (&["run", "--ready-timeout", "0s", "cat"], "more than zero"),
        (
            &["run", "--drain-timeout", "30", "cat"],
            "a number and a unit",
        ),
        (
            &["run", "--policy", "fair", "cat"],
            "possible values: round-robin, weighted, least-connections, fastest, power-of-two",
        ),
        (
            &["run", "--weights", "3,1", "cat"],
            "--weights are for --policy weighted",
        ),
        (
            &["policy", "random", "--weights", "3,1"],
            "--weights are for the policy weighted",
        ),
        (&["policy", "weighted", "--weights", "3,x"], "3,x"),
        (
            &["run", "--max-surge", "0", "cat"],
            "no worker could ever be replaced",
        ),
        (&["run", "--name", "a/b", "cat"], "letters, digits"),
        (
            &["run", "--serialization", "xml", "cat"],
            "use json or advanced",
        ),
        (&["run", "--control", "pid-file", "cat"], "--pid-file"),
        (
            &["run", "--stop-signal", "SIGNOPE", "cat"],
            "is not a signal",
        ),
        (
            &["run", "--stop-signal", "KILL", "cat"],
            "TERM, QUIT or INT",
        ),
        (
            &["run", "--adopt", "force", "cat"],
            "possible values: auto, channel, activation, intercept, none",
        ),
        (&["run", "--bind", "3000", "cat"], "use 127.0.0.1:3000"),
        (&["run", "--bind", "=:3000", "cat"], "no name of a listener"),
        (
            &["run", "--bind", "nowhere.invalid:1", "cat"],
            "is no address",
        ),
        (
            &["run", "--bind", ":1", "--bind", "x=:1", "cat"],
            "given twice",
        ),
        (
            &["run", "--ready", "soon", "--bind", ":1", "cat"],
            "use auto, listen",
        ),
        (
            &["run", "--ready", "http:health", "--bind", ":1", "cat"],
            "http:/PATH",
        ),
        (
            &["run", "--ready", "http:/a b", "--bind", ":1", "cat"],
            "http:/PATH",
        ),
        (
            &["run", "--ready", "http:/", "--bind", "unix:/a", "cat"],
            "a TCP listener",
        ),
        (&["run", "--ready", "exec", "cat"], "add --bind ADDR"),
        (&["run", "--watchdog", "1s", "cat"], "add --bind ADDR"),
        (&["scale", "many"], "4, +1, -1"),
        (&["send", "{greet"], "not JSON"),
        (&["frobnicate"], "there is no command \"frobnicate\""),
    ] {
        expect_refused(&run_alone(words), 64, &[part]);
    }
}

#[test]
fn ways_of_adoption_that_contradict_other_options_are_usage_errors() {
    let cases: &[(&[&str], &str)] = &[
        (&["run", "--adopt", "activation", "cat"], "add --bind ADDR"),
        (
            &["run", "--adopt", "none", "--bind", ":1", "cat"],
            "gives no listeners",
        ),
        (
            &["run", "--dispatch", "handoff", "--bind", ":1", "cat"],
            "needs a worker with a channel",
        ),
        (
            &[
                "run",
                "--adopt",
                "intercept",
                "--dispatch",
                "handoff",
                "cat",
            ],
            "needs a worker with a channel",
        ),
        (
            &["run", "--adopt", "intercept", "--bind", ":1", "cat"],
            "gives no listeners",
        ),
        (&["run", "--publish", "80", "cat"], "[HOST:]PORT:APP_PORT"),
        (
            &["run", "--publish", "host:80:8080", "cat"],
            "[HOST:]PORT:APP_PORT",
        ),
        (
            &["run", "--publish", "80:81", "--publish", "90:81", "cat"],
            "port 81 is published already",
        ),
        (
            &["run", "--bind", ":1", "--publish", "80:81", "cat"],
            "open their listeners themselves",
        ),
    ];
    for (words, part) in cases {
        expect_refused(&run_alone(words), 64, &[part]);
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for words in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let output = run_alone(words).expect_success();
        assert!(output.stdout.contains("phalanx"), "{}", output.stdout);
    }
}

#[test]
fn a_missing_program_or_script_is_not_found() {
    let output = run_alone(&["run", "no-such-program-anywhere"]);
    expect_refused(
        &output,
        127,
        &["phalanx: program \"no-such-program-anywhere\" not found"],
    );
    let output = run_alone(&["run", "/nowhere/server.js"]);
    expect_refused(
        &output,
        127,
        &["cannot run the script /nowhere/server.js", "No such file"],
    );
    let output = run_alone(&["run", "--node", "no-such-node", &fixture("http.js")]);
    expect_refused(&output, 127, &["no-such-node", "--node"]);
}

#[test]
fn a_file_that_is_no_program_is_not_executable() {
    let directory = support::directory();
    let file = directory.path().join("data");
    fs::write(&file, "no program").unwrap();
    let output = run_alone(&["run", file.to_str().unwrap()]);
    expect_refused(&output, 126, &["data is not an executable file"]);
}

#[test]
fn a_directory_that_is_not_there_is_a_usage_error() {
    let output = run_alone(&["run", "--cwd", "/nowhere", "cat"]);
    expect_refused(&output, 64, &["--cwd /nowhere: there is no such directory"]);
}

#[test]
fn a_verb_without_an_app_says_where_it_looked() {
    for words in [
        &["status"][..],
        &["reload"],
        &["scale", "2"],
        &["stop"],
        &["send", "1"],
        &["events"],
    ] {
        expect_refused(
            &run_alone(words),
            69,
            &["no app is running (looked in /tmp/px"],
        );
    }
    let output = run_alone(&["status", "--name", "web"]);
    expect_refused(&output, 69, &["no app named web is running"]);
    let output = run_alone(&["list"]).expect_success();
    assert_eq!(output.stdout.lines().count(), 1, "{}", output.stdout);
}

#[test]
fn a_verb_that_could_mean_several_apps_names_them() {
    let directory = support::directory();
    let start = |name: &str| {
        let words = ["run", "-n", "1", "--name", name, &fixture("http.js")];
        let process = Process::start(phalanx(directory.path(), &words));
        process.wait_for_line("ready: 1 of 1", LIMIT);
        process
    };
    let (_blue, _green) = (start("blue"), start("green"));
    let output = Process::run(phalanx(directory.path(), &["reload"]), LIMIT);
    expect_refused(&output, 69, &["several apps are running: blue, green"]);
    let output = Process::run(phalanx(directory.path(), &["list"]), LIMIT).expect_success();
    assert_eq!(output.stdout.lines().count(), 3, "{}", output.stdout);
    let output = Process::run(
        phalanx(directory.path(), &["status", "--name", "green"]),
        LIMIT,
    );
    assert!(
        output
            .expect_success()
            .stdout
            .starts_with("green: primary ")
    );
}

#[test]
fn a_mistyped_command_is_answered_with_the_one_that_was_meant() {
    for (word, part) in [
        ("start", "`phalanx run server.js`"),
        ("relaod", "did you mean `phalanx reload`?"),
        ("stauts", "did you mean `phalanx status`?"),
        ("flush", "`run --log-file`"),
        ("dashboard", "`phalanx top`"),
        ("./server.js", "`phalanx run ./server.js`"),
    ] {
        expect_refused(&run_alone(&[word]), 64, &[part]);
    }
}

#[test]
fn what_the_kernel_cannot_execute_is_refused_with_126_before_anything_starts() {
    let directory = support::directory();
    for (name, text, part) in [
        ("interpreter", "#!/no/such/shell\n", "/no/such/shell"),
        ("text", "echo hi\n", "without a first line"),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let output = run_alone(&["run", "-n", "1", "--", path.to_str().unwrap()]);
        expect_refused(&output, 126, &[part]);
        assert!(!output.stderr.contains("primary"), "{}", output.stderr);
    }
}
