//! Clients that are far from the servers, and primaries of other users: by the environment, for tests that are written for
//! neither.

use std::env;
use std::process::Command;
use std::time::Duration;

use phalanx_sys::delay::{DelayLink, SERVER};
use phalanx_sys::identity;
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::{App, LIMIT, Process, missing, require, say};

thread_local! {
    /// What clients and servers of this test's thread are far from each other by.
    static LINK: Option<DelayLink> = env::var(DELAY_MS).ok().map(|millis| {
        let delay = Duration::from_millis(millis.parse().unwrap());
        let link = DelayLink::new(delay).unwrap();
        link.enter_client().unwrap();
        link
    });
}

/// So far, each way.
const DELAY_MS: &str = "PHALANX_TEST_DELAY_MS";
/// Whose the primary is.
const UID: &str = "PHALANX_TEST_UID";

/// Starts apps where the servers are, as the user that they shall have.
pub(crate) trait Placed: Sized {
    fn placed(self) -> App;
    fn placed_ready(self) -> App;
}

impl Placed for AppBuilder {
    #[track_caller]
    fn placed(self) -> App {
        let builder = match env::var(UID) {
            Ok(uid) => self.uid(uid.parse().unwrap()),
            Err(_) => self,
        };
        LINK.with(|link| match link {
            None => builder.start(),
            Some(link) => {
                link.enter_server().unwrap();
                let app = builder.env("HOST", SERVER).start();
                link.enter_client().unwrap();
                app
            }
        })
    }

    #[track_caller]
    fn placed_ready(self) -> App {
        let mut app = self.placed();
        app.wait_ready(LIMIT);
        app
    }
}

/// Whether [`UID`] takes the privileges away.
pub(crate) fn is_unprivileged() -> bool {
    env::var_os(UID).is_some()
}

/// Runs these tests of this very binary in a process of its own, from so far away: those that failed.
pub(crate) fn walk(delay: u32, uid: Option<u32>, tests: &str) -> Vec<String> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([tests, "--test-threads", "4"]);
    command.env(DELAY_MS, delay.to_string());
    if let Some(uid) = uid {
        command.env(UID, uid.to_string());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let is_failed = |line: &&str| line.starts_with("test ") && line.ends_with("FAILED");
    let failed: Vec<_> = text
        .lines()
        .filter(is_failed)
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(output.status.success(), failed.is_empty(), "{text}");
    if !failed.is_empty() {
        say(&text);
    }
    failed
}

/// A user without privileges.
pub(crate) const NOBODY: u32 = 65_534;

/// Whether there can be links here.
pub(crate) fn has_links() -> bool {
    if !identity::is_root() || require("ip").is_none() {
        missing!("root, for network namespaces");
        return false;
    }
    if let Err(error) = DelayLink::new(Duration::ZERO) {
        missing!("network namespaces and /dev/net/tun: {error}");
        return false;
    }
    true
}

/// Walks all eleven ways from three distances, as root and without privilege, and prints the table: those that failed.
pub(crate) fn walk_far() -> Vec<String> {
    let mut failed = Vec::new();
    for (uid, standing) in [(None, "root"), (Some(NOBODY), "no privilege")] {
        for delay in [20, 70, 200] {
            let lost = walk(delay, uid, "eleven_ways::way_");
            // The fourth is about queues of dispatch in the kernel.
            let walked = if uid.is_none() { 11 } else { 10 };
            let ok = walked - lost.len();
            say(&format!("| {standing} | {delay} ms | {ok} of {walked} |"));
            failed.extend(lost);
        }
    }
    failed
}

/// Begins a reload of an app of one worker, and waits until the old one was told to leave.
#[track_caller]
pub(crate) fn begin_reload(app: &mut App) -> Process {
    let reload = app.start_verb(["reload"]);
    app.wait_status(LIMIT, |status| {
        let workers = status["workers"].as_array().into_iter().flatten();
        let mut successors =
            workers.filter(|one| one["generation"] == 2 && one["state"] == "ready");
        successors.next().is_some() && status["listeners"][0]["workers"] == 1
    });
    reload
}
