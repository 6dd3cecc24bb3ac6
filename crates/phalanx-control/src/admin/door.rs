//! Whose connections are served.

use std::net::SocketAddr;

use axum::Router;
use phalanx_sys::connections::owner_of_peer;
use phalanx_sys::identity;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::api::ErrorKind;
use crate::server::{ACCEPT_PAUSE, Entrance, Refusal};

/// A client that takes nothing of what it asked for is given up after this time, in milliseconds (tcp(7)).
const STALL_MS: u32 = 30_000;

/// The door of an address.
pub(super) struct Door {
    listener: TcpListener,
    routes: Router,
    /// Whoever comes is answered; the request has the token, or gets nothing.
    is_open_to_all: bool,
}

impl Door {
    pub(super) fn new(listener: TcpListener, routes: Router, is_open_to_all: bool) -> Self {
        Self {
            listener,
            routes,
            is_open_to_all,
        }
    }
}

impl Entrance for Door {
    type Stream = TcpStream;

    async fn accept(&mut self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = set_tcp_user_timeout(&stream, STALL_MS) {
                        tracing::debug!(%error, "a stalled client will be given up later");
                    }
                    return stream;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the address of the web view");
                    sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn routes_for(&self, stream: &TcpStream) -> impl Future<Output = Router> + Send + 'static {
        let ends = stream
            .peer_addr()
            .and_then(|peer| Ok((peer, stream.local_addr()?)));
        let routes = self.routes.clone();
        let is_open_to_all = self.is_open_to_all;
        async move {
            if is_open_to_all {
                return routes;
            }
            let Ok((peer, own)) = ends else {
                return refusal();
            };
            if is_own(peer, own).await {
                routes
            } else {
                refusal()
            }
        }
    }
}

/// Whether a process of the primary's own user, or root's, has the other end. What cannot be told is not so.
async fn is_own(peer: SocketAddr, own: SocketAddr) -> bool {
    let owner = spawn_blocking(move || owner_of_peer(peer, own)).await;
    match owner {
        Ok(Ok(Some(uid))) if uid == identity::effective_uid() || identity::is_trusted(uid) => true,
        Ok(Ok(Some(uid))) => {
            tracing::warn!(uid, "refused another user's connection to the web view");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot tell whose connection to the web view it is");
            false
        }
        // Nobody's by now, or the question was lost.
        Ok(Ok(None)) | Err(_) => false,
    }
}

/// Says to whoever comes why it is not answered.
fn refusal() -> Router {
    Router::new().fallback(async || {
        let reason = "without a token only the user who runs the app, and root, may use it on this machine: `phalanx run --admin-token-file`";
        Refusal::new(ErrorKind::OtherUser, reason)
    })
}
