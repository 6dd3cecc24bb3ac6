//! The number of workers follows their load, and nothing is lost meanwhile. When it shrinks is simulated in
//! phalanx-core; here a minute of idleness would be too long.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cluster::{app, is_long};
use phalanx_testkit::app::is_settled;
use phalanx_testkit::{App, LIMIT, Load, missing, node};

/// Ten seconds of load, a pause, ten seconds of load again, and the start of workers.
const GROWS_WITHIN: Duration = Duration::from_mins(2);
/// A minute without load, for each worker less.
const SHRINKS_WITHIN: Duration = Duration::from_mins(6);

#[test]
fn a_step_of_load_leads_to_the_largest_size_and_back() {
    if node::require().is_none() {
        return;
    }
    let mut app = app()
        .options(["-n", "2..6"])
        .script("blocks.js")
        .start_ready();
    assert_eq!(app.status()["target"], 2);
    let events = app.events();
    // More than so many workers can do on any machine: each request keeps an event loop busy, with a processor or waiting for one.
    let load = Load::new(app.address()).clients(24).start();
    let is_resize = |event: &serde_json::Value| event["report"] == "resizes";
    let mut size = 2;
    while size < 6 {
        let event = events.wait_for(GROWS_WITHIN, "growing", is_resize);
        assert_eq!(event["from"], size, "{event}");
        assert!(event["busy"].as_u64().unwrap() > 800, "{event}");
        assert!(event["text"].as_str().unwrap().contains("busy"), "{event}");
        let to = event["to"].as_u64().unwrap();
        assert!(to > size, "{event}");
        size = to;
    }
    let status = app.wait_status(LIMIT, is_settled);
    assert_eq!(status["target"], 6, "{status}");
    let report = load.stop();
    assert_eq!(report.failures.len(), 0, "{report:?}");
    if is_long() {
        while size > 2 {
            let event = events.wait_for(SHRINKS_WITHIN, "shrinking", is_resize);
            assert_eq!(event["to"], size - 1, "it only shrinks: {event}");
            size -= 1;
        }
    }
}

/// A control group with a CPU quota. It is removed when this is dropped, which has to be after the process in it has ended.
struct Quota {
    group: PathBuf,
}

impl Quota {
    /// Moves the primary of the app, not its workers, into a group of its own that has this many processors.
    fn of(app: &App, cores: u32) -> Option<Self> {
        let name = format!("phalanx-test-{}", app.pid());
        let roots = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].map(PathBuf::from);
        let files = ["cpu.cfs_quota_us", "cpu.max"];
        for root in roots {
            let group = root.join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let quota = Self { group };
            if files.iter().any(|file| quota.group.join(file).exists()) {
                quota.set(cores);
                let procs = quota.group.join("cgroup.procs");
                return fs::write(procs, app.pid().to_string()).ok().map(|()| quota);
            }
        }
        missing!("a control group with a CPU quota: root, and the controller cpu");
        None
    }

    fn set(&self, cores: u32) {
        let old = self.group.join("cpu.cfs_quota_us");
        let micros = cores * 100_000;
        if old.exists() {
            fs::write(old, micros.to_string()).unwrap();
        } else {
            fs::write(self.group.join("cpu.max"), format!("{micros} 100000")).unwrap();
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // It is gone already if the system has removed it.
        drop(fs::remove_dir(&self.group));
    }
}

#[test]
fn a_size_of_auto_follows_the_cpu_quota() {
    if node::require().is_none() {
        return;
    }
    let mut app = app()
        .options(["-n", "auto"])
        .script("http.js")
        .start_ready();
    let cores = app.status()["target"].as_u64().unwrap();
    if cores < 2 {
        missing!("two processors");
        return;
    }
    let events = app.events();
    let resizes = |event: &serde_json::Value| event["report"] == "resizes";
    let Some(quota) = Quota::of(&app, 1) else {
        return;
    };
    let event = events.wait_for(LIMIT, "shrinking", resizes);
    assert_eq!((&event["from"], &event["to"]), (&cores.into(), &1.into()));
    assert_eq!(event["cores"], 1, "{event}");
    let text = event["text"].as_str().unwrap();
    assert!(text.contains("1 processor may be used now"), "{event}");
    app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 1);
    quota.set(2);
    app.wait_status(LIMIT, |status| is_settled(status) && status["target"] == 2);
    assert!(app.stop().success());
}
