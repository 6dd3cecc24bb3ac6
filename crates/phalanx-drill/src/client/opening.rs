//! A connection while it is made.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use tokio::net::TcpStream;

use super::failed::{Failed, Origin};
use crate::cause::{self, Cause};

/// A slow reader's receive buffer.
const SLOW_BUFFER_BYTES: usize = 4 << 10;

/// A connection that was asked for.
#[derive(Debug)]
pub(super) struct Opening {
    stream: TcpStream,
    origin: Origin,
}

impl Opening {
    /// Asks for a connection. `now` is the moment before: this task may learn of the connection long after the server has it.
    pub(super) fn begin(address: SocketAddr, slow: bool, now: Duration) -> Result<Self, Failed> {
        let fault = |error: io::Error| Failed::new(Cause::ClientFault, error.to_string());
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None);
        let socket = socket.map_err(|error| fault(error.into()))?;
        if slow {
            // A larger buffer would only make the client less slow.
            let set = sockopt::set_socket_recv_buffer_size(&socket, SLOW_BUFFER_BYTES);
            set.map_err(|error| fault(error.into()))?;
        }
        match connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(refusal(&error.into())),
        }
        let stream = std::net::TcpStream::from(socket);
        let port = stream.local_addr().map_err(fault)?.port();
        Ok(Self {
            stream: TcpStream::from_std(stream).map_err(fault)?,
            origin: Origin {
                port,
                connected_at: now,
            },
        })
    }

    /// Waits until it is made.
    pub(super) async fn finish(self) -> Result<(TcpStream, Origin), Failed> {
        let made = self.stream.writable().await;
        let error = made.and_then(|()| self.stream.take_error());
        match error {
            Ok(None) => Ok((self.stream, self.origin)),
            Ok(Some(error)) | Err(error) => Err(Failed {
                origin: Some(self.origin),
                ..refusal(&error)
            }),
        }
    }
}

fn refusal(error: &io::Error) -> Failed {
    Failed::new(cause::of_connecting(error), error.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_reset_while_it_is_made_is_known_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let opening = Opening::begin(address, false, Duration::from_secs(1));
        let opening = opening.expect("a connection");
        let (accepted, client) = listener.accept().expect("the connection");
        // Closing it resets it.
        sockopt::set_socket_linger(&accepted, Some(Duration::ZERO)).expect("SO_LINGER");
        drop(accepted);
        let failed = opening.finish().await.expect_err("a reset");
        assert_eq!(failed.cause, Cause::ResetWhileConnecting);
        let origin = Origin {
            port: client.port(),
            connected_at: Duration::from_secs(1),
        };
        assert_eq!(failed.origin, Some(origin));
    }

    #[tokio::test]
    async fn who_listens_nowhere_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let failed = match Opening::begin(address, false, Duration::ZERO) {
            Ok(opening) => opening.finish().await.expect_err("a refusal"),
            Err(failed) => failed,
        };
        assert_eq!(failed.cause, Cause::Refused);
    }
}
