//! Options of Node: which take a value, where the script is, and that none keeps a worker from its channel. Held against each Node.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cluster::{app, get_json};
use phalanx_core::program::node_options::{NodeLine, takes_value};
use phalanx_testkit::{LIMIT, Load, Mode, fixtures, free_port, node};
use serde_json::{Value, json};

/// Prints the names of Node's options, those with a value and the others, as Node itself has them.
const LIST: &str = r"
const { internalBinding } = require('internal/test/binding');
const binding = internalBinding('options');
const { options, aliases } = binding.getCLIOptionsInfo ? binding.getCLIOptionsInfo() : binding.getCLIOptions();
const { kInteger } = binding.types;
const withValue = [...options].filter(([, { type }]) => type >= kInteger).map(([name]) => name);
const others = [...options].filter(([, { type }]) => type < kInteger).map(([name]) => name);
const both = [...aliases].map(([name, words]) => [name, words]);
console.log(JSON.stringify({ withValue, others, aliases: both }));
";

/// Switches of some version that are options with a value in another; given with a separate word, that other refuses the rest.
const BOTH: [&str; 2] = ["--stack-trace-limit", "--experimental-specifier-resolution"];

fn run(node: &node::NodeBinary, words: &[&str], directory: &Path) -> String {
    let mut command = node.command();
    let output = command.args(words).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{node:?} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_options_that_take_a_value_are_those_of_node() {
    for node in node::require_versions() {
        let words = ["--no-warnings", "--expose-internals", "-e", LIST];
        let list: Value = serde_json::from_str(&run(&node, &words, Path::new("/"))).unwrap();
        let names = |key: &str| {
            let names = list[key].as_array().unwrap().iter();
            let names = names.map(|name| name.as_str().unwrap().to_owned());
            names
                .filter(|name| name.starts_with('-'))
                .collect::<Vec<_>>()
        };
        let with_value = names("withValue");
        assert!(with_value.len() > 40, "{node:?}: {with_value:?}");
        for name in &with_value {
            assert!(takes_value(name), "{node:?}: {name} takes a value");
        }
        for name in names("others") {
            let is_known = BOTH.contains(&&*name)
                || ["--print", "--experimental-test-isolation"].contains(&&*name);
            assert!(
                is_known || !takes_value(&name),
                "{node:?}: {name} takes none"
            );
        }
        for alias in list["aliases"].as_array().unwrap() {
            let (name, stands_for) = (alias[0].as_str().unwrap(), alias[1].as_array().unwrap());
            let final_word = stands_for.last().unwrap().as_str().unwrap();
            // It names no file, whatever the option that it stands for wants.
            if name == "--experimental-default-config-file" {
                continue;
            }
            let is_name =
                !name.contains(['=', ' ']) && final_word.starts_with('-') && final_word != "--";
            if is_name && with_value.iter().any(|one| one == final_word) {
                let line = NodeLine::parse(&[name, "value", "s.js"]).script;
                assert_eq!(
                    line,
                    Some(2).filter(|_| final_word != "--eval"),
                    "{node:?}: {name}"
                );
            }
        }
    }
}

/// Lines with the first major that has them all.
const LINES: [(u32, &str); 22] = [
    (18, "probe.js"),
    (18, "-r ./early.js probe.js"),
    (18, "--require ./early.js probe.js -r x"),
    (18, "--require=./early.js probe.js"),
    (18, "--import ./late.mjs probe.js"),
    (18, "-C production probe.js"),
    (18, "--conditions=production probe.js"),
    (18, "--title early.js probe.js"),
    (18, "--max-old-space-size=64 probe.js"),
    (18, "--max_old_space_size=64 probe.js"),
    (18, "--max-http-header-size 9000 probe.js"),
    (18, "--max_http_header_size 9000 probe.js"),
    (18, "--inspect-port 0 probe.js"),
    (18, "--debug-port 0 probe.js"),
    (18, "--inspect=0 probe.js"),
    (18, "--no-warnings --trace-warnings probe.js a b"),
    (
        18,
        "--unhandled-rejections strict --dns-result-order ipv4first probe.js",
    ),
    (
        18,
        "--trace-event-categories v8 --stack-trace-limit=5 probe.js",
    ),
    (18, "-r ./early.js -- probe.js"),
    (20, "--env-file empty.env probe.js"),
    (20, "--env-file=empty.env --disable-warning x probe.js"),
    (
        20,
        "--experimental-loader ./late.mjs --network-family-autoselection-attempt-timeout 500 probe.js",
    ),
];

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let probe = "console.log(JSON.stringify([process.execArgv.length, process.argv[1]]))";
    for (name, text) in [
        ("probe.js", probe),
        ("early.js", "globalThis.early = true"),
        ("late.mjs", ""),
        ("empty.env", ""),
    ] {
        fs::write(place.path().join(name), text).unwrap();
    }
    fs::copy(fixtures::fixture("who.js"), place.path().join("who.js")).unwrap();
    place
}

#[test]
fn the_script_is_found_where_node_finds_it() {
    let place = place();
    for node in node::require_versions() {
        for (_, line) in LINES.iter().filter(|(since, _)| node.major >= *since) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let found = NodeLine::parse(&words).script.unwrap();
            assert_eq!(words[found], "probe.js", "{line}");
            let told: Value = serde_json::from_str(&run(&node, &words, place.path())).unwrap();
            // Node does not count `--` among its options.
            let options = words[..found].iter().filter(|word| **word != "--").count();
            assert_eq!(told[0], options, "{node:?}: {line}");
        }
    }
}

#[test]
fn no_option_keeps_a_worker_from_its_channel() {
    let place = place();
    for node in node::require_versions() {
        let restricted = match node.major {
            18 => "--inspect-port 0 --inspect who.js x",
            20 | 22 => "--experimental-permission --allow-fs-read * who.js",
            24 => "--permission --allow-fs-read * who.js",
            _ => "--permission --allow-net --allow-fs-read * who.js",
        };
        for line in [
            "-r ./early.js --import ./late.mjs -C production --title web --inspect=0 who.js x",
            restricted,
        ] {
            let words = line.split_whitespace();
            let mut app = app()
                .workers(1)
                .cwd(place.path())
                .command([node.path.as_os_str()])
                .args(words)
                .start_ready();
            assert_eq!(app.status()["adoption"], "channel", "{node:?}: {line}");
            let answer = get_json(&app.address(), "/");
            assert_eq!(answer["isWorker"], true, "{node:?}: {line}");
            assert_eq!(answer["early"], line.contains("early"), "{node:?}: {line}");
            assert!(app.stop().success(), "{node:?}: {line}");
        }
    }
}

#[test]
fn each_worker_has_an_inspector_of_its_own_wherever_its_port_is_named() {
    let Some(node) = node::require() else { return };
    let place = place();
    let next = u64::from(free_port());
    let base = next - 1;
    for (line, wanted) in [
        (
            format!("--inspect-port {base} --inspect who.js"),
            Some(next),
        ),
        (format!("--inspect_port={base} who.js"), Some(next)),
        ("--inspect=0 who.js".to_owned(), None),
    ] {
        let mut app = app()
            .workers(1)
            .cwd(place.path())
            .command([node.path.as_os_str()])
            .args(line.split_whitespace())
            .start_ready();
        let port = get_json(&app.address(), "/")["debugPort"].as_u64().unwrap();
        match wanted {
            Some(wanted) => assert_eq!(port, wanted, "{line}"),
            None => assert!(port > 1024 && port != 9229, "{line}: {port}"),
        }
        assert!(app.stop().success(), "{line}");
    }
}

#[test]
fn a_file_of_variables_may_say_what_options_node_has() {
    let place = place();
    fs::write(place.path().join(".env"), "NODE_OPTIONS=--title=filed\n").unwrap();
    for node in node::require_versions()
        .into_iter()
        .filter(|node| node.major >= 20)
    {
        let mut app = app()
            .workers(2)
            .cwd(place.path())
            .command([node.path.as_os_str()])
            .args(["--env-file=.env", "who.js"])
            .start_ready();
        let target = app.address();
        let answer = get_json(&target, "/");
        assert_eq!(answer["title"], "filed", "{node:?}");
        assert_eq!(answer["nodeOptions"], "--title=filed", "{node:?}");
        // Our script is there, and not to be seen.
        assert_eq!(answer["options"], json!(["--env-file=.env"]), "{node:?}");
        let load = Load::new(target).mode(Mode::KeepAlive).clients(6);
        let load = load.pause(Duration::from_millis(20)).start();
        load.wait_until_ok(12, LIMIT);
        app.verb(["reload"]).expect_success();
        load.wait_for_more(12, LIMIT);
        let report = load.stop();
        assert_eq!(
            (report.disturbed(), report.idle_closes),
            (0, 0),
            "{node:?}: {report}"
        );
    }
}
