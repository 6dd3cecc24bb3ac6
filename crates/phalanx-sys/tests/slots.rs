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
    Address, TcpOptions, add_slot, bind_slots, bind_tcp, empty_slot, is_listening, local_address,
    queue_length,
};

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
    let _more: Vec<_> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
    assert!(waiting(&slots).iter().all(|&count| count > 0));
    let idle = bind_tcp(LOOPBACK, &TcpOptions::default()).unwrap();
    assert!(empty_slot(idle.as_fd(), 64).is_err());
}
