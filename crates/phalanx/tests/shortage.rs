//! A start that fails half way leaves no process that nobody knows of. A file of its own, because the shortage is
//! that of the whole process.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::process::{Command, id};
use std::thread;

use phalanx::{Adoption, Cluster, Role, Settings, Signal};
use phalanx_testkit::{LIMIT, Process, fixtures, procs, require, wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beyond the numbers that this process has in use.
const ENOUGH: u64 = 1024;

fn allow_descriptors(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(count),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Whatever came of a start: a worker that is known, or nothing. True if it is a worker, which is then ended.
async fn is_known_or_not_there(
    cluster: &Cluster,
    forked: phalanx::Result<phalanx::Worker>,
    case: &str,
    others: &[u32],
) -> bool {
    let is_worker = match forked {
        Ok(worker) => {
            drop(worker.kill(Signal::KILL));
            worker.exited().await;
            true
        }
        Err(_) => false,
    };
    let mut left = procs::children(id());
    left.retain(|pid| !others.contains(pid));
    assert!(left.is_empty(), "{case}: {left:?} are unknown");
    assert!(cluster.workers().is_empty(), "{case}");
    is_worker
}

/// Each step before the fork needs one descriptor more than the step before.
async fn with_any_number_from_the_start(cluster: &Cluster) {
    let (mut failures, mut last) = (0, None);
    let open = phalanx_sys::limits::open_files().unwrap();
    // Numbers in use may lie above the count of those open.
    for count in (open..open + 64).filter(|count| *count >= 8) {
        allow_descriptors(count);
        let forked = cluster.fork();
        allow_descriptors(ENOUGH);
        if is_known_or_not_there(cluster, forked, &format!("{count} from the start"), &[]).await {
            last = Some(count);
            break;
        }
        failures += 1;
    }
    assert!(failures > 0 && last.is_some(), "{failures} {last:?}");
}

/// While the program is being executed for the `turn`th time there are suddenly only so many: what comes after the fork
/// fails, at one step or another.
fn fork_while_held(
    cluster: &Cluster,
    holder: &mut Process,
    turn: usize,
    count: u64,
) -> phalanx::Result<phalanx::Worker> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let held = |line: &str| line.trim_end() == format!("held {turn}");
            holder.lines().wait_after(0, LIMIT, "an execution", held);
            allow_descriptors(count);
            holder.write_line("go on");
        });
        let forked = cluster.fork();
        allow_descriptors(ENOUGH);
        forked
    })
}

async fn with_any_number_after_the_fork(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("sleep");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut holder = Command::new("python3");
    let script = fixtures::fixture("programs/holds_exec.py");
    holder.arg(script).arg(&program).arg("each");
    let mut holder = Process::start_with_stdin(holder);
    holder.wait_for_line("holds", LIMIT);
    let mut turn = 0;
    for adoption in [Adoption::Channel, Adoption::Intercept] {
        let settings = Settings::new().exec(&program).args(["600"]).silent(true);
        cluster.setup(settings.adoption(adoption));
        let (mut failures, mut workers) = (0, 0);
        // Below three nothing at all can be opened; in between, the first step or a later one is what fails.
        for count in [0].into_iter().chain(3..ENOUGH) {
            turn += 1;
            let forked = fork_while_held(cluster, &mut holder, turn, count);
            let case = format!("{adoption:?}, {count} after the fork");
            if is_known_or_not_there(cluster, forked, &case, &[holder.pid()]).await {
                workers += 1;
                if workers == 3 {
                    break;
                }
            } else {
                failures += 1;
            }
        }
        assert!(failures > 0 && workers == 3, "{failures} {workers}");
    }
}

#[tokio::test]
async fn with_any_number_of_descriptors_a_worker_is_started_and_known_or_not_there() {
    let Ok(Role::Primary(cluster)) = phalanx::init() else {
        panic!("this is no worker");
    };
    cluster.setup(Settings::new().exec("sleep").args(["600"]).silent(true));
    let before = cluster.fork().unwrap();
    before.kill(Signal::KILL).unwrap();
    before.exited().await;
    with_any_number_from_the_start(&cluster).await;
    if require("python3").is_some() && phalanx_sys::identity::is_root() {
        with_any_number_after_the_fork(&cluster).await;
    }
    wait::eventually(LIMIT, "no processes", || {
        procs::children(id()).is_empty().then_some(())
    });
}
