//! A worker's UDP socket.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use super::ThisWorker;
use super::channel::Place;

/// A UDP socket that this worker shares with the others: used as the tokio socket that it holds.
///
/// Dropping it closes it for this worker; the address is free when the last worker has closed it.
pub struct UdpSocket {
    socket: tokio::net::UdpSocket,
    worker: ThisWorker,
    key: String,
    _place: Place,
}

impl UdpSocket {
    pub(super) fn new(
        worker: ThisWorker,
        key: String,
        place: Place,
        handle: OwnedFd,
    ) -> io::Result<Self> {
        let socket = std::net::UdpSocket::from(handle);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            worker,
            key,
            _place: place,
        })
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl Deref for UdpSocket {
    type Target = tokio::net::UdpSocket;

    fn deref(&self) -> &tokio::net::UdpSocket {
        &self.socket
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.worker.close(&self.key);
    }
}
