//! What does not belong to a group or does not fit into it: refused, kept out, or let in for one question.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use phalanx_core::policy::PolicyName;
use phalanx_sys::socket::{TcpOptions, bind_slots, bind_tcp, listen, queue_length};
use phalanx_sys::steering::{Plan, Rule, SteeringError};

use crate::support::cluster::{Cluster, steering};

#[test]
fn what_does_not_fit_is_refused() {
    let Some(mut cluster) = Cluster::start(1, PolicyName::RoundRobin, "") else {
        return;
    };
    let plan = |turns| Plan {
        rule: Rule::Turns,
        turns,
        eligible: &[],
        start: 0,
    };
    assert!(matches!(
        cluster.group.switch(&plan(&[4096])),
        Err(SteeringError::Plan)
    ));
    let long = vec![0; phalanx_sys::steering::ORDER_MAX + 1];
    assert!(matches!(
        cluster.group.switch(&plan(&long)),
        Err(SteeringError::Plan)
    ));
    cluster.group.switch(&plan(&long[1..])).unwrap();
    assert!(
        cluster
            .group
            .set_slot(4096, cluster.slots[&0].as_fd())
            .is_err()
    );
    assert!(
        cluster
            .group
            .set_slot(1, cluster.slots[&0].as_fd())
            .is_err(),
        "EBUSY"
    );
    let alone = bind_tcp("127.0.0.1:0".parse().unwrap(), &TcpOptions::default()).unwrap();
    listen(alone.as_fd(), 1).unwrap();
    assert!(
        cluster.group.set_slot(1, alone.as_fd()).is_err(),
        "no group"
    );
    let attached = cluster.steering.attach(alone.as_fd());
    assert!(matches!(attached, Err(SteeringError::Attach(_))));
    assert_eq!(cluster.spread(3), [3]);
}

#[test]
fn a_second_cluster_is_refused_and_a_stranger_receives_nothing() {
    let Some(cluster) = Cluster::start(2, PolicyName::RoundRobin, "") else {
        return;
    };
    let refused = bind_slots(cluster.address, 2, &TcpOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    let grouped = TcpOptions {
        reuse_port: true,
        ..TcpOptions::default()
    };
    let stranger = bind_tcp(cluster.address, &grouped).unwrap();
    listen(stranger.as_fd(), 64).unwrap();
    assert_eq!(cluster.spread(60), [30, 30]);
    assert_eq!(queue_length(stranger.as_fd()).unwrap(), 0);
}

#[test]
fn without_a_program_the_group_is_the_kernels() {
    let Some(cluster) = Cluster::start(2, PolicyName::RoundRobin, "") else {
        return;
    };
    let Cluster { group, slots, .. } = cluster;
    group.detach(slots[&0].as_fd()).unwrap();
    let again = steering().unwrap().attach(slots[&1].as_fd()).unwrap();
    again.detach(slots[&0].as_fd()).unwrap();
}

#[test]
fn a_probe_reaches_the_slot_that_nobody_else_does() {
    let Some(cluster) = Cluster::start(2, PolicyName::RoundRobin, "") else {
        return;
    };
    let asked = cluster.further_slot();
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let probe = bind_tcp(loopback, &TcpOptions::default()).unwrap();
    let phalanx_sys::socket::Address::Inet(from) =
        phalanx_sys::socket::local_address(probe.as_fd()).unwrap()
    else {
        panic!("an internet socket");
    };
    cluster.group.probe(from.port(), asked.as_fd()).unwrap();
    rustix::net::connect(&probe, &cluster.address).ok();
    let arrived = phalanx_testkit::wait::try_eventually(phalanx_testkit::LIMIT, || {
        (queue_length(asked.as_fd()).unwrap() == 1).then_some(())
    });
    assert!(arrived.is_some());
    assert_eq!(cluster.spread(20), [10, 10]);
    cluster.group.end_probe().unwrap();
    assert_eq!(queue_length(asked.as_fd()).unwrap(), 1);
    assert_eq!(cluster.chosen(), [10, 10]);
}
