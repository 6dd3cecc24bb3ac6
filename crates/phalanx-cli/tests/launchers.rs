//! Which program is Node in the end, whatever starts it: it is on a channel then, and its reloads lose nothing.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;
use crate::support;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::{app, get_json};
use phalanx_testkit::wait::eventually;
use phalanx_testkit::{LIMIT, Process, fixtures, missing, node};
use serde_json::Value;
use support::phalanx;

/// A package with a server, and programs by which it can be started.
struct Package {
    place: tempfile::TempDir,
}

impl Package {
    fn new(node: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        let package = Self { place };
        package.write(
            "package.json",
            r#"{"name": "@acme/shop", "main": "gone.js", "scripts": {
                "start": "node who.js", "prelate": "node -e 0", "late": "SET_ON_THE_WAY=yes node who.js",
                "both": "cd . && node -e 0 && node who.js two", "last": "node who.js; true"}}"#,
        );
        let server = fs::read_to_string(fixtures::fixture("who.js")).unwrap();
        package.write("who.js", &server);
        package.write("bin/www", &format!("#!/usr/bin/env node\n{server}"));
        package.write("bin/direct", &format!("#!{}\n{server}", node.display()));
        package.write(
            "node_modules/web/cli.js",
            &format!("#!/usr/bin/env node\n{server}"),
        );
        fs::create_dir(package.path().join("node_modules/.bin")).unwrap();
        symlink(
            "../web/cli.js",
            package.path().join("node_modules/.bin/web"),
        )
        .unwrap();
        // Launchers that are not installed everywhere.
        package.write("tools/poetry", "#!/bin/sh\nshift\nexec \"$@\"\n");
        package.write("tools/uv", "#!/bin/sh\nshift\n\"$@\"\n");
        package.write(
            "tools/yarn",
            "#!/usr/bin/env node\nthrow new Error('not to be run')\n",
        );
        package.write(
            "tools/pnpm",
            "#!/usr/bin/env node\nthrow new Error('not to be run')\n",
        );
        for name in ["nodejs", "node24", "web-node"] {
            symlink(node, package.path().join("tools").join(name)).unwrap();
        }
        package
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path_variable(&self) -> OsString {
        let others = env::var_os("PATH").unwrap_or_default();
        let all = [self.path().join("tools")]
            .into_iter()
            .chain(env::split_paths(&others));
        env::join_paths(all).unwrap()
    }
}

/// Answers of a worker that was started so.
#[track_caller]
fn answer(package: &Package, command: &[&str]) -> Value {
    let mut app = app()
        .workers(1)
        .cwd(package.path())
        .env("PATH", package.path_variable())
        .command(command)
        .start_ready();
    assert_eq!(app.status()["adoption"], "channel", "{command:?}");
    let answer = get_json(&app.address(), "/");
    assert_eq!(answer["isWorker"], true, "{command:?}: {answer}");
    assert!(app.stop().success(), "{command:?}");
    answer
}

#[test]
fn whatever_executes_node_in_the_end_has_a_channel() {
    let Some(node) = node::require() else { return };
    let package = Package::new(&node.path);
    let who = package.path().join("who.js");
    let absolute = node.path.to_str().unwrap();
    for command in [
        &["nodejs", "who.js"][..],
        &["node24", "who.js"],
        &["web-node", "who.js"],
        &[absolute, who.to_str().unwrap()],
        &["bin/www"],
        &["./bin/direct"],
        &["sh", "-c", "SET_ON_THE_WAY='a b' node \"who.js\""],
        &["env", "SET_ON_THE_WAY=1", "node", "who.js"],
        &["nice", "-n", "1", "node", "who.js"],
        &["poetry", "run", "node", "who.js"],
        &["uv", "run", "node", "who.js"],
    ] {
        answer(&package, command);
    }
}

#[test]
fn scripts_and_executables_of_packages_have_a_channel() {
    let Some(node) = node::require() else { return };
    if fixtures::on_path("npm").is_none() {
        return missing!("the program npm");
    }
    let package = Package::new(&node.path);
    let own = fs::canonicalize(package.path()).unwrap();
    for (command, event, arguments) in [
        (&["npm", "start"][..], Some("start"), ""),
        (
            &["npm", "run", "start", "--", "--x", "y"],
            Some("start"),
            "--x y",
        ),
        (&["npm", "run", "both", "three"], Some("both"), "two three"),
        (&["yarn", "start", "-x"], Some("start"), "-x"),
        (&["pnpm", "start"], Some("start"), ""),
        (&["npx", "web", "z"], None, "z"),
        (&["."], Some("start"), ""),
        (&["package.json"], Some("start"), ""),
    ] {
        let answer = answer(&package, command);
        assert_eq!(answer["event"].as_str(), event, "{command:?}");
        let told: Vec<&str> = answer["arguments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        assert_eq!(told.join(" "), arguments, "{command:?}");
        assert_eq!(answer["directory"], own.to_str().unwrap(), "{command:?}");
        assert_eq!(
            answer["channel"].as_array().unwrap().len(),
            0,
            "{command:?}"
        );
        if event == Some("late") {
            assert_eq!(answer["set"], "yes");
        }
    }
}

#[test]
fn a_node_without_a_channel_is_told_what_would_be_better() {
    let Some(node) = node::require() else { return };
    let package = Package::new(&node.path);
    let mut app = app()
        .workers(1)
        .cwd(package.path())
        .command(["sh", "-c", "node who.js; true"])
        .start();
    let line = app.wait_for_line("is Node", LIMIT);
    assert!(line.contains("channel"), "{line}");
    app.wait_ready(LIMIT);
    assert!(app.stop().success());
}

#[test]
fn a_drill_of_express_through_npm_loses_nothing() {
    let Some(_node) = node::require() else { return };
    let packages: PathBuf = fixtures::root().join("target/node-packages/node_modules");
    if fixtures::on_path("npm").is_none() || !packages.join("express").exists() {
        return missing!("npm, or the npm package express: just node-packages");
    }
    let place = support::directory();
    let package = place.path().join("app");
    fs::create_dir(&package).unwrap();
    fs::write(
        package.join("package.json"),
        r#"{"scripts": {"start": "node express.js"}}"#,
    )
    .unwrap();
    fs::copy(fixtures::fixture("express.js"), package.join("express.js")).unwrap();
    let words = [
        "drill",
        "--json",
        "--for",
        "4s",
        "--rate",
        "300",
        "--clients",
        "8",
        "-n",
        "2",
        "--",
        "npm",
        "start",
    ];
    let mut command = phalanx(place.path(), &words);
    command.current_dir(&package).env("NODE_PATH", &packages);
    let output = Process::run(command, Duration::from_mins(5));
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    output.expect_success();
    assert_eq!(
        (&report["lost"], &report["passed"]),
        (&0.into(), &true.into()),
        "{report}"
    );
}

#[test]
fn a_reload_follows_the_link_in_whose_directory_it_was_started() {
    let Some(_node) = node::require() else { return };
    let place = tempfile::tempdir().unwrap();
    for release in ["one", "two"] {
        fs::create_dir(place.path().join(release)).unwrap();
        fs::copy(
            fixtures::fixture("who.js"),
            place.path().join(release).join("who.js"),
        )
        .unwrap();
    }
    let current = place.path().join("current");
    symlink("one", &current).unwrap();
    let mut app = app()
        .workers(1)
        .cwd(&current)
        .env("PWD", &current)
        .command(["who.js"])
        .start_ready();
    let target = app.address();
    let directory = |target| {
        get_json(target, "/")["directory"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(directory(&target).ends_with("/one"));
    symlink("two", place.path().join("next")).unwrap();
    fs::rename(place.path().join("next"), &current).unwrap();
    app.verb(["reload"]).expect_success();
    eventually(LIMIT, "the new release", || {
        directory(&target).ends_with("/two").then_some(())
    });
    // The release before is gone by then, and what was started of it goes on.
    fs::remove_dir_all(place.path().join("one")).unwrap();
    app.verb(["reload"]).expect_success();
    assert!(directory(&target).ends_with("/two"));
    assert!(app.stop().success());
}
