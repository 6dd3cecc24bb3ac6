//! The slots of a listener: one group, and nobody else's. Needs no privilege.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Barrier;

use phalanx_sys::socket::{
    Address, TcpOptions, add_slot, bind_slots, bind_tcp, empty_slot, is_awaited, is_listening,
    local_address, queue_length, refuse_newcomers,
};

use phalanx_sys::steering::{ClassicGroup, Draw, Member};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn slots(address: SocketAddr, count: usize) -> std::io::Result<Vec<OwnedFd>> {
    bind_slots(address, count, &TcpOptions::default())
}

fn address(slot: &OwnedFd) -> SocketAddr {
    let Address::Inet(address) = local_address(slot.as_fd()).unwrap() else {
        panic!("no internet socket");
    };
    address
}

fn waiting(slots: &[OwnedFd]) -> Vec<u32> {
    let length = |slot: &OwnedFd| queue_length(slot.as_fd()).unwrap();
    slots.iter().map(length).collect()
}

#[test]
fn slots_share_an_address_and_its_connections() {
    let mut slots = slots(LOOPBACK, 3).unwrap();
    let at = address(&slots[0]);
    slots.push(add_slot(slots[1].as_fd(), 64).unwrap());
    for slot in &slots {
        assert!(is_listening(slot.as_fd()).unwrap());
        assert_eq!(address(slot), at);
    }
    let _clients: Vec<_> = (0..80).map(|_| TcpStream::connect(at).unwrap()).collect();
    let waiting = waiting(&slots);
    assert_eq!(waiting.iter().sum::<u32>(), 80);
    assert!(waiting.iter().all(|&count| count > 0), "{waiting:?}");
    assert!(bind_slots(LOOPBACK, 0, &TcpOptions::default()).is_err());
}

#[test]
fn newcomers_are_refused_and_who_waits_is_accepted() {
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(slots) = slots(ip.parse().unwrap(), 2) else {
            continue;
        };
        let at = address(&slots[0]);
        let _clients: Vec<_> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
        for slot in &slots {
            refuse_newcomers(slot.as_fd()).unwrap();
        }
        let refused = TcpStream::connect(at).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let mut accepted = Vec::new();
        for slot in &slots {
            while is_awaited(slot.as_fd()).unwrap() {
                accepted.push(phalanx_sys::socket::accept(slot.as_fd()).unwrap());
            }
        }
        assert_eq!(accepted.len(), 20);
    }
}

#[test]
fn a_group_of_one_is_a_group() {
    let mut slots = slots(LOOPBACK, 1).unwrap();
    slots.push(add_slot(slots[0].as_fd(), 64).unwrap());
    let at = address(&slots[0]);
    let _clients: Vec<_> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
    assert!(waiting(&slots).iter().all(|&count| count > 0));
}

#[test]
fn a_second_cluster_fails_whatever_the_size_of_the_first() {
    for count in [1, 3] {
        let first = slots(LOOPBACK, count).unwrap();
        let at = address(&first[0]);
        for address in [at, SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port()))] {
            let error = slots(address, 2).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{address}");
        }
        assert!(TcpListener::bind(at).is_err(), "nor does anybody else");
        // As long as any slot lives, in whatever process.
        let last = first.into_iter().next_back();
        assert!(slots(at, 1).is_err());
        drop(last);
        slots(at, 1).unwrap();
    }
}

#[test]
fn whoever_listens_alone_keeps_a_cluster_out() {
    let other = TcpListener::bind(LOOPBACK).unwrap();
    let error = slots(other.local_addr().unwrap(), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

/// Proving the address free and taking it are one step, so there is no moment for a second.
#[test]
fn of_clusters_that_start_at_once_one_gets_the_address() {
    const CLUSTERS: usize = 4;
    let mut total = 0;
    for _ in 0..200 {
        let free = bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap();
        let at = address(&free);
        drop(free);
        let start = Barrier::new(CLUSTERS);
        let winners = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLUSTERS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        slots(at, 3)
                    })
                })
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            results.collect::<Vec<_>>()
        });
        let won = winners.iter().filter(|result| result.is_ok()).count();
        assert!(won <= 1, "{won} clusters share {at}");
        total += won;
    }
    assert!(total > 100, "{total} of 200 times one got it");
}

#[test]
fn an_emptied_slot_listens_again() {
    let slots = slots(LOOPBACK, 2).unwrap();
    let at = address(&slots[0]);
    let _clients: Vec<_> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
    empty_slot(slots[1].as_fd(), 64).unwrap();
    assert_eq!(queue_length(slots[1].as_fd()).unwrap(), 0);
    assert!(is_listening(slots[1].as_fd()).unwrap());
    // The first one has its port from the kernel, and keeps it all the same.
    empty_slot(slots[0].as_fd(), 64).unwrap();
    assert_eq!(address(&slots[0]), at);
    let _more: Vec<_> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
    assert!(waiting(&slots).iter().all(|&count| count > 0));
    let idle = bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap();
    assert!(empty_slot(idle.as_fd(), 64).is_err());
}

/// A group of `count` slots under a classic program, and its address.
fn classic(count: usize) -> (ClassicGroup, Vec<(Member, OwnedFd)>, SocketAddr) {
    let first = slots(LOOPBACK, 1).unwrap().pop().unwrap();
    let at = address(&first);
    let (mut group, member) = ClassicGroup::new(first.as_fd()).unwrap();
    let mut members = vec![(member, first)];
    while members.len() < count {
        let slot = add_slot(members[0].1.as_fd(), 512).unwrap();
        members.push((group.add(slot.as_fd()).unwrap(), slot));
    }
    (group, members, at)
}

fn connect(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| TcpStream::connect(at).unwrap())
        .collect()
}

fn queues(members: &[(Member, OwnedFd)]) -> Vec<u32> {
    let length = |(_, slot): &(Member, OwnedFd)| queue_length(slot.as_fd()).unwrap();
    members.iter().map(length).collect()
}

#[test]
fn a_classic_program_leaves_positions_out_and_keeps_weights() {
    let (mut group, members, at) = classic(4);
    let shares = [(members[1].0, 3), (members[3].0, 1)];
    group.share(Draw::Chance, &shares).unwrap();
    let _clients = connect(at, 200);
    let got = queues(&members);
    assert_eq!((got[0], got[2]), (0, 0), "without a share: {got:?}");
    assert_eq!(got[1] + got[3], 200);
    // 3:1 at random: 150 and 50, ten standard deviations allowed.
    assert!((89..=199).contains(&got[1]), "{got:?}");
}

#[test]
fn a_probe_reaches_a_socket_without_a_share_and_nobody_else_does() {
    let (mut group, members, at) = classic(3);
    for with_shares in [false, true] {
        if with_shares {
            group.share(Draw::Chance, &[(members[0].0, 1)]).unwrap();
        }
        let probe = bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap();
        let port = address(&probe).port();
        group.probe(port, members[2].0).unwrap();
        let before = queues(&members)[2];
        rustix::net::connect(&probe, &at)
            .or_else(in_progress)
            .unwrap();
        eventually(|| queues(&members)[2] == before + 1);
        if with_shares {
            let _clients = connect(at, 20);
            assert_eq!(queues(&members)[2], before + 1);
        }
        group.end_probe().unwrap();
    }
    let before = queues(&members)[0];
    let _clients = connect(at, 20);
    assert_eq!(queues(&members)[0], before + 20);
}

fn in_progress(errno: rustix::io::Errno) -> rustix::io::Result<()> {
    if errno == rustix::io::Errno::INPROGRESS {
        Ok(())
    } else {
        Err(errno)
    }
}

fn eventually(holds: impl Fn() -> bool) {
    let held =
        phalanx_testkit::wait::try_eventually(phalanx_testkit::LIMIT, || holds().then_some(()));
    assert!(held.is_some());
}

#[test]
fn a_classic_program_follows_the_numbers_when_a_socket_stops() {
    let (mut group, mut members, at) = classic(4);
    let (gone, slot) = members.remove(1);
    group.remove(gone);
    drop(slot);
    // The last of the group has taken its number.
    group.share(Draw::Chance, &[(members[2].0, 1)]).unwrap();
    let _clients = connect(at, 40);
    assert_eq!(queues(&members), [0, 0, 40]);
    let late = add_slot(members[0].1.as_fd(), 64).unwrap();
    members.push((group.add(late.as_fd()).unwrap(), late));
    group.share(Draw::Chance, &[(members[3].0, 1)]).unwrap();
    let _more = connect(at, 20);
    assert_eq!(queues(&members), [0, 0, 40, 20]);
}

#[test]
fn a_classic_program_keeps_a_client_where_it_was() {
    let (mut group, members, at) = classic(5);
    let all: Vec<_> = members.iter().map(|&(member, _)| (member, 1)).collect();
    group.share(Draw::Source, &all).unwrap();
    let _clients = connect(at, 40);
    let mut got = queues(&members);
    got.sort_unstable();
    assert_eq!(got, [0, 0, 0, 0, 40], "one client, one position");
}

#[test]
fn without_shares_a_classic_program_stays_as_it_was() {
    let (mut group, members, at) = classic(2);
    group.share(Draw::Chance, &[(members[1].0, 1)]).unwrap();
    group.share(Draw::Chance, &[]).unwrap();
    group.share(Draw::Chance, &[(members[0].0, 0)]).unwrap();
    let _clients = connect(at, 10);
    assert_eq!(queues(&members), [0, 10]);
}
