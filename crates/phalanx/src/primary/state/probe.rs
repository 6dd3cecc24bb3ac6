//! Readiness by asking: an HTTP request to a worker that gets no connections yet, over a slot that nobody else
//! is steered to. The program that chooses slots knows the question by its source port.
//!
//! INVARIANT: the exception for the port ends before the next question of the same listener begins, and before the
//! worker's slot becomes its position's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::ClientHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::primary::Shared;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::state::{Hub, Share};
use crate::settings::Readiness;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a worker may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// On loopback, a connection is there at once; not so when the worker's queue is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How a connection of the primary's own reaches a worker, and nobody else.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Over the worker's slot of this listener, which is at this address.
    Slot(ListenerId, SocketAddr),
    /// Handed over as one of this listener.
    Handed(ListenerId),
}

/// Asks until the worker answers well or is gone.
pub(in crate::primary) fn start(shared: Weak<Shared>, cell: Arc<Cell>) {
    tokio::spawn(async move {
        let Readiness::Http(path) = &cell.readiness else {
            return;
        };
        let mut turn = 0;
        while cell.is_connected() && !cell.is_ready() {
            let next = phalanx_sys::clock::now() + INTERVAL;
            turn += 1;
            match ask(&shared, cell.id, path, turn).await {
                Ok(true) => {
                    if let Some(shared) = shared.upgrade() {
                        shared.hub().proves(cell.id);
                    }
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(worker = cell.id.0, %error, "cannot ask a worker whether it serves");
                }
            }
            tokio::time::sleep_until(next.into()).await;
        }
    });
}

/// Does the worker answer well?
pub(in crate::primary) async fn ask(
    shared: &Weak<Shared>,
    worker: WorkerId,
    path: &str,
    turn: usize,
) -> io::Result<bool> {
    let stream = connect(shared, worker, turn).await?;
    exchange(stream, path).await
}

/// Puts the question to a worker that is connected. Does it answer well?
pub(super) async fn exchange(mut stream: TcpStream, path: &str) -> io::Result<bool> {
    let limit = clock::now() + ANSWER_LIMIT;
    let exchange = async {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: phalanx\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        // `HTTP/1.1 200`
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok(matches!(status[9], b'2' | b'3') && status.starts_with(b"HTTP/1."))
    };
    let answer = clock::timeout_at(limit, exchange).await;
    answer.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// Puts a connection into the slot of a worker that is stuck, and leaves it there: when it is taken, the worker is
/// well again. It says nothing, and will not: whoever takes it reads its end.
pub(in crate::primary) fn try_stuck(shared: Weak<Shared>, listener: ListenerId, worker: WorkerId) {
    tokio::spawn(async move {
        let place = shared
            .upgrade()
            .and_then(|shared| shared.hub().place_of(listener, worker));
        let Some((position, address)) = place else {
            return;
        };
        let trial = match connect_to_slot(&shared, worker, listener, address).await {
            Ok(mut stream) => stream.shutdown().await.map(|()| stream),
            Err(error) => Err(error),
        };
        let trial = trial.inspect_err(|error| {
            tracing::debug!(worker = worker.0, %error, "clients try a worker that was stuck");
        });
        if let Some(shared) = shared.upgrade() {
            let mut hub = shared.hub();
            let slots = hub.listeners.get_mut(&listener);
            if let Some(slots) = slots.and_then(|listener| listener.carrier.slots_mut()) {
                slots.tried(position, worker, trial.ok());
            }
        }
    });
}

/// A connection that waits for the worker, or that it has accepted.
pub(super) async fn connect(
    shared: &Weak<Shared>,
    worker: WorkerId,
    turn: usize,
) -> io::Result<TcpStream> {
    let way = {
        let shared = shared.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        shared.hub().way_to(worker, turn)
    };
    match way.ok_or(io::ErrorKind::NotConnected)? {
        Way::Slot(listener, address) => connect_to_slot(shared, worker, listener, address).await,
        Way::Handed(listener) => hand_one_over(shared, worker, listener).await,
    }
}

async fn connect_to_slot(
    shared: &Weak<Shared>,
    worker: WorkerId,
    listener: ListenerId,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    let address = reachable(address);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(address.ip(), 0))?;
    let port = socket.local_addr()?.port();
    let limit = clock::now() + CONNECT_LIMIT;
    {
        let shared = shared.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        shared.hub().begin_probe(listener, worker, port)?;
    }
    let stream = clock::timeout_at(limit, socket.connect(address)).await;
    if let Some(shared) = shared.upgrade() {
        shared.hub().end_probe(listener);
    }
    stream.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// A connection of the primary with itself, of which the worker is given the other end.
async fn hand_one_over(
    shared: &Weak<Shared>,
    worker: WorkerId,
    listener: ListenerId,
) -> io::Result<TcpStream> {
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let stream = TcpStream::connect(door.local_addr()?).await?;
    let own = stream.local_addr()?;
    let theirs = loop {
        let (theirs, from) = door.accept().await?;
        if from == own {
            break theirs.into_std()?;
        }
    };
    let shared = shared.upgrade().ok_or(io::ErrorKind::NotConnected)?;
    shared
        .hub()
        .hand_probe(listener, worker, OwnedFd::from(theirs))?;
    Ok(stream)
}

/// Where a listener on every address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Hub {
    /// How the worker is asked this time: on each of its TCP listeners in turn.
    fn way_to(&self, worker: WorkerId, turn: usize) -> Option<Way> {
        let held = self.machine.held(worker);
        let ways = held.filter_map(|(_, held)| {
            let listener = self.listeners.get(&held.listener)?;
            match &listener.carrier {
                Carrier::Kernel(slots) => Some(Way::Slot(held.listener, slots.address())),
                Carrier::Handoff(_) if held.share != Share::None => {
                    Some(Way::Handed(held.listener))
                }
                Carrier::Handoff(_) | Carrier::Shared(_) => None,
            }
        });
        let ways: Vec<Way> = ways.collect();
        ways.get(turn.checked_rem(ways.len())?).copied()
    }

    fn hand_probe(
        &mut self,
        id: ListenerId,
        worker: WorkerId,
        connection: OwnedFd,
    ) -> io::Result<()> {
        let position = self.workers.get(&worker).map(|state| state.cell.position());
        self.ledger
            .admit(worker, position.ok_or(io::ErrorKind::NotConnected)?);
        if !self.hand_over(id, worker, &connection) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.ledger
            .offer(id, worker, ClientHash::UNKNOWN, connection);
        self.count_offered(worker);
        Ok(())
    }

    /// The worker's position, and where it is reached.
    fn place_of(&self, id: ListenerId, worker: WorkerId) -> Option<(Position, SocketAddr)> {
        let position = self.workers.get(&worker)?.cell.position();
        let slots = self.listeners.get(&id)?.carrier.slots()?;
        Some((position, slots.address()))
    }

    fn begin_probe(&mut self, id: ListenerId, worker: WorkerId, port: u16) -> io::Result<()> {
        let slots = self.listeners.get_mut(&id);
        let slots = slots.and_then(|listener| listener.carrier.slots_mut());
        slots
            .ok_or(io::ErrorKind::NotFound)?
            .begin_probe(worker, port)
    }

    fn end_probe(&mut self, id: ListenerId) {
        let slots = self.listeners.get_mut(&id);
        if let Some(slots) = slots.and_then(|listener| listener.carrier.slots_mut()) {
            slots.end_probe();
        }
    }
}
