//! Slots that come, go and move.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use phalanx_core::policy::PolicyName;
use phalanx_sys::scoreboard::{Lane, Scoreboard};
use phalanx_sys::socket::{TcpOptions, accept, bind_slots, empty_slot, queue_length};
use phalanx_sys::steering::{Plan, Rule, settle};
use rustix::net::sockopt::set_socket_linger;

use crate::support::cluster::{BACKLOG, Cluster, connect_from, is_alive};
use crate::{home, raise_limit};

/// Answers every connection that waits with "!". False if none did.
fn answer_waiting(cluster: &Cluster) -> bool {
    let mut any = false;
    for slot in cluster.slots.values() {
        while let Ok(connection) = accept(slot.as_fd()) {
            let mut connection = TcpStream::from(connection);
            connection.set_nonblocking(false).unwrap();
            connection.read_exact(&mut [0]).unwrap();
            connection.write_all(b"!").unwrap();
            any = true;
        }
    }
    any
}

#[test]
fn a_position_out_of_the_plan_receives_nothing_from_that_moment() {
    raise_limit();
    for policy in PolicyName::ALL {
        let Some(mut cluster) = Cluster::start(3, policy, "") else {
            return;
        };
        let stop = AtomicBool::new(false);
        let made = AtomicU32::new(0);
        let address = cluster.address;
        std::thread::scope(|scope| {
            // Clients that never pause, from two threads.
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        // A full queue makes it wait: the test accepts now and then.
                        let limit = Duration::from_secs(10);
                        let client = TcpStream::connect_timeout(&address, limit).unwrap();
                        // Leaves no TIME_WAIT behind: thousands make connecting slow.
                        set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..20 {
                cluster.eligible(&[0, 2]);
                settle().unwrap();
                let before = cluster.group.tally(1).chosen;
                let seen = made.load(Ordering::Relaxed);
                while made.load(Ordering::Relaxed) < seen + 10 {
                    for slot in cluster.slots.values() {
                        while accept(slot.as_fd()).is_ok() {}
                    }
                }
                assert_eq!(cluster.group.tally(1).chosen, before, "{policy}");
                cluster.eligible(&[0, 1, 2]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(cluster.group.unsteered(), 0);
    }
}

#[test]
fn switching_policies_under_load_loses_nothing() {
    let Some(mut cluster) = Cluster::start(4, PolicyName::RoundRobin, "") else {
        return;
    };
    let address = cluster.address;
    let answered = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = TcpStream::connect(address).unwrap();
                    client
                        .set_read_timeout(Some(Duration::from_secs(20)))
                        .unwrap();
                    client.write_all(b"?").unwrap();
                    let mut answer = Vec::new();
                    client.read_to_end(&mut answer).unwrap();
                    assert_eq!(answer, b"!");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut changes = 0;
        let weights = ["1,1,1,1", "3,1,1", "0,1,0,5"];
        while changes < 300 || answered.load(Ordering::Relaxed) < 1000 {
            let policy = PolicyName::ALL[changes % PolicyName::ALL.len()];
            cluster.policy(policy, weights[changes % weights.len()]);
            let eligible: &[&[u32]] = &[&[0, 1, 2, 3], &[1, 3], &[1], &[1, 2, 3]];
            cluster.eligible(eligible[changes % eligible.len()]);
            changes += 1;
            answer_waiting(&cluster);
        }
        stop.store(true, Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) > 0 {
            if !answer_waiting(&cluster) {
                break;
            }
        }
        assert_eq!(cluster.group.unsteered(), 0);
    });
}

#[test]
fn what_waits_in_a_closed_slot_moves_to_the_others() {
    let Some(mut cluster) = Cluster::start(3, PolicyName::RoundRobin, "") else {
        return;
    };
    let mut clients = cluster.connect_times(30);
    for client in &mut clients {
        client.write_all(b"early").unwrap();
    }
    cluster.eligible(&[0, 2]);
    drop(cluster.slots.remove(&1));
    cluster.steering.scoreboard().reset_load(1);
    let accepted = cluster.accept(30);
    assert_eq!(cluster.tally(&accepted), [15, 0, 15]);
    let moved = [0, 1, 2].map(|at| cluster.group.tally(at).migrated);
    assert_eq!(moved, [5, 0, 5], "by the policy");
    let open = [0, 1, 2].map(|at| cluster.steering.scoreboard().load(at).open);
    assert_eq!(open, [15, 0, 15]);
    for (_, mut connection) in accepted {
        connection.set_nonblocking(false).unwrap();
        let mut early = [0; 5];
        connection.read_exact(&mut early).unwrap();
        assert_eq!(&early, b"early");
    }
}

#[test]
fn a_client_that_moves_comes_to_its_new_home() {
    let Some(mut cluster) = Cluster::start(4, PolicyName::SourceHash, "") else {
        return;
    };
    let clients: Vec<_> = (1..40)
        .map(|last| connect_from([127, 0, 8, last].into(), cluster.address))
        .collect();
    cluster.eligible(&[0, 1, 3]);
    drop(cluster.slots.remove(&2));
    let accepted = cluster.accept(u32::try_from(clients.len()).unwrap());
    for (position, connection) in accepted {
        let client = connection.peer_addr().unwrap().ip();
        assert_eq!(position, home(&[0, 1, 3], client), "{client}");
    }
}

#[test]
fn a_slot_is_emptied_while_its_worker_has_it() {
    let Some(mut cluster) = Cluster::start(2, PolicyName::RoundRobin, "") else {
        return;
    };
    let hung = cluster.slots[&1].try_clone().unwrap();
    let clients = cluster.connect_times(10);
    assert_eq!(queue_length(hung.as_fd()).unwrap(), 5);
    cluster.eligible(&[0]);
    empty_slot(cluster.slots[&1].as_fd(), BACKLOG).unwrap();
    assert_eq!(queue_length(hung.as_fd()).unwrap(), 0);
    let accepted = cluster.accept(10);
    assert_eq!(cluster.tally(&accepted), [10, 0]);
    assert!(clients.iter().all(is_alive));
    // It comes back with the same socket.
    cluster
        .group
        .set_slot(1, cluster.slots[&1].as_fd())
        .unwrap();
    cluster.eligible(&[0, 1]);
    assert_eq!(cluster.spread(20), [10, 10]);
    drop(hung);
}

#[test]
fn a_slot_is_replaced_without_loss() {
    let Some(mut cluster) = Cluster::start(2, PolicyName::RoundRobin, "") else {
        return;
    };
    let clients = cluster.connect_times(8);
    let new = cluster.further_slot();
    cluster.group.set_slot(1, new.as_fd()).unwrap();
    let old = cluster.slots.insert(1, new).unwrap();
    assert_eq!(
        queue_length(old.as_fd()).unwrap(),
        4,
        "what it has, it keeps"
    );
    let more = cluster.connect_times(8);
    assert_eq!(
        queue_length(old.as_fd()).unwrap(),
        4,
        "and it gets nothing new"
    );
    drop(old);
    let accepted = cluster.accept(16);
    assert_eq!(
        cluster.tally(&accepted),
        [10, 6],
        "what is left over takes turns"
    );
    assert!(clients.iter().chain(&more).all(is_alive));
}

#[test]
fn positions_come_and_go_at_run_time() {
    let Some(mut cluster) = Cluster::start(1, PolicyName::RoundRobin, "") else {
        return;
    };
    assert_eq!(cluster.spread(3), [3]);
    for position in 1..4 {
        let slot = cluster.further_slot();
        cluster.group.set_slot(position, slot.as_fd()).unwrap();
        cluster.slots.insert(position, slot);
    }
    cluster.eligible(&[0, 1, 2, 3]);
    assert_eq!(cluster.spread(8), [2, 2, 2, 2]);
    // The socket that the program was attached through goes; the program stays.
    cluster.eligible(&[1, 2, 3]);
    drop(cluster.slots.remove(&0));
    assert_eq!(cluster.spread(9), [0, 3, 3, 3]);
}

#[test]
fn a_position_without_slot_is_passed_over() {
    let Some(cluster) = Cluster::start(3, PolicyName::RoundRobin, "") else {
        return;
    };
    cluster.group.clear_slot(1).unwrap();
    cluster.group.clear_slot(1).unwrap();
    assert_eq!(cluster.spread(9), [3, 0, 6], "the next in turn has it");
    cluster
        .group
        .set_slot(1, cluster.slots[&1].as_fd())
        .unwrap();
    assert_eq!(cluster.spread(9), [3, 3, 3]);
}

#[test]
fn with_nobody_eligible_a_queue_keeps_the_connection() {
    let Some(mut cluster) = Cluster::start(2, PolicyName::RoundRobin, "") else {
        return;
    };
    cluster.eligible(&[]);
    let clients = cluster.connect_times(6);
    let accepted = cluster.accept(6);
    assert_eq!(cluster.group.unsteered(), 6);
    assert!(clients.iter().all(is_alive));
    drop(accepted);
}

#[test]
fn absurd_loads_keep_nobody_from_being_chosen() {
    for policy in [
        PolicyName::LeastConnections,
        PolicyName::Fastest,
        PolicyName::PowerOfTwo,
    ] {
        let Some(cluster) = Cluster::start(2, policy, "") else {
            return;
        };
        let board = cluster.steering.scoreboard();
        for at in 0..2 {
            board.correct(at, i32::MAX);
            board.seat(at, Lane::Even).unwrap().closed();
            let seat = board.seat(at, Lane::Odd).unwrap();
            for _ in 0..3 {
                seat.ended(Duration::MAX);
            }
        }
        let spread = cluster.spread(40);
        assert_eq!(spread.iter().sum::<u32>(), 40, "{policy}");
    }
}

#[test]
fn a_worker_reports_through_a_descriptor() {
    let Some(cluster) = Cluster::start(2, PolicyName::LeastConnections, "") else {
        return;
    };
    let fd = cluster.steering.scoreboard().duplicate().unwrap();
    let worker = std::sync::Arc::new(Scoreboard::from_fd(fd).unwrap());
    let _clients = cluster.connect_times(4);
    assert_eq!(worker.load(0).open, 2);
    let seat = worker.seat(0, Lane::Even).unwrap();
    seat.accepted();
    seat.closed();
    assert_eq!(cluster.steering.scoreboard().load(0).open, 1);
}

#[test]
fn two_listeners_count_into_one_scoreboard() {
    let Some(first) = Cluster::start(2, PolicyName::LeastConnections, "") else {
        return;
    };
    let slots = bind_slots("127.0.0.1:0".parse().unwrap(), 2, &TcpOptions::default()).unwrap();
    let mut second = first.steering.attach(slots[0].as_fd()).unwrap();
    for (position, slot) in (0..).zip(&slots) {
        second.set_slot(position, slot.as_fd()).unwrap();
    }
    let plan = Plan {
        rule: Rule::LeastConnections,
        turns: &[0, 1],
        eligible: &[3],
        start: 0,
    };
    second.switch(&plan).unwrap();
    first.steering.scoreboard().set_open(0, 3);
    let phalanx_sys::socket::Address::Inet(address) =
        phalanx_sys::socket::local_address(slots[0].as_fd()).unwrap()
    else {
        panic!("no internet socket");
    };
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!((second.tally(0).chosen, second.tally(1).chosen), (0, 1));
    assert_eq!(first.steering.scoreboard().load(1).open, 1);
    assert_eq!(first.next(), 1);
}
