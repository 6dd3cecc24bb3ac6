//! The control API over TCP, with a page that shows the app and acts on it: `phalanx run --admin ADDRESS`.
//!
//! Who may use it is decided twice. By the connection (`door`): without a token, only processes of this machine that belong
//! to the primary's own user or to root, as the kernel says; with a token, everybody gets as far as the next question. By the
//! request (`gate`): the token, where there is one, and whether a page of somebody else has made a browser ask.
//!
//! INVARIANT: an address that others than this machine can reach is served with a token, or not at all.

mod door;
mod gate;
mod page;
mod token;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::get;

pub use token::{Token, TokenFile};

use crate::app::App;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::server::{Extras, routes, serve_at};
use door::Door;
use gate::Gate;

/// An address that is open and not served yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Token>,
}

impl Admin {
    /// Opens the address.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be opened, or others can reach it and there is no token.
    pub fn open(address: SocketAddr, token: Option<Token>) -> Outcome<Self> {
        if token.is_none() && demands_token(address) {
            let reason =
                format!("{address} is no address of loopback: it is served with a token only");
            return Err(Failure::new(Exit::Usage, reason));
        }
        let cannot = |error: io::Error| {
            let what = format!("cannot open {address} for the web view");
            Failure::caused(Exit::CannotCreate, &what, &error)
        };
        let listener = TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self {
            listener,
            address,
            token,
        })
    }

    /// Where it listens, with the port that it has.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end`, and then until the last answer is given and the last stream has ended. Needs a runtime.
    ///
    /// # Errors
    ///
    /// Fails if the listener does.
    pub async fn serve<A: App>(
        self,
        app: A,
        extras: Extras,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let is_open_to_all = self.token.is_some();
        let gate = Arc::new(Gate::new(self.token));
        let mut routes = routes(app, extras);
        for asset in &page::ASSETS {
            routes = routes.route(asset.path, get(async || asset.response()));
        }
        let routes = routes.layer(from_fn_with_state(gate, gate::guard));
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        serve_at(Door::new(listener, routes, is_open_to_all), end).await
    }
}

/// Whether others than this machine may reach the address.
#[must_use]
pub fn demands_token(address: SocketAddr) -> bool {
    !address.ip().is_loopback()
}
