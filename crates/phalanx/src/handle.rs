//! A socket that travels with a message: what Node calls a handle.
//!
//! INVARIANT: a handle has one owner. Of those who see a message with one, the first who takes it has it; one that nobody
//! has taken is closed with the last copy of its message.

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::wire::HandleType;
use phalanx_sys::socket::{SocketKind, set_nonblocking, socket_kind};
use tokio::sync::Notify;

use crate::error::{Error, MessageError};

/// A socket that goes with a message, from one process to another: the second argument of Node's `worker.send` and
/// `process.send`.
///
/// One that was received does not block, as `from_std` of tokio's types wants it. Sending one makes it so, too, and every duplicate
/// with it.
///
/// ```
/// use std::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// // What Node's option `keepOpen` is for: a duplicate stays here.
/// let handle = phalanx::Handle::from(listener.try_clone()?);
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Handle {
    /// A TCP connection (`net.Socket`).
    TcpStream(TcpStream),
    /// A socket that listens on a TCP address (`net.Server`).
    TcpListener(TcpListener),
    /// A Unix connection (`net.Socket`).
    UnixStream(UnixStream),
    /// A socket that listens on a Unix address (`net.Server`).
    UnixListener(UnixListener),
    /// A UDP socket (`dgram.Socket`).
    UdpSocket(UdpSocket),
}

impl Handle {
    /// What came: the kernel tells what it is, whatever its sender says.
    pub(crate) fn received(descriptor: OwnedFd) -> io::Result<Self> {
        let kind = socket_kind(descriptor.as_fd())?;
        set_nonblocking(descriptor.as_fd())?;
        match kind {
            SocketKind::TcpStream => Ok(Self::TcpStream(descriptor.into())),
            SocketKind::TcpListener => Ok(Self::TcpListener(descriptor.into())),
            SocketKind::UnixStream => Ok(Self::UnixStream(descriptor.into())),
            SocketKind::UnixListener => Ok(Self::UnixListener(descriptor.into())),
            SocketKind::Udp => Ok(Self::UdpSocket(descriptor.into())),
            SocketKind::Other | _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// As what it travels.
    pub(crate) fn kind(&self) -> HandleType {
        match self {
            Self::TcpStream(_) | Self::UnixStream(_) => HandleType::Socket,
            Self::TcpListener(_) | Self::UnixListener(_) => HandleType::Server,
            Self::UdpSocket(socket) => match socket.local_addr() {
                Ok(address) if address.is_ipv6() => HandleType::Udp6,
                Ok(_) | Err(_) => HandleType::Udp4,
            },
        }
    }

    /// A duplicate, for who goes on using what he sends (`keepOpen`).
    ///
    /// # Errors
    /// As dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::TcpStream(socket) => Self::TcpStream(socket.try_clone()?),
            Self::TcpListener(socket) => Self::TcpListener(socket.try_clone()?),
            Self::UnixStream(socket) => Self::UnixStream(socket.try_clone()?),
            Self::UnixListener(socket) => Self::UnixListener(socket.try_clone()?),
            Self::UdpSocket(socket) => Self::UdpSocket(socket.try_clone()?),
        })
    }

    /// To be sent. Node's event loop hangs on a socket that blocks.
    pub(crate) fn into_outgoing(self) -> OwnedFd {
        let descriptor = OwnedFd::from(self);
        if let Err(error) = set_nonblocking(descriptor.as_fd()) {
            tracing::debug!(%error, "a socket to be sent goes on blocking");
        }
        descriptor
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::TcpStream(socket) => socket.as_fd(),
            Self::TcpListener(socket) => socket.as_fd(),
            Self::UnixStream(socket) => socket.as_fd(),
            Self::UnixListener(socket) => socket.as_fd(),
            Self::UdpSocket(socket) => socket.as_fd(),
        }
    }
}

impl From<Handle> for OwnedFd {
    fn from(handle: Handle) -> Self {
        match handle {
            Handle::TcpStream(socket) => socket.into(),
            Handle::TcpListener(socket) => socket.into(),
            Handle::UnixStream(socket) => socket.into(),
            Handle::UnixListener(socket) => socket.into(),
            Handle::UdpSocket(socket) => socket.into(),
        }
    }
}

/// Makes a handle of each kind of socket.
macro_rules! from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Handle {
            fn from(socket: $kind) -> Self {
                Self::$kind(socket)
            }
        }
    )*};
}
from!(TcpStream, TcpListener, UnixStream, UnixListener, UdpSocket);

/// A message with a handle was not sent. The handle is here again.
#[derive(Debug, thiserror::Error)]
#[error("the handle was not sent")]
#[non_exhaustive]
pub struct Unsent {
    /// Why.
    #[source]
    pub error: MessageError,
    /// What was to be sent.
    pub handle: Handle,
}

impl From<Unsent> for Error {
    fn from(unsent: Unsent) -> Self {
        Self::Message(unsent.error)
    }
}

impl From<Unsent> for MessageError {
    fn from(unsent: Unsent) -> Self {
        unsent.error
    }
}

/// The handles that one worker has sent and that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    count: AtomicUsize,
    untaken: AtomicUsize,
    /// Rings when there is one less.
    pub(crate) changed: Notify,
}

impl Unread {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// How many were closed because nobody took them, since the last call.
    pub(crate) fn take_untaken(&self) -> usize {
        self.untaken.swap(0, Ordering::AcqRel)
    }
}

/// A handle that came with a message, until somebody takes it.
pub(crate) struct Parcel {
    handle: Mutex<Option<Handle>>,
    unread: Arc<Unread>,
}

impl Parcel {
    pub(crate) fn new(handle: Handle, unread: Arc<Unread>) -> Self {
        unread.count.fetch_add(1, Ordering::AcqRel);
        let handle = Mutex::new(Some(handle));
        Self { handle, unread }
    }

    pub(crate) fn is_full(&self) -> bool {
        let handle = self.handle.lock();
        handle.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn take(&self) -> Option<Handle> {
        let handle = self.handle.lock();
        let handle = handle.unwrap_or_else(PoisonError::into_inner).take();
        if handle.is_some() {
            self.is_read();
        }
        handle
    }

    fn is_read(&self) {
        self.unread.count.fetch_sub(1, Ordering::AcqRel);
        self.unread.changed.notify_one();
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        let handle = self.handle.get_mut();
        if handle.unwrap_or_else(PoisonError::into_inner).is_some() {
            self.unread.untaken.fetch_add(1, Ordering::AcqRel);
            self.is_read();
        }
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handle = self.handle.lock();
        handle.unwrap_or_else(PoisonError::into_inner).fmt(f)
    }
}
