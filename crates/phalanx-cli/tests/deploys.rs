//! Deploys as people do them: a link that moves to the next release, a file that is renamed over. What
//! goes back is what was there before.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cluster::{app, get, wait_report};
use phalanx_testkit::{App, LIMIT, Load, fixtures, node};

/// Releases side by side, and a link `current` to one of them.
struct Releases {
    place: tempfile::TempDir,
}

impl Releases {
    /// Each by its name and the fixture that its `server.js` is; the first is the current one.
    fn new(releases: &[(&str, &str)]) -> Self {
        let releases_at = Self {
            place: tempfile::tempdir().unwrap(),
        };
        for (name, fixture) in releases {
            let directory = releases_at.path(name);
            fs::create_dir(&directory).unwrap();
            fs::copy(fixtures::fixture(fixture), directory.join("server.js")).unwrap();
        }
        releases_at.switch(releases[0].0);
        releases_at
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Moves the link.
    fn switch(&self, name: &str) {
        symlink(name, self.path("next")).unwrap();
        fs::rename(self.path("next"), self.path("current")).unwrap();
    }
}

/// The answers of all workers, without their pids.
fn answers(app: &mut App) -> Vec<String> {
    let target = app.address();
    let count = app.worker_pids().len();
    let mut answers: Vec<String> = (0..count * 2)
        .map(|_| get(&target, "/").split(", pid").next().unwrap().to_owned())
        .collect();
    answers.sort();
    answers.dedup();
    answers
}

fn through_the_link(releases: &Releases, by_cwd: bool) -> App {
    let app = app()
        .workers(2)
        .env("WORD", "first")
        .options(["--kill-timeout", "500ms"]);
    let app = if by_cwd {
        app.option("--cwd")
            .option(releases.path("current"))
            .command(["server.js"])
    } else {
        app.cwd(releases.place.path())
            .command(["current/server.js"])
    };
    app.start_ready()
}

#[test]
fn a_release_that_fails_half_way_goes_back_to_the_one_that_the_link_led_to() {
    if node::require().is_none() {
        return;
    }
    for by_cwd in [true, false] {
        let releases = Releases::new(&[("one", "release.js"), ("two", "in-turn-fails.js")]);
        let mut app = through_the_link(&releases, by_cwd);
        let before = answers(&mut app);
        let expected = if by_cwd {
            "in one with first"
        } else {
            "release one"
        };
        assert!(before[0].contains(expected), "{before:?}");
        let load = Load::new(app.address()).clients(4).start();
        let events = app.events();
        releases.switch("two");
        let refused = app.verb(["reload"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("not at position 1"), "{refused:?}");
        // Position 0 was replaced, and is back without anybody's help.
        wait_report(&events, "rolled_back");
        assert_eq!(answers(&mut app), before, "by cwd: {by_cwd}");
        load.stop().expect_none_lost();
    }
}

#[test]
fn a_worker_that_is_replaced_after_the_link_moved_is_still_of_its_release() {
    if node::require().is_none() {
        return;
    }
    for by_cwd in [true, false] {
        let releases = Releases::new(&[("one", "release.js"), ("two", "release.js")]);
        let mut app = through_the_link(&releases, by_cwd);
        let before = answers(&mut app);
        releases.switch("two");
        let victim = app.worker_pids()[0];
        app.kill_worker(victim);
        app.wait_status(LIMIT, |status| {
            phalanx_testkit::app::is_settled(status)
                && !phalanx_testkit::app::pids(status).contains(&victim)
        });
        assert_eq!(answers(&mut app), before, "by cwd: {by_cwd}");
        app.verb(["reload"]).expect_success();
        let after = answers(&mut app);
        assert!(
            after.len() == 1 && after[0].contains("release two"),
            "{after:?}"
        );
    }
}

fn install(program: &Path, place: &Path) {
    let next = place.with_extension("next");
    fixtures::copy_program(program, &next);
    fs::rename(next, place).unwrap();
}

#[test]
fn a_program_that_was_renamed_over_is_still_there_for_its_release() {
    let place = tempfile::tempdir().unwrap();
    let server = place.path().join("server");
    install(&cluster::example("http_server"), &server);
    let command = [server.to_str().unwrap(), "10", "127.0.0.1:0"];
    let mut app = app().workers(2).command(command).start();
    let load = Load::new(app.address()).clients(4).start();
    install(Path::new("/bin/false"), &server);
    let refused = app.verb(["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    load.wait_for_more(50, LIMIT);
    load.stop().expect_none_lost();
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    app.wait_status(LIMIT, |status| {
        phalanx_testkit::app::is_settled(status)
            && !phalanx_testkit::app::pids(status).contains(&victim)
    });
    let load = Load::new(app.address()).clients(4).requests(50).run();
    load.expect_none_lost();
}
