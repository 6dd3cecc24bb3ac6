//! Handoff: who gets a connection, how many are in flight, and what the primary holds open.

use std::collections::BTreeMap;

use phalanx_testkit::{LIMIT, Signal, procs, wait};
use serde_json::json;

use crate::probe::{Client, Probe, get};

/// Connections in flight to one worker at most (`WINDOW` of the engine).
const WINDOW: usize = 16;

#[test]
fn connections_go_to_the_workers_exactly_in_turn() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}/turn.sock", directory.path().display());
    let mut probe = Probe::start();
    let workers: Vec<_> = (0..3).map(|_| probe.fork().0).collect();
    for at in ["127.0.0.1:0", &path] {
        let addresses: Vec<_> = workers
            .iter()
            .map(|&worker| probe.serve(worker, at))
            .collect();
        let mut served = BTreeMap::<u32, u32>::new();
        let order: Vec<_> = (0..60).map(|_| get(&addresses[0]).worker).collect();
        for worker in &order {
            *served.entry(*worker).or_default() += 1;
        }
        assert_eq!(served, workers.iter().map(|&worker| (worker, 20)).collect());
        assert!(order.chunks(3).all(|turn| turn == &order[..3]), "{order:?}");
    }
}

#[test]
fn a_successor_takes_its_predecessors_turn() {
    let mut probe = Probe::start();
    let workers: Vec<_> = (0..3).map(|_| probe.fork()).collect();
    let mut address = String::new();
    for (worker, _) in &workers {
        address = probe.serve(*worker, "127.0.0.1:0");
    }
    probe.signal(workers[1].1, Signal::KILL);
    probe.event(workers[1].0, "exit");
    let (successor, _) = probe.fork();
    probe.serve(successor, "127.0.0.1:0");
    let order: Vec<_> = (0..9).map(|_| get(&address).worker).collect();
    let others = [workers[0].0, workers[2].0, successor];
    for worker in others {
        assert_eq!(
            order.iter().filter(|&&served| served == worker).count(),
            3,
            "{order:?}"
        );
    }
}

#[test]
fn the_primary_accepts_no_more_than_its_workers_have_room_for() {
    let mut probe = Probe::start();
    let workers = [probe.fork().0, probe.fork().0];
    let address = workers.map(|worker| probe.listen(worker, "127.0.0.1:0"))[0].clone();
    probe.done(json!({"do": "workers"}));
    let before = procs::fd_count(probe.pid()).unwrap();
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(&address)).collect();
    for client in &mut clients {
        client.request();
    }
    let full = before + workers.len() * WINDOW;
    let held = |pid| procs::fd_count(pid).unwrap();
    let pid = probe.pid();
    wait::eventually(LIMIT, "the windows are full", || {
        (held(pid) >= full).then_some(())
    });
    // Turns of its event loop later it is no more.
    for _ in 0..5 {
        probe.done(json!({"do": "workers"}));
        assert_eq!(held(pid), full);
    }
    // The kernel's backlog was the queue: nobody is lost.
    for worker in workers {
        probe.start_asking(worker, json!({"do": "accept", "count": 1000}));
    }
    for client in &mut clients {
        client.answer();
    }
    let back = || (held(pid) == before).then_some(());
    wait::eventually(LIMIT, "no connection is held", back);
}

#[test]
fn a_worker_that_does_not_accept_does_not_hold_up_the_others() {
    let mut probe = Probe::start();
    let (idle, _) = probe.fork();
    let (busy, _) = probe.fork();
    let address = probe.listen(idle, "127.0.0.1:0");
    probe.serve(busy, "127.0.0.1:0");
    // As many as its window holds wait for it; the rest is served.
    let mut waiting = Vec::new();
    let mut served = 0;
    for _ in 0..2 * WINDOW {
        let mut client = Client::connect(&address);
        client.request();
        waiting.push(client);
    }
    for _ in 0..40 {
        assert_eq!(get(&address).worker, busy);
        served += 1;
    }
    assert_eq!(served, 40);
    probe.start_asking(idle, json!({"do": "accept", "count": 1000}));
    for mut client in waiting {
        client.answer();
    }
}

#[test]
fn the_primary_keeps_no_descriptor_after_connections_and_crashes() {
    let mut probe = Probe::start();
    let (keeper, _) = probe.fork();
    let address = probe.serve(keeper, "127.0.0.1:0");
    // Before the first connection: none is open, so what is open now stays so.
    let pid = probe.pid();
    let open = procs::fd_targets(pid);
    let round = |probe: &mut Probe| {
        let (worker, pid) = probe.fork();
        probe.listen(worker, "127.0.0.1:0");
        // Half of these are with the worker that dies.
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&address)).collect();
        for client in &mut clients {
            client.request();
        }
        probe.signal(pid, Signal::KILL);
        probe.event(worker, "exit");
        for client in &mut clients {
            assert_eq!(client.answer().worker, keeper);
        }
    };
    for _ in 0..200 {
        get(&address);
    }
    for _ in 0..5 {
        round(&mut probe);
    }
    let same = || (procs::fd_targets(pid).len() == open.len()).then_some(());
    let unchanged = wait::try_eventually(LIMIT, same).is_some();
    assert!(
        unchanged,
        "before: {open:?}, after: {:?}",
        procs::fd_targets(pid)
    );
}

#[test]
fn a_primary_out_of_descriptors_pauses_and_recovers() {
    let Some(prlimit) = phalanx_testkit::require("prlimit") else {
        return;
    };
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let address = probe.listen(worker, "127.0.0.1:0");
    let pid = probe.pid();
    let limit = |number: usize| {
        let mut command = std::process::Command::new(&prlimit);
        command.args([format!("--pid={pid}"), format!("--nofile={number}:")]);
        phalanx_testkit::Process::run(command, LIMIT).expect_success();
    };
    let numbers = || -> Vec<usize> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    };
    // The limit is on numbers: this one leaves three that are free.
    let used = numbers();
    let free = (0..).filter(|number| !used.contains(number));
    let most = free.take(4).last().unwrap();
    let below = || {
        numbers()
            .into_iter()
            .filter(|&number| number < most)
            .count()
    };
    limit(most);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&address)).collect();
    for client in &mut clients {
        client.request();
    }
    let full = || (below() == most).then_some(());
    wait::eventually(LIMIT, "no descriptor is left", full);
    // It lives, answers, and says what it cannot do.
    let answer = probe.tell(json!({"do": "fork"}));
    assert!(answer["error"].is_string(), "{answer}");
    // It does not spin: of the next second of its life it uses little. Measured by its own turns.
    let before = procs::cpu_time(pid).unwrap();
    for _ in 0..5 {
        probe.done(json!({"do": "workers"}));
    }
    let cost = procs::cpu_time(pid).unwrap().saturating_sub(before);
    assert!(cost < std::time::Duration::from_secs(1));
    limit(1000);
    probe.start_asking(worker, json!({"do": "accept", "count": 1000}));
    for client in &mut clients {
        assert_eq!(client.answer().worker, worker);
    }
    probe.fork();
}

#[test]
fn a_policy_of_the_programs_own_sees_the_load_and_chooses() {
    // By itself, the kernel would choose.
    let mut probe = Probe::start_with(|command| {
        command.env("PROBE_DISPATCH", "auto");
    });
    probe.done(json!({"do": "own policy"}));
    let workers = [probe.fork().0, probe.fork().0];
    let address = workers.map(|worker| probe.serve(worker, "127.0.0.1:0"))[0].clone();
    assert_eq!(get(&address).worker, workers[1]);
    // More than three, if one is counted still that has been closed.
    let mut open: Vec<_> = (0..3).map(|_| Client::connect(&address)).collect();
    wait::eventually(LIMIT, "the other has three open", || {
        let is_full = get(&address).worker == workers[0];
        if !is_full {
            open.push(Client::connect(&address));
        }
        is_full.then_some(())
    });
    drop(open);
    wait::eventually(LIMIT, "the other has room again", || {
        (get(&address).worker == workers[1]).then_some(())
    });
}
