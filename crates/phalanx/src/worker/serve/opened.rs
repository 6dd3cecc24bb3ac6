//! A connection whose first bytes were read ahead: they tell which HTTP its client speaks.
//!
//! It also ends HTTP/2 connections gently, and those of HTTP/1 that carried an upload last: whatever the client still sends is read until it
//! closes. A socket that is closed with unread bytes is reset, and the client may lose the end of an answer by that.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What an HTTP/2 client says first (RFC 9113, 3.4). No HTTP/1 request begins like this.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Enough for the head of most requests, so that reading ahead costs no system call.
const AHEAD_BYTES: usize = 1024;

/// How long a client may be silent at the end of its connection without closing it.
const SILENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose protocol is known.
#[derive(Debug)]
pub(super) struct Opened<T> {
    io: T,
    protocol: Protocol,
    /// Bytes that were read ahead, and how many of them were taken.
    ahead: Vec<u8>,
    taken: usize,
    /// Until when the client may close; there once this side is shut.
    parting: Option<Pin<Box<Sleep>>>,
    /// HTTP/1: the client may still be sending what nobody reads.
    lingers: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> Opened<T> {
    /// Reads until the protocol is plain. A client that closes before has no HTTP/2 to speak.
    pub(super) async fn open(mut io: T, lingers: Arc<AtomicBool>) -> io::Result<Self> {
        let mut ahead = Vec::with_capacity(AHEAD_BYTES);
        let protocol = loop {
            if let Some(protocol) = protocol_of(&ahead) {
                break protocol;
            }
            if io.read_buf(&mut ahead).await? == 0 {
                break Protocol::Http1;
            }
        };
        Ok(Self {
            io,
            protocol,
            ahead,
            taken: 0,
            parting: None,
            lingers,
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Reads and forgets until the client closes, or says nothing for too long.
    fn poll_parted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let parting = self
            .parting
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + SILENCE)));
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    parting.as_mut().reset(Instant::now() + SILENCE);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return parting.as_mut().poll(cx),
            }
        }
    }
}

/// What the first bytes of a client say; nothing while they may be either's.
fn protocol_of(bytes: &[u8]) -> Option<Protocol> {
    let count = bytes.len().min(PREFACE.len());
    if bytes[..count] != PREFACE[..count] {
        return Some(Protocol::Http1);
    }
    (count == PREFACE.len()).then_some(Protocol::Http2)
}

impl<T: AsyncRead + Unpin> AsyncRead for Opened<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let rest = &self.ahead[self.taken..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.ahead.len() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Opened<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parting.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.protocol == Protocol::Http2 || self.lingers.load(Ordering::Acquire) {
            ready!(self.poll_parted(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn only_the_whole_preface_is_http_2() {
        assert_eq!(protocol_of(b""), None);
        assert_eq!(protocol_of(b"P"), None);
        assert_eq!(protocol_of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n"), None);
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
        assert_eq!(
            protocol_of(&[&PREFACE[..], b"more"].concat()),
            Some(Protocol::Http2)
        );
        assert_eq!(protocol_of(b"GET / HTTP/1.1"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"POST / HTTP/1.1"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"PRI * HTTP/1.1"), Some(Protocol::Http1));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whatever_was_read_ahead_is_read_again() {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(b"GET /").await.unwrap();
        let mut opened = Opened::open(server, Arc::default()).await.unwrap();
        assert_eq!(opened.protocol(), Protocol::Http1);
        client.write_all(b" HTTP/1.1").await.unwrap();
        client.shutdown().await.unwrap();
        let mut part = [0; 3];
        opened.read_exact(&mut part).await.unwrap();
        assert_eq!(&part, b"GET");
        let mut rest = Vec::new();
        opened.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b" / HTTP/1.1");
    }
}
