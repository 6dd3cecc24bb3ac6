//! The command line, as it is typed.

use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use phalanx::fleet::Amount;

use super::*;

fn parse(words: &[&str]) -> Result<Verb, ErrorKind> {
    let words = std::iter::once("phalanx").chain(words.iter().copied());
    Cli::try_parse_from(words)
        .map(|cli| cli.verb)
        .map_err(|error| error.kind())
}

fn run(words: &[&str]) -> RunArgs {
    match parse(&[&["run"], words].concat()) {
        Ok(Verb::Run(args)) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn everything_after_the_command_belongs_to_it() {
    let args = run(&["-n", "2", "server.js", "--workers", "9", "-q", "--", "-n"]);
    assert_eq!(args.workers, WorkerCount::Exactly(2));
    assert_eq!(
        args.command,
        ["server.js", "--workers", "9", "-q", "--", "-n"]
    );
    let args = run(&["--", "./server", "--flag"]);
    assert_eq!(args.command, ["./server", "--flag"]);
}

#[test]
fn an_unknown_option_is_refused_and_not_taken_for_the_command() {
    for words in [&["run", "--kernel", "server.js"][..], &["run", "-Z", "a"]] {
        assert_eq!(parse(words).unwrap_err(), ErrorKind::UnknownArgument);
    }
    assert_eq!(
        parse(&["run"]).unwrap_err(),
        ErrorKind::MissingRequiredArgument
    );
    assert_eq!(
        parse(&["restart"]).unwrap_err(),
        ErrorKind::InvalidSubcommand
    );
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let args = run(&["server.js"]);
    assert_eq!(args.workers, WorkerCount::Auto);
    assert_eq!((args.policy, args.dispatch), (None, Dispatch::Auto));
    assert_eq!(args.limits.ready_timeout, Duration::from_secs(30));
    assert_eq!(args.limits.drain_timeout, Duration::from_secs(30));
    assert_eq!(args.limits.kill_timeout, Duration::from_secs(5));
    assert_eq!(args.limits.max_surge, Amount::Count(1));
    assert_eq!(args.limits.max_unavailable, Amount::Count(0));
    assert_eq!(args.limits.on_boot_failure, OnBootFailure::Exit);
    assert_eq!((args.log.verbose, args.log.quiet), (0, 0));
}

#[test]
fn scale_takes_negative_numbers_before_and_after_the_name() {
    for words in [
        ["scale", "--name", "app", "-1"],
        ["scale", "-1", "--name", "app"],
    ] {
        let Ok(Verb::Scale(args)) = parse(&words) else {
            panic!("{words:?} was refused");
        };
        assert_eq!(args.workers, ScaleTo::Down(1));
    }
}

#[test]
fn senseless_values_are_refused() {
    for words in [
        &["run", "-n", "0", "a"][..],
        &["run", "--ready-timeout", "0s", "a"],
        &["run", "--kill-timeout", "0s", "a"],
        &["run", "--drain-timeout", "30", "a"],
        &["run", "--max-surge", "101%", "a"],
        &["run", "--policy", "fair", "a"],
        &["run", "--env", "=x", "a"],
        &["run", "--env", "x", "a"],
        &["run", "--name", "a/b", "a"],
        &["run", "--serialization", "xml", "a"],
        &["run", "--control", "socket", "a"],
        &["scale", "many"],
        &["send", "{not json"],
    ] {
        let kind = parse(words).unwrap_err();
        let refused = matches!(kind, ErrorKind::ValueValidation | ErrorKind::InvalidValue);
        assert!(refused, "{words:?}: {kind:?}");
    }
    let both = parse(&["run", "-v", "-q", "a"]).unwrap_err();
    assert_eq!(both, ErrorKind::ArgumentConflict);
}

#[test]
fn canaries_are_some_workers_and_are_watched_for_a_minute() {
    let reload = |words: &[&str]| match parse(&[&["reload"], words].concat()) {
        Ok(Verb::Reload(args)) => Ok(serde_json::to_value(args.request()).unwrap()),
        Ok(other) => panic!("{other:?}"),
        Err(kind) => Err(kind),
    };
    assert_eq!(reload(&[]), Ok(serde_json::json!({})));
    assert_eq!(
        reload(&["--canary", "25%"]),
        Ok(serde_json::json!({"canary": "25%", "watch_ms": 60_000}))
    );
    assert_eq!(
        reload(&["--canary", "1", "--for", "5s", "--max-surge", "2"]),
        Ok(serde_json::json!({"canary": "1", "watch_ms": 5_000, "max_surge": "2"}))
    );
    for words in [&["--canary", "0"][..], &["--canary", "0%"]] {
        assert_eq!(reload(words), Err(ErrorKind::ValueValidation));
    }
    assert_eq!(
        reload(&["--for", "5s"]),
        Err(ErrorKind::MissingRequiredArgument)
    );
}

#[test]
fn ports_are_published_by_the_drill_unless_the_options_say_where() {
    for (options, is_published) in [
        ("--dispatch kernel", true),
        ("--publish 80:8080", true),
        ("--publish 0:*", false),
        ("--bind 127.0.0.1:0", false),
        ("--adopt intercept", true),
        ("--adopt none", false),
        ("--no-such-option", false),
    ] {
        let words = ["phalanx", "run"].into_iter().chain(options.split(' '));
        let words = words.chain(["--", "cat"]).map(OsString::from).collect();
        assert_eq!(opens_unpublished_ports(words), is_published, "{options}");
    }
}
