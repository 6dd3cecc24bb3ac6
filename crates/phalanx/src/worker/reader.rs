//! The task that reads the channel, and writes what waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use phalanx_core::wire::{Frame, Frames, MAX_MESSAGE_TO_WORKER_BYTES, parse_to_worker};

use super::channel::Inner;
use crate::watched::watch;

/// Begins to read the channel, on the current runtime. Only the first call does something.
pub(super) fn start(inner: &Arc<Inner>) {
    if !inner.started.swap(true, Ordering::AcqRel) {
        tokio::spawn(follow(Arc::clone(inner)));
    }
}

async fn follow(inner: Arc<Inner>) {
    let Ok(socket) = watch(Arc::clone(&inner.channel)) else {
        return inner.close();
    };
    let mut reader = Reader::new();
    let mut full = false;
    loop {
        let retry_at = inner.retry_at();
        tokio::select! {
            readable = socket.readable() => {
                let Ok(mut readable) = readable else { return inner.close() };
                match reader.read(&inner) {
                    Ok(true) => {}
                    Ok(false) => return inner.close(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                    Err(error) => {
                        tracing::debug!(%error, "the channel cannot be read");
                        return inner.close();
                    }
                }
            }
            writable = socket.writable(), if full => {
                let Ok(mut writable) = writable else { return inner.close() };
                full = inner.flush();
                if full {
                    writable.clear_ready();
                }
            }
            () = inner.health.is_due(), if inner.health.is_watched() => inner.tell_health(),
            () = until(retry_at), if retry_at.is_some() => inner.retry(),
            () = inner.blocked.notified(), if !full => full = inner.flush(),
        }
    }
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

struct Reader {
    frames: Frames,
    handles: VecDeque<OwnedFd>,
}

impl Reader {
    fn new() -> Self {
        Self {
            frames: Frames::with_limit(MAX_MESSAGE_TO_WORKER_BYTES),
            handles: VecDeque::new(),
        }
    }

    /// Reads once. False at the end of the channel.
    fn read(&mut self, inner: &Inner) -> io::Result<bool> {
        let room = self.frames.room();
        let received =
            phalanx_sys::channel::receive(inner.channel.as_fd(), room, &mut self.handles)?;
        if received.bytes == 0 {
            return Ok(false);
        }
        self.frames.fill(received.bytes);
        while let Some(frame) = self.frames.next_frame() {
            match frame {
                Frame::Line(line) | Frame::Long(line) => match parse_to_worker(line) {
                    Ok(message) => inner.handle(message, &mut self.handles),
                    Err(error) => tracing::warn!(%error, "the primary sent a bad message"),
                },
                Frame::Senseless | Frame::Value(_) => {
                    tracing::warn!("the primary sent a bad message: not JSON");
                }
                Frame::Oversized => {
                    tracing::warn!("the primary sent an oversized message: dropped");
                }
            }
        }
        Ok(true)
    }
}
