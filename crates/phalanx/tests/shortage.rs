//! A start that fails half way leaves no process that nobody knows of. A file of its own, because the shortage is
//! that of the whole process.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::process::id;

use phalanx::{Role, Settings, Signal};
use phalanx_testkit::{LIMIT, procs, wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn allow_descriptors(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(count),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Each step of a start needs one descriptor more than the step before.
#[tokio::test]
async fn with_any_number_of_descriptors_a_worker_is_started_and_known_or_not_there() {
    let Ok(Role::Primary(cluster)) = phalanx::init() else {
        panic!("this is no worker");
    };
    cluster.setup(Settings::new().exec("sleep").args(["600"]).silent(true));
    let before = cluster.fork().unwrap();
    before.kill(Signal::KILL).unwrap();
    before.exited().await;
    let (mut failures, mut last) = (0, None);
    let open = phalanx_sys::limits::open_files().unwrap();
    // Numbers in use may lie above the count of those open.
    for count in (open..open + 64).filter(|count| *count >= 8) {
        allow_descriptors(count);
        let forked = cluster.fork();
        allow_descriptors(1024);
        match forked {
            Ok(worker) => {
                worker.kill(Signal::KILL).unwrap();
                worker.exited().await;
                last = Some(count);
                break;
            }
            Err(_) => failures += 1,
        }
        let left = procs::children(id());
        assert!(
            left.is_empty(),
            "with {count} descriptors {left:?} are unknown"
        );
        assert!(cluster.workers().is_empty());
    }
    assert!(failures > 0 && last.is_some(), "{failures} {last:?}");
    wait::eventually(LIMIT, "no processes", || {
        procs::children(id()).is_empty().then_some(())
    });
}
