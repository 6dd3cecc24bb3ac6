//! A connection: TCP or Unix, read and written alike.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use phalanx_sys::scoreboard::Seat;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection that a [`Listener`](crate::Listener) gave. While it lives, it counts as open in the
/// scoreboard, by which policies compare workers.
#[derive(Debug)]
pub struct Stream {
    kind: StreamKind,
    _open: Option<Open>,
    #[cfg(feature = "serve")]
    counted: Option<super::serve::Count>,
}

/// A connection without the counting: see [`Stream::into_kind`].
#[derive(Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "callers take the stream out by its kind"
)]
pub enum StreamKind {
    /// From a TCP listener.
    Tcp(TcpStream),
    /// From a Unix listener.
    Unix(UnixStream),
}

/// An open connection in the scoreboard, until it is dropped.
#[derive(Debug)]
struct Open(Seat);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed();
    }
}

impl Stream {
    /// Counts as open from now on, where there is a scoreboard.
    pub(super) fn new(kind: StreamKind, seat: Option<&Seat>) -> Self {
        let open = seat.map(|seat| {
            seat.accepted();
            Open(seat.clone())
        });
        Self {
            kind,
            _open: open,
            #[cfg(feature = "serve")]
            counted: None,
        }
    }

    /// Lives as long as the stream does.
    #[cfg(feature = "serve")]
    pub(super) fn count(&mut self, count: super::serve::Count) {
        self.counted = Some(count);
    }

    /// The socket itself. The connection counts as closed from now on, whatever is done with it.
    #[must_use]
    pub fn into_kind(self) -> StreamKind {
        self.kind
    }

    /// Whether `TCP_NODELAY` is set; never, on a Unix socket.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        match &self.kind {
            StreamKind::Tcp(stream) => stream.nodelay(),
            StreamKind::Unix(_) => Ok(false),
        }
    }

    /// Sets `TCP_NODELAY`; does nothing on a Unix socket.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.kind {
            StreamKind::Tcp(stream) => stream.set_nodelay(nodelay),
            StreamKind::Unix(_) => Ok(()),
        }
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().kind {
            StreamKind::Tcp($stream) => $call,
            StreamKind::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
