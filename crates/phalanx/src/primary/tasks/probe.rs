//! Asks workers by HTTP whether they serve, and tries those that were stuck: over connections of the primary's own, which
//! reach one worker and nobody else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{Mailbox, Put, Way};
use crate::primary::sockets::slots::Place;
use crate::settings::Readiness;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a worker may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// On loopback, a connection is there at once; not so when the worker's queue is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Asks until the worker answers well or is gone.
pub(in crate::primary) fn start(mailbox: Mailbox, cell: Arc<Cell>) {
    tokio::spawn(async move {
        let Readiness::Http(path) = &cell.readiness else {
            return;
        };
        let mut turn = 0;
        while cell.is_connected() && !cell.is_ready() {
            let next = clock::real_now() + INTERVAL;
            turn += 1;
            match ask(&mailbox, cell.id, path, turn).await {
                Ok(true) => {
                    if let Some(primary) = mailbox.open() {
                        primary.proves(cell.id);
                    }
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(worker = cell.id.0, %error, "cannot ask a worker whether it serves");
                }
            }
            clock::wait_until(next).await;
        }
    });
}

/// Does the worker answer well?
async fn ask(mailbox: &Mailbox, worker: WorkerId, path: &str, turn: usize) -> io::Result<bool> {
    let line = connect(mailbox, worker, turn).await?;
    exchange(mailbox, worker, line, path).await
}

/// A connection to one worker, which waits for it, or which it has accepted.
pub(super) struct Line {
    stream: TcpStream,
    /// Where it was put, if into a slot.
    slot: Option<(ListenerId, Place)>,
}

/// Puts the question to a worker that is connected. Does it answer well? `Interrupted` when another may have answered for it: what
/// waits in the slot of a worker that does not serve moves when others do.
pub(super) async fn exchange(
    mailbox: &Mailbox,
    worker: WorkerId,
    line: Line,
    path: &str,
) -> io::Result<bool> {
    let answer = put_question(line.stream, path).await;
    let has_stayed = match &line.slot {
        Some((listener, place)) => {
            let primary = mailbox.open().ok_or(io::ErrorKind::NotConnected)?;
            primary.has_stayed(*listener, worker, place)
        }
        None => true,
    };
    if has_stayed {
        answer
    } else {
        Err(io::ErrorKind::Interrupted.into())
    }
}

async fn put_question(mut stream: TcpStream, path: &str) -> io::Result<bool> {
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
pub(in crate::primary) fn try_stuck(mailbox: Mailbox, listener: ListenerId, worker: WorkerId) {
    tokio::spawn(async move {
        let place = mailbox.open();
        let place = place.and_then(|primary| primary.probed_slot(worker, listener));
        let Some((position, address)) = place else {
            return;
        };
        let trial = match connect_to_slot(&mailbox, worker, listener, address).await {
            Ok(mut trial) => trial.stream.shutdown().await.map(|()| trial),
            Err(error) => Err(error),
        };
        let trial = trial.inspect_err(|error| {
            tracing::debug!(worker = worker.0, %error, "clients try a worker that was stuck");
        });
        if let Some(primary) = mailbox.open() {
            primary.tried(listener, (position, worker), trial.ok());
        }
    });
}

/// Connects to the worker, on each of its listeners in turn.
pub(super) async fn connect(mailbox: &Mailbox, worker: WorkerId, turn: usize) -> io::Result<Line> {
    let way = {
        let primary = mailbox.open().ok_or(io::ErrorKind::NotConnected)?;
        primary.way_to(worker, turn)
    };
    match way.ok_or(io::ErrorKind::NotConnected)? {
        Way::Slot(listener, address) => {
            let put = connect_to_slot(mailbox, worker, listener, address).await?;
            Ok(Line {
                stream: put.stream,
                slot: Some((listener, put.place)),
            })
        }
        Way::Handed(listener) => Ok(Line {
            stream: hand_one_over(mailbox, worker, listener).await?,
            slot: None,
        }),
    }
}

async fn connect_to_slot(
    mailbox: &Mailbox,
    worker: WorkerId,
    listener: ListenerId,
    address: SocketAddr,
) -> io::Result<Put> {
    let address = reachable(address);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(address.ip(), 0))?;
    let port = socket.local_addr()?.port();
    let limit = clock::now() + CONNECT_LIMIT;
    let place = {
        let primary = mailbox.open().ok_or(io::ErrorKind::NotConnected)?;
        primary.begin_probe(listener, worker, port)?
    };
    let stream = clock::timeout_at(limit, socket.connect(address)).await;
    if let Some(primary) = mailbox.open() {
        primary.end_probe(listener);
    }
    let stream = stream.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(Put { stream, place })
}

/// A connection of the primary with itself, of which the worker is given the other end.
async fn hand_one_over(
    mailbox: &Mailbox,
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
    let primary = mailbox.open().ok_or(io::ErrorKind::NotConnected)?;
    primary.hand_probe(listener, worker, OwnedFd::from(theirs))?;
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
