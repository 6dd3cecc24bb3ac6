//! A worker's listener: the same to the application, however its connections arrive.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use phalanx_core::wire::SocketName;
use phalanx_sys::socket;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::ThisWorker;
use super::channel::Place;
use super::queue::Queue;
use super::stream::{Stream, StreamKind};
use crate::address::Address;
use crate::error::{ListenError, Result};
use crate::primary::from_sys;

/// The pause after this process ran out of descriptors.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);

/// A listener of a worker: for [`Listener::accept`] loops, and, with feature `axum`, for `axum::serve`.
///
/// When the worker is to leave it gives nothing more, and what it had not given yet goes back to the
/// primary, which passes it to another worker. Dropping it closes it for this worker.
pub struct Listener {
    worker: ThisWorker,
    key: String,
    address: Address,
    source: Source,
    _place: Place,
}

enum Source {
    /// Connections come through the channel.
    Handoff(Arc<Queue>),
    /// This worker accepts from a shared TCP socket.
    Tcp(TcpListener),
    /// This worker accepts from a shared Unix socket.
    Unix(UnixListener),
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Listener {
    pub(super) fn new(
        worker: ThisWorker,
        key: String,
        place: Place,
        name: Option<SocketName>,
        queue: Option<Arc<Queue>>,
        handle: Option<OwnedFd>,
    ) -> Result<Self, ListenError> {
        let asked = &place.address;
        let failed = |source| ListenError::Refused {
            address: asked.clone(),
            source,
        };
        let (source, address) = match (queue, handle) {
            (Some(queue), _) => (
                Source::Handoff(queue),
                named(name).unwrap_or_else(|| asked.clone()),
            ),
            (None, Some(handle)) => {
                let address = socket::local_address(handle.as_fd()).map_err(failed)?;
                (Source::shared(handle).map_err(failed)?, from_sys(address))
            }
            (None, None) => return Err(failed(io::Error::from(io::ErrorKind::NotConnected))),
        };
        Ok(Self {
            worker,
            key,
            address,
            source,
            _place: place,
        })
    }

    #[cfg(feature = "serve")]
    pub(super) fn worker(&self) -> &ThisWorker {
        &self.worker
    }

    /// The address, with the actual port.
    #[must_use]
    pub fn local_addr(&self) -> &Address {
        &self.address
    }

    /// The next connection and its peer's address; nothing once this worker is to leave.
    ///
    /// Taking a connection is what accepts it: until then it belongs to the primary, and a crash of
    /// this worker does not lose it. Cancel safe.
    pub async fn accept(&self) -> Option<(Stream, Address)> {
        loop {
            let accepted = match &self.source {
                Source::Handoff(queue) => {
                    let arrived = queue.next().await?;
                    let stream = self.adopt(arrived.connection);
                    self.worker.accepted(arrived.seq, true);
                    stream
                }
                Source::Tcp(listener) => {
                    let accepted = self.unless_leaving(listener.accept()).await?;
                    accepted.map(|(stream, peer)| (StreamKind::Tcp(stream), Address::Inet(peer)))
                }
                Source::Unix(listener) => {
                    let accepted = self.unless_leaving(listener.accept()).await?;
                    accepted.map(|(stream, _)| (StreamKind::Unix(stream), Address::Unnamed))
                }
            };
            match accepted {
                Ok((kind, peer)) => {
                    self.worker.inner.leaving.note_accepted();
                    return Some((Stream::new(kind, self.worker.inner.seat()), peer));
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Waits for a connection; nothing once this worker is to leave. Where one waits already, this costs
    /// a look at a flag: only who has to wait registers to be woken when this worker is to leave.
    async fn unless_leaving<T>(&self, accepting: impl Future<Output = T>) -> Option<T> {
        let leaving = &self.worker.inner.leaving;
        let (mut accepting, mut bell) = (pin!(accepting), pin!(leaving.wait()));
        poll_fn(|cx| {
            if leaving.has_begun() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(accepted) = accepting.as_mut().poll(cx) {
                return Poll::Ready(Some(accepted));
            }
            if let Some(seat) = self.worker.inner.seat() {
                seat.caught_up();
            }
            bell.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Makes a tokio stream of a connection that arrived.
    fn adopt(&self, connection: OwnedFd) -> io::Result<(StreamKind, Address)> {
        if self.address.inet().is_some() {
            let stream = TcpStream::from_std(std::net::TcpStream::from(connection))?;
            let peer = stream.peer_addr()?;
            Ok((StreamKind::Tcp(stream), Address::Inet(peer)))
        } else {
            let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(connection))?;
            Ok((StreamKind::Unix(stream), Address::Unnamed))
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.worker.close(&self.key);
    }
}

impl Source {
    fn shared(handle: OwnedFd) -> io::Result<Self> {
        socket::set_nonblocking(handle.as_fd())?;
        match socket::socket_kind(handle.as_fd())? {
            socket::SocketKind::UnixListener => {
                UnixListener::from_std(std::os::unix::net::UnixListener::from(handle))
                    .map(Self::Unix)
            }
            // What else it may be, accepting from it will tell.
            socket::SocketKind::TcpListener | _ => {
                TcpListener::from_std(std::net::TcpListener::from(handle)).map(Self::Tcp)
            }
        }
    }
}

fn named(name: Option<SocketName>) -> Option<Address> {
    let name = name?;
    Some(Address::Inet(
        (name.address.parse::<std::net::IpAddr>().ok()?, name.port).into(),
    ))
}

/// A connection that ended before it was accepted costs nothing; being out of descriptors costs a pause.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "a connection was not accepted");
    let exhausted = !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
    );
    if exhausted {
        let until = phalanx_sys::clock::now() + EXHAUSTION_PAUSE;
        tokio::time::sleep_until(until.into()).await;
    }
}

#[cfg(feature = "axum")]
mod axum_listener {
    use super::{Address, Listener, Stream};

    impl axum::serve::Listener for Listener {
        type Io = Stream;
        type Addr = Address;

        /// Waits for ever once this worker is to leave: give `axum::serve` the drain signal with
        /// `with_graceful_shutdown(worker.draining())`.
        async fn accept(&mut self) -> (Stream, Address) {
            match Listener::accept(self).await {
                Some(accepted) => accepted,
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> std::io::Result<Address> {
            Ok(Listener::local_addr(self).clone())
        }
    }

    impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for Address {
        fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Self {
            stream.remote_addr().clone()
        }
    }
}
