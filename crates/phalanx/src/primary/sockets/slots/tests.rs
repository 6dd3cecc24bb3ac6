//! Slots with real sockets, steered by the eBPF program where this process may load it, and by a classic one.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use std::net::{Ipv4Addr, TcpStream};

use phalanx_testkit::missing;

use super::*;

const POSITIONS: [Position; 2] = [Position(0), Position(1)];

/// Slots at a free port, steered in both ways.
fn slots() -> Vec<(&'static str, Slots)> {
    let open = |steering: Option<&Steering>| {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let weights = Weights::default();
        let policy = PolicyName::RoundRobin;
        Slots::open(steering, any, &TcpOptions::default(), policy, &weights).unwrap()
    };
    let mut all = vec![("classic", open(None))];
    match Steering::ready() {
        Ok(steering) => all.push(("eBPF", open(Some(&steering)))),
        Err(reason) => missing!("dispatch in the kernel: {reason}"),
    }
    all
}

/// Two workers, of which this is the first, and their positions.
fn both(first: u32) -> impl Iterator<Item = (Position, WorkerId)> {
    POSITIONS.into_iter().zip([first, first + 1].map(WorkerId))
}

/// Two workers serve, of which this is the first.
fn both_serve(slots: &mut Slots, first: u32) {
    for (position, worker) in both(first) {
        slots.slot_for(position, worker).unwrap();
        slots.serves(position, worker);
    }
}

/// So much time passes that nothing is left to be settled.
fn settle(slots: &mut Slots) {
    assert!(slots.begins_to_settle());
    while slots.settle() {}
}

#[test]
fn who_dies_before_serving_leaves_a_socket_that_listens() {
    for (by, mut slots) in slots() {
        let reaches = |slots: &Slots| TcpStream::connect(slots.address());
        // The very first worker.
        slots.slot_for(POSITIONS[0], WorkerId(1)).unwrap();
        slots.gone(POSITIONS[0], WorkerId(1));
        assert!(reaches(&slots).is_ok(), "{by}");

        both_serve(&mut slots, 2);
        for (position, worker) in both(2) {
            slots.gone(position, worker);
            slots.give_up(position);
        }
        // What the last has left is another position's now, whose worker does not come to serve either.
        for worker in [4, 5, 6].map(WorkerId) {
            slots.slot_for(POSITIONS[0], worker).unwrap();
            slots.gone(POSITIONS[0], worker);
            assert!(reaches(&slots).is_ok(), "{by}, after worker {worker:?}");
        }

        let socket = slots.slot_for(POSITIONS[0], WorkerId(7)).unwrap();
        slots.serves(POSITIONS[0], WorkerId(7));
        if slots.group.migrates() {
            // All that have waited meanwhile.
            settle(&mut slots);
            let waiting = socket::queue_length(socket.as_fd()).unwrap();
            assert_eq!(waiting, 4, "{by}");
        }
    }
}

#[test]
fn what_waits_for_a_successor_that_starts_moves_when_another_serves() {
    for (by, mut slots) in slots() {
        both_serve(&mut slots, 1);
        for (position, worker) in both(1) {
            slots.gone(position, worker);
        }
        let clients: Vec<_> = (0..8)
            .map(|_| TcpStream::connect(slots.address()).unwrap())
            .collect();
        let sockets: Vec<_> = both(3)
            .map(|(position, worker)| slots.slot_for(position, worker).unwrap())
            .collect();
        slots.serves(POSITIONS[1], WorkerId(4));
        if slots.group.migrates() {
            settle(&mut slots);
            let waiting = socket::queue_length(sockets[1].as_fd()).unwrap();
            assert_eq!(waiting, 8, "{by}");
        }
        drop(clients);
    }
}

#[test]
fn a_question_that_moved_to_another_worker_is_known() {
    for (by, mut slots) in slots() {
        both_serve(&mut slots, 1);
        slots.gone(POSITIONS[0], WorkerId(1));
        // Its successor is asked before what waits has moved.
        slots.slot_for(POSITIONS[0], WorkerId(3)).unwrap();
        let (port, asking) = client();
        let place = slots.begin_probe(WorkerId(3), port).unwrap();
        assert!(!slots.begins_to_settle() || slots.settle(), "{by}");
        rustix::net::connect(&asking, &slots.address()).unwrap();
        slots.end_probe();
        assert!(slots.has_stayed(WorkerId(3), &place), "{by}");
        while slots.settle() {}
        let moves = slots.group.migrates();
        assert_eq!(slots.has_stayed(WorkerId(3), &place), !moves, "{by}");
        let other = slots.socket_of(POSITIONS[1], WorkerId(2)).unwrap();
        let waiting = socket::queue_length(other.as_fd()).unwrap();
        assert_eq!(waiting, u32::from(moves), "{by}");
    }
}

/// A socket that is not connected yet, and its port.
fn client() -> (u16, OwnedFd) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&client, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let own = SocketAddr::try_from(getsockname(&client).unwrap()).unwrap();
    (own.port(), client)
}
