//! Readiness by asking: an HTTP request to a worker that gets no connections yet, over a slot that nobody else
//! is steered to. The program that chooses slots knows the question by its source port.
//!
//! INVARIANT: the exception for the port ends before the next question of the same listener begins, and before the
//! worker's slot becomes its position's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Shared;
use super::clock;
use super::hub::Hub;
use super::worker::Cell;
use crate::settings::Readiness;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a worker may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// On loopback, a connection is there at once; not so when the worker's queue is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Asks until the worker answers well or is gone.
pub(super) fn start(shared: Weak<Shared>, cell: Arc<Cell>) {
    tokio::spawn(async move {
        let Readiness::Http(path) = &cell.readiness else {
            return;
        };
        while cell.is_connected() && !cell.is_ready() {
            let next = phalanx_sys::clock::now() + INTERVAL;
            match ask(&shared, cell.id, path).await {
                Ok(true) => {
                    if let Some(shared) = shared.upgrade() {
                        shared.hub().serves(cell.id);
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
async fn ask(shared: &Weak<Shared>, worker: WorkerId, path: &str) -> io::Result<bool> {
    let mut stream = connect(shared, worker).await?;
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
pub(super) fn try_stuck(shared: Weak<Shared>, listener: ListenerId, worker: WorkerId) {
    tokio::spawn(async move {
        let place = shared
            .upgrade()
            .and_then(|shared| shared.hub().place_of(listener, worker));
        let Some((position, address)) = place else {
            return;
        };
        let trial = match connect_at(&shared, worker, listener, address).await {
            Ok(mut stream) => stream.shutdown().await.map(|()| stream),
            Err(error) => Err(error),
        };
        let trial = trial.inspect_err(|error| {
            tracing::debug!(worker = worker.0, %error, "clients try a worker that was stuck");
        });
        if let Some(shared) = shared.upgrade() {
            let mut hub = shared.hub();
            let slots = hub.listeners.get_mut(&listener);
            if let Some(slots) = slots.and_then(|listener| listener.slots.as_mut()) {
                slots.tried(position, worker, trial.ok());
            }
        }
    });
}

/// A connection that waits in the worker's slot, or that it has accepted.
async fn connect(shared: &Weak<Shared>, worker: WorkerId) -> io::Result<TcpStream> {
    let (listener, address) = {
        let shared = shared.upgrade().ok_or_else(gone)?;
        shared.hub().asked_at(worker).ok_or_else(gone)?
    };
    connect_at(shared, worker, listener, address).await
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// As [`connect`], on one of its listeners.
async fn connect_at(
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
        let shared = shared.upgrade().ok_or_else(gone)?;
        shared.hub().begin_probe(listener, worker, port)?;
    }
    let stream = clock::timeout_at(limit, socket.connect(address)).await;
    if let Some(shared) = shared.upgrade() {
        shared.hub().end_probe(listener);
    }
    stream.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
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
    /// The listener on which the worker is asked, and its address: the first of its listeners with slots.
    fn asked_at(&self, worker: WorkerId) -> Option<(ListenerId, SocketAddr)> {
        let mut held = self.workers.get(&worker)?.held.values();
        held.find_map(|held| {
            let slots = self.listeners.get(&held.listener)?.slots.as_ref()?;
            Some((held.listener, slots.address()))
        })
    }

    /// The worker's position, and where it is reached.
    fn place_of(&self, id: ListenerId, worker: WorkerId) -> Option<(Position, SocketAddr)> {
        let position = self.workers.get(&worker)?.cell.position;
        let slots = self.listeners.get(&id)?.slots.as_ref()?;
        Some((position, slots.address()))
    }

    fn begin_probe(&mut self, id: ListenerId, worker: WorkerId, port: u16) -> io::Result<()> {
        let slots = self.listeners.get_mut(&id);
        let slots = slots.and_then(|listener| listener.slots.as_mut());
        slots
            .ok_or(io::ErrorKind::NotFound)?
            .begin_probe(worker, port)
    }

    fn end_probe(&mut self, id: ListenerId) {
        let slots = self.listeners.get_mut(&id);
        if let Some(slots) = slots.and_then(|listener| listener.slots.as_mut()) {
            slots.end_probe();
        }
    }
}
