//! The worker's side: [`ThisWorker`], its listeners and its messages.

mod channel;
mod health;
#[cfg(feature = "tower")]
mod layer;
mod leaving;
mod listener;
mod mailbox;
mod meter;
mod outbox;
mod queue;
mod reader;
#[cfg(feature = "serve")]
mod serve;
mod shed;
mod stream;
mod udp;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::{ReplyBody, outgoing};
use phalanx_sys::scoreboard::{Lane, Scoreboard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[cfg(feature = "tower")]
pub use layer::{Metered, MeteredFuture};
pub use listener::Listener;
pub use meter::{Meter, Timed};
#[cfg(feature = "serve")]
pub use serve::{Plainly, Serve, Served, serve, serve_with};
pub use shed::{Dismissal, OpenStream};
pub use stream::{Stream, StreamKind};
pub use udp::UdpSocket;

use crate::address::{Address, ToAddress};
use crate::error::{ListenError, MessageError, Result};
use crate::handle::{Handle, Unsent};
use channel::Inner;
use queue::Queue;

/// This process, as a worker of its cluster: the counterpart of `cluster.worker` and `process.send`.
///
/// Cheap to clone. Asynchronous calls need a tokio runtime with I/O and time enabled.
#[derive(Clone)]
pub struct ThisWorker {
    inner: Arc<Inner>,
}

impl fmt::Debug for ThisWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThisWorker")
            .field("id", &self.inner.id)
            .finish_non_exhaustive()
    }
}

impl ThisWorker {
    pub(crate) fn new(id: u32, channel: OwnedFd) -> Result<Self, MessageError> {
        let inner = Inner::new(WorkerId(id), position_of(id), channel);
        inner.send_line(outgoing::worker::online)?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Its id, unique for the primary's life (`cluster.worker.id`).
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.inner.id
    }

    /// Its position: stable across respawns and reloads. A spare has none until it is needed
    /// ([`Position::is_spare`]), and keeps from then on the one that it is given.
    #[must_use]
    pub fn position(&self) -> Position {
        self.inner.position()
    }

    /// Is the channel to the primary open (`worker.isConnected`, `process.connected`)?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// Listens on an address, together with the other workers: each gets its share of the
    /// connections. The primary owns the socket; an address is opened once, by the first worker that asks.
    ///
    /// `address` is a `SocketAddr`, a path, or a text: `127.0.0.1:3000`, `[::1]:3000`, `:3000` for any
    /// address, `unix:/run/app.sock`, `unix:@name`. Port 0 lets the kernel choose one port for all workers.
    ///
    /// # Errors
    /// [`ListenError::Refused`] with the primary's reason (an address in use: `AddrInUse`), [`ListenError::Address`],
    /// [`ListenError::Channel`] when the primary is gone.
    pub async fn listen(&self, address: impl ToAddress) -> Result<Listener, ListenError> {
        let address = address.to_address()?;
        let place = self.inner.place(&address);
        let fields = listen_fields(&address, place.index);
        let (body, handle) = self.query(&address, &fields).await?;
        let key = key_of(&body).ok_or_else(|| unusable(&address))?;
        let queue = handle.is_none().then(|| self.inner.open(&key));
        let listener = Listener::new(self.clone(), key, place, body.sockname, queue, handle)?;
        let mut actual = fields;
        if let Some(bound) = listener.local_addr().inet() {
            actual["port"] = json!(bound.port());
        }
        self.inner
            .send_line(|seq| outgoing::worker::listen("listening", &actual, seq))?;
        Ok(listener)
    }

    /// Binds a UDP socket that all workers share; the kernel decides who gets a datagram. Port 0 lets
    /// the kernel choose one port for all workers.
    ///
    /// # Errors
    /// As [`ThisWorker::listen`].
    pub async fn bind_udp(&self, address: SocketAddr) -> Result<UdpSocket, ListenError> {
        let asked = Address::Inet(address);
        let place = self.inner.place(&asked);
        let kind = if address.is_ipv4() { "udp4" } else { "udp6" };
        let fields = json!({
            "address": address.ip().to_string(), "port": address.port(), "addressType": kind,
            "fd": -1, "flags": 0, "index": place.index, "data": null,
        });
        let (body, handle) = self.query(&asked, &fields).await?;
        let (Some(key), Some(handle)) = (key_of(&body), handle) else {
            return Err(unusable(&asked));
        };
        let socket = UdpSocket::new(self.clone(), key, place, handle);
        let socket = socket.map_err(|source| ListenError::Refused {
            address: asked,
            source,
        })?;
        let mut actual = fields;
        if let Ok(bound) = socket.local_addr() {
            actual["port"] = json!(bound.port());
        }
        self.inner
            .send_line(|seq| outgoing::worker::listen("listening", &actual, seq))?;
        Ok(socket)
    }

    async fn query(
        &self,
        address: &Address,
        fields: &Value,
    ) -> Result<(ReplyBody, Option<OwnedFd>), ListenError> {
        reader::start(&self.inner);
        let board = match self.inner.seat() {
            Some(_) => None,
            None => Some(self.inner.ask(outgoing::worker::board)?),
        };
        let answer = self
            .inner
            .ask(|seq| outgoing::worker::listen("queryServer", fields, seq))?;
        let (body, handle) = answer.await.map_err(|_| MessageError::Disconnected)?;
        // Answers come in order: by now it is here, or the primary is none that has a scoreboard.
        if let Some((body, Some(fd))) = board.and_then(|mut board| board.try_recv().ok()) {
            self.sit_down(&body, fd);
        }
        match body.errno.filter(|&errno| errno < 0) {
            Some(errno) => Err(ListenError::Refused {
                address: address.clone(),
                source: io::Error::from_raw_os_error(-errno),
            }),
            None => Ok((body, handle)),
        }
    }

    /// Takes its place at the scoreboard. Without one, connections are served all the same.
    fn sit_down(&self, body: &ReplyBody, board: OwnedFd) {
        let lane = match body.lane {
            Some(0) => Lane::Even,
            Some(1) => Lane::Odd,
            Some(_) | None => return,
        };
        match Scoreboard::from_fd(board) {
            Ok(board) => {
                self.inner.sit_down(Arc::new(board), lane);
            }
            Err(error) => tracing::debug!(%error, "the scoreboard cannot be used"),
        }
    }

    /// The meter of this worker's requests, for servers that do not use the layer of feature `tower`.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::new(Arc::clone(&self.inner))
    }

    /// Sends a message to the primary (`process.send`).
    ///
    /// # Errors
    /// [`MessageError::Encode`], [`MessageError::Disconnected`], [`MessageError::ChannelFull`].
    pub fn send<M: Serialize + ?Sized>(&self, message: &M) -> Result<(), MessageError> {
        let value = serde_json::to_value(message).map_err(MessageError::Encode)?;
        self.inner.send_line(|_| outgoing::user(&value))
    }

    /// The next message from the primary (`process.on('message')`); nothing once the channel is closed.
    /// Messages wait until they are taken, 16 MiB of them at most: what comes beyond that is dropped, and the log says so.
    /// With several callers each message goes to one of them. A socket that came with it is closed: see
    /// [`ThisWorker::message_with_handle`].
    pub async fn message<M: DeserializeOwned>(&self) -> Option<Result<M, MessageError>> {
        reader::start(&self.inner);
        let letter = self.inner.next_message().await?;
        Some(serde_json::from_str(&letter.text).map_err(MessageError::Decode))
    }

    /// Sends a message to the primary, and a socket with it (`process.send(message, handle)`). The socket is closed here
    /// when the primary has it; a duplicate of it stays ([`Handle::try_clone`], Node's `keepOpen`). Messages behind it wait until
    /// the primary has acknowledged it, also those that this library sends by itself. One that does not arrive is sent
    /// again, three times at most, and closed then.
    ///
    /// # Errors
    /// As [`ThisWorker::send`], and [`MessageError::HandlesFull`] when 256 wait already. The socket comes back with the error.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which it needs to hear of the acknowledgement.
    pub fn send_with_handle<M: Serialize + ?Sized>(
        &self,
        message: &M,
        handle: impl Into<Handle>,
    ) -> Result<(), Unsent> {
        reader::start(&self.inner);
        let handle = handle.into();
        match serde_json::to_value(message) {
            Ok(value) => self.inner.send_handle(&value, handle),
            Err(error) => {
                let error = MessageError::Encode(error);
                Err(Unsent { error, handle })
            }
        }
    }

    /// As [`ThisWorker::message`], with the socket that came with the message, if one did
    /// (`process.on('message', (message, handle) => …)`). 64 sockets wait at most: the primary is told that further ones did not
    /// arrive, and sends each again three times before it gives up.
    pub async fn message_with_handle<M: DeserializeOwned>(
        &self,
    ) -> Option<Result<(M, Option<Handle>), MessageError>> {
        reader::start(&self.inner);
        let letter = self.inner.next_message().await?;
        let message = serde_json::from_str(&letter.text).map_err(MessageError::Decode);
        Some(message.map(|message| (message, letter.handle)))
    }

    /// Resolves when this worker is to leave: the primary asks it to (reload, scale, stop), it called
    /// [`ThisWorker::disconnect`], or the primary is gone. Listeners give no more connections then, and
    /// the last one was given 100 ms ago or more, so that a server that now closes what is idle does not
    /// close what it has not read from yet. Finish what there is and return from `main`.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.inner);
        async move {
            reader::start(&inner);
            inner.leaving.wait().await;
            inner.leaving.settled().await;
        }
    }

    /// Is this worker to leave? See [`ThisWorker::draining`].
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.leaving.has_begun()
    }

    /// Says that the program has a stream: a connection on which HTTP is no longer spoken (a `WebSocket`), and which it ends when
    /// [`OpenStream::dismissed`] says so. `phalanx rebalance --streams` moves such streams, and leaves all others where they are. Hold what this
    /// returns until the connection is closed.
    ///
    /// ```no_run
    /// # async fn speak(worker: phalanx::ThisWorker, mut socket: tokio::net::TcpStream) -> std::io::Result<()> {
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let stream = worker.stream();
    /// let mut heard = [0; 4096];
    /// loop {
    ///     tokio::select! {
    ///         count = socket.read(&mut heard) => match count? {
    ///             0 => return Ok(()),
    ///             count => println!("{:?}", &heard[..count]),
    ///         },
    ///         _ = stream.dismissed() => return socket.write_all(b"\x88\x02\x03\xe9").await,
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn stream(&self) -> OpenStream {
        reader::start(&self.inner);
        OpenStream::new(self.clone())
    }

    /// Leaves the cluster by its own wish (`cluster.worker.disconnect`): takes no more connections,
    /// hands back those it has not accepted, and tells the primary, so that its exit is no crash.
    ///
    /// # Errors
    /// [`MessageError::Disconnected`] when the primary is gone.
    pub async fn disconnect(&self) -> Result<(), MessageError> {
        reader::start(&self.inner);
        self.inner.drain();
        let answer = self.inner.ask(outgoing::worker::leaving)?;
        answer
            .await
            .map(|_| ())
            .map_err(|_| MessageError::Disconnected)
    }

    pub(crate) fn close(&self, key: &str) {
        let queue: Option<Arc<Queue>> = self.inner.shut(key);
        if let Some(queue) = queue {
            self.inner.hand_back(&queue);
        }
        if let Err(error) = self
            .inner
            .send_line(|seq| outgoing::worker::close(key, seq))
        {
            tracing::debug!(%error, "the primary is gone");
        }
    }

    pub(crate) fn accepted(&self, seq: Option<u64>, accepted: bool) {
        self.inner.answer_offer(seq, accepted);
    }
}

/// The position that the environment names. A primary that is not phalanx says nothing of positions; ids count from 1 there too.
fn position_of(id: u32) -> Position {
    if std::env::var_os("PHALANX_SPARE").is_some() {
        return Position(Position::SPARES);
    }
    let named = std::env::var("PHALANX_POSITION").ok();
    let named = named.and_then(|position| position.parse().ok());
    Position(named.unwrap_or_else(|| id.saturating_sub(1)))
}

fn unusable(address: &Address) -> ListenError {
    ListenError::Refused {
        address: address.clone(),
        source: io::Error::new(
            io::ErrorKind::InvalidData,
            "the primary's answer cannot be used",
        ),
    }
}

fn key_of(body: &ReplyBody) -> Option<String> {
    let key = body.key.as_ref()?;
    Some(key.as_str().map_or_else(|| key.to_string(), str::to_owned))
}

/// The fields of `queryServer`, as Node writes them.
fn listen_fields(address: &Address, index: u32) -> Value {
    let (address, port, kind) = match address {
        Address::Inet(socket) => {
            let kind = if matches!(socket.ip(), IpAddr::V4(_)) {
                4
            } else {
                6
            };
            (json!(socket.ip().to_string()), json!(socket.port()), kind)
        }
        Address::AnyInet(port) => (Value::Null, json!(port), 4),
        Address::Unix(path) => (json!(absolute(path)), json!(-1), -1),
        Address::Abstract(name) => (
            json!(format!("\0{}", String::from_utf8_lossy(name))),
            json!(-1),
            -1,
        ),
        Address::Unnamed => (Value::Null, json!(-1), -1),
    };
    json!({
        "index": index, "data": null, "address": address, "port": port, "addressType": kind, "backlog": 0,
    })
}

fn absolute(path: &std::path::Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.to_string_lossy().into_owned()
}
