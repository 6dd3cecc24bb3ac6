//! Whom each policy chooses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use phalanx_core::policy::PolicyName;
use phalanx_sys::scoreboard::Lane;
use phalanx_sys::socket::{accept, queue_length};

use crate::support::cluster::{Cluster, connect_from};
use crate::{home, raise_limit};

#[test]
fn round_robin_puts_exactly_as_many_on_each() {
    for count in [1, 2, 3, 7] {
        let Some(cluster) = Cluster::start(count, PolicyName::RoundRobin, "") else {
            return;
        };
        let each = vec![12; usize::try_from(count).unwrap()];
        assert_eq!(cluster.spread(12 * count), each);
        assert_eq!(cluster.chosen(), vec![12; each.len()]);
        assert_eq!(cluster.group.unsteered(), 0);
    }
}

#[test]
fn two_hundred_and_fifty_six_positions_take_turns() {
    raise_limit();
    let Some(cluster) = Cluster::start(256, PolicyName::RoundRobin, "") else {
        return;
    };
    assert_eq!(cluster.spread(512), vec![2; 256]);
    let order: Vec<u32> = (0..256).map(|_| cluster.next()).collect();
    assert_eq!(order, (0..256).collect::<Vec<_>>());
}

#[test]
fn weighted_is_exact_in_every_round() {
    let Some(mut cluster) = Cluster::start(3, PolicyName::Weighted, "3,1,0") else {
        return;
    };
    for _ in 0..5 {
        assert_eq!(cluster.spread(4), [3, 1, 0]);
    }
    assert_eq!(cluster.spread(400), [300, 100, 0]);
    cluster.policy(PolicyName::Weighted, "1,1,2");
    assert_eq!(cluster.spread(40), [10, 10, 20]);
}

#[test]
fn least_connections_fills_up_the_emptiest() {
    let Some(mut cluster) = Cluster::start(3, PolicyName::RoundRobin, "") else {
        return;
    };
    let board = cluster.steering.scoreboard().clone();
    let seats: Vec<_> = (0..3)
        .map(|at| board.seat(at, Lane::Even).unwrap())
        .collect();
    let seat = |at: u32| &seats[usize::try_from(at).unwrap()];
    let _clients = cluster.connect_times(30);
    let mut held = cluster.accept(30);
    for (at, _) in &held {
        seat(*at).accepted();
    }
    assert_eq!([0, 1, 2].map(|at| board.load(at).open), [10, 10, 10]);
    // Position 1 gets rid of eight.
    let mut closed = 0;
    held.retain(|(at, _)| {
        let goes = *at == 1 && closed < 8;
        if goes {
            closed += 1;
            seat(1).closed();
        }
        !goes
    });
    cluster.policy(PolicyName::LeastConnections, "");
    let more = cluster.connect_times(8);
    let accepted = cluster.accept(8);
    assert_eq!(cluster.tally(&accepted), [0, 8, 0]);
    assert_eq!([0, 1, 2].map(|at| board.load(at).open), [10, 10, 10]);
    assert_eq!(cluster.spread(6), [2, 2, 2], "ties go in turn");
    drop(more);
    board.worker_gone(1, Lane::Even);
    assert_eq!(
        board.load(1).open,
        10,
        "what it had not accepted still waits"
    );
    board.reset_load(1);
    assert_eq!(cluster.spread(4), [0, 4, 0]);
}

#[test]
fn a_worker_that_does_not_accept_looks_as_busy_as_it_is() {
    let Some(cluster) = Cluster::start(2, PolicyName::LeastConnections, "") else {
        return;
    };
    let board = cluster.steering.scoreboard();
    let seat = board.seat(0, Lane::Even).unwrap();
    // Position 0 serves each connection at once; 1 accepts nothing.
    let mut clients = Vec::new();
    let mut served = 0;
    for _ in 0..40 {
        clients.push(cluster.connect());
        while let Ok(connection) = accept(cluster.slots[&0].as_fd()) {
            seat.accepted();
            drop(connection);
            seat.closed();
            served += 1;
        }
    }
    assert_eq!(queue_length(cluster.slots[&1].as_fd()).unwrap(), 1);
    assert_eq!(served, 39);
}

#[test]
fn fastest_goes_where_an_answer_comes_first() {
    let Some(cluster) = Cluster::start(3, PolicyName::Fastest, "") else {
        return;
    };
    let board = cluster.steering.scoreboard();
    let seats = [0, 1, 2].map(|at| board.seat(at, Lane::Odd).unwrap());
    for (seat, millis) in seats.iter().zip([4000, 200, 900]) {
        // Outstanding requests keep it from being forgotten while the test runs, and such times from being outwaited.
        seat.began();
        seat.began();
        seat.ended(Duration::from_millis(millis));
    }
    // Scores: 4 s × 2, 0.2 s × 2, 0.9 s × 2; a connection that waits counts as outstanding.
    assert_eq!(
        cluster.spread(7),
        [0, 7, 0],
        "until 0.2 s × 9 is as much as 0.9 s × 2"
    );
    assert_eq!(cluster.next(), 2, "ties in turn");
}

#[test]
fn power_of_two_avoids_the_busier() {
    let Some(cluster) = Cluster::start(2, PolicyName::PowerOfTwo, "") else {
        return;
    };
    let board = cluster.steering.scoreboard();
    board.set_open(0, 1000);
    assert_eq!(cluster.spread(200), [0, 200]);
    board.set_open(1, 5000);
    assert_eq!(cluster.spread(200), [200, 0]);
}

#[test]
fn a_client_comes_to_the_position_that_the_pure_policy_says() {
    let Some(mut cluster) = Cluster::start(5, PolicyName::SourceHash, "") else {
        return;
    };
    check_homes(&cluster, &[0, 1, 2, 3, 4]);
    cluster.eligible(&[0, 2, 4]);
    check_homes(&cluster, &[0, 2, 4]);
    cluster.eligible(&[3]);
    check_homes(&cluster, &[3]);
}

#[test]
fn a_dual_stack_listener_knows_its_clients_by_either_address() {
    let address = SocketAddr::from(([0_u16; 8], 0));
    if std::net::TcpListener::bind(address).is_err() {
        eprintln!("NOT RUN: no IPv6 here");
        return;
    }
    let Some(cluster) = Cluster::start_at(address, 4, PolicyName::SourceHash, "") else {
        return;
    };
    check_homes(&cluster, &[0, 1, 2, 3]);
    let home = home(&[0, 1, 2, 3], "::1".parse().unwrap());
    let target = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1_u16], cluster.address.port()));
    for _ in 0..3 {
        let _client = TcpStream::connect(target).unwrap();
        assert_eq!(cluster.accept(1)[0].0, home);
    }
}

fn check_homes(cluster: &Cluster, eligible: &[u32]) {
    for last in 1..60 {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 9, last));
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.address.port()));
        let _client = connect_from(source, target);
        assert_eq!(cluster.accept(1)[0].0, home(eligible, source), "{source}");
    }
}

#[test]
fn chance_and_the_kernels_hash_reach_all_that_are_eligible_and_no_other() {
    for policy in [PolicyName::Random, PolicyName::None] {
        let Some(mut cluster) = Cluster::start(4, policy, "") else {
            return;
        };
        cluster.eligible(&[0, 1, 3]);
        let spread = cluster.spread(300);
        assert_eq!(spread[2], 0, "{policy}: {spread:?}");
        assert!(
            [0, 1, 3].iter().all(|&at| spread[at] > 50),
            "{policy}: {spread:?}"
        );
    }
}
