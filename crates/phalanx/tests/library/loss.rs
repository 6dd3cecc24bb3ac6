//! Connections that a worker had not accepted: however it goes, another one serves them.

use std::time::Duration;

use phalanx_testkit::{LIMIT, Signal, procs, wait};
use serde_json::json;

use crate::probe::{Client, Probe, get};

/// Two workers, of which the first accepts nothing, and clients of which every other is offered to it.
struct Scene {
    probe: Probe,
    idle: (u32, u32),
    serving: u32,
    address: String,
    clients: Vec<Client>,
}

impl Scene {
    /// What waits for a worker that takes nothing for a second moves to another one. On a busy machine that may be before it is
    /// seen to wait; then the scene is set anew.
    fn set() -> Self {
        wait::eventually(LIMIT, "six are offered to the idle worker", Self::try_set)
    }

    fn try_set() -> Option<Self> {
        let mut probe = Probe::start();
        let idle = probe.fork();
        let (serving, _) = probe.fork();
        let address = probe.listen(idle.0, "127.0.0.1:0");
        probe.done(json!({"do": "workers"}));
        let before = procs::fd_count(probe.pid()).unwrap();
        probe.serve(serving, "127.0.0.1:0");
        let mut clients: Vec<_> = (0..12).map(|_| Client::connect(&address)).collect();
        for client in &mut clients {
            client.request();
        }
        // The others are served; these six are on their way and stay there.
        let pid = probe.pid();
        let held = || (procs::fd_count(pid).unwrap() == before + 6).then_some(());
        wait::try_eventually(Duration::from_secs(1), held)?;
        Some(Self {
            probe,
            idle,
            serving,
            address,
            clients,
        })
    }

    #[track_caller]
    fn all_are_served(mut self) {
        for client in &mut self.clients {
            assert_eq!(client.answer().worker, self.serving);
        }
        assert_eq!(get(&self.address).worker, self.serving);
    }
}

#[test]
fn a_worker_that_is_killed_loses_no_connection_it_had_not_accepted() {
    let scene = Scene::set();
    scene.probe.signal(scene.idle.1, Signal::KILL);
    scene.all_are_served();
}

#[test]
fn a_worker_that_is_stopped_loses_none_once_it_is_killed() {
    let scene = Scene::set();
    scene.probe.signal(scene.idle.1, Signal::STOP);
    scene.probe.signal(scene.idle.1, Signal::KILL);
    scene.all_are_served();
}

#[test]
fn a_worker_that_exits_loses_none() {
    let mut scene = Scene::set();
    scene
        .probe
        .start_asking(scene.idle.0, json!({"do": "exit"}));
    scene.all_are_served();
}

#[test]
fn a_worker_that_is_disconnected_hands_back() {
    let mut scene = Scene::set();
    scene
        .probe
        .done(json!({"do": "disconnect", "worker": scene.idle.0}));
    assert_eq!(scene.probe.event(scene.idle.0, "exit")["code"], 0);
    scene.all_are_served();
}

#[test]
fn a_worker_that_leaves_by_its_own_wish_hands_back() {
    let mut scene = Scene::set();
    scene
        .probe
        .start_asking(scene.idle.0, json!({"do": "disconnect"}));
    assert_eq!(scene.probe.event(scene.idle.0, "exit")["code"], 0);
    scene.all_are_served();
}

#[test]
fn a_listener_that_is_closed_hands_back() {
    let mut scene = Scene::set();
    scene
        .probe
        .ask(scene.idle.0, json!({"do": "close", "as": "main"}));
    let idle = scene.idle.1;
    scene.all_are_served();
    assert!(procs::wait_gone(idle, LIMIT), "it ends with the probe");
}

#[test]
fn the_successor_of_the_only_worker_serves_what_its_predecessor_left() {
    let mut probe = Probe::start();
    let (first, pid) = probe.fork();
    let address = probe.listen(first, "127.0.0.1:0");
    // More than a window: some are accepted, some wait in the kernel's queue.
    let mut clients: Vec<_> = (0..24).map(|_| Client::connect(&address)).collect();
    for client in &mut clients {
        client.request();
    }
    probe.signal(pid, Signal::KILL);
    probe.event(first, "exit");
    let (successor, _) = probe.fork();
    probe.serve(successor, "127.0.0.1:0");
    for client in &mut clients {
        assert_eq!(client.answer().worker, successor);
    }
}

#[test]
fn clients_that_wait_for_one_listener_do_not_hold_up_another() {
    let mut probe = Probe::start();
    let (first, pid) = probe.fork();
    let lonely = probe.listen_with(
        first,
        json!({"do": "listen", "at": "127.0.0.1:0", "as": "a"}),
    );
    let mut waiting = Client::connect(&lonely);
    waiting.request();
    let (second, _) = probe.fork();
    // The second port 0 of a worker is another listener.
    probe.listen_with(
        second,
        json!({"do": "listen", "at": "[::1]:0", "as": "unused"}),
    );
    let other = probe.serve(second, "127.0.0.2:0");
    probe.signal(pid, Signal::KILL);
    probe.event(first, "exit");
    // Nobody serves the first address now; its client waits, and only it.
    for _ in 0..3 {
        assert_eq!(get(&other).worker, second);
    }
    let (third, _) = probe.fork();
    probe.serve(third, "127.0.0.1:0");
    assert_eq!(waiting.answer().worker, third);
}

#[test]
fn a_client_that_goes_away_before_it_is_accepted_harms_nobody() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let address = probe.listen(worker, "127.0.0.1:0");
    for _ in 0..10 {
        drop(Client::connect(&address));
    }
    probe.start_asking(worker, json!({"do": "accept", "count": 1000}));
    assert_eq!(get(&address).worker, worker);
}

#[test]
fn shared_listeners_lose_nothing_when_a_worker_is_killed_either() {
    let mut probe = Probe::start_with(|command| {
        command.env("NODE_CLUSTER_SCHED_POLICY", "none");
    });
    let (idle, pid) = probe.fork();
    let address = probe.listen(idle, "127.0.0.1:0");
    let mut clients: Vec<_> = (0..12).map(|_| Client::connect(&address)).collect();
    for client in &mut clients {
        client.request();
    }
    probe.signal(pid, Signal::KILL);
    probe.event(idle, "exit");
    let (successor, _) = probe.fork();
    probe.serve(successor, "127.0.0.1:0");
    for client in &mut clients {
        assert_eq!(client.answer().worker, successor);
    }
}
