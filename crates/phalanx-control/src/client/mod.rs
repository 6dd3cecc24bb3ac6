//! The client side of the control plane: finds the running apps, and talks to one.

mod connection;
mod find;
mod stream;

use std::io;
use std::path::PathBuf;

use hyper::StatusCode;
use phalanx_sys::identity;
use serde_json::Value;
use tokio::net::UnixStream;

pub use self::connection::Connection;
pub use self::stream::Events;
use crate::api::{self, Method, Request};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::logs::Query;
use crate::names::Name;

/// A running app.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name.
    pub name: Name,
    socket: PathBuf,
    /// The owner of the directory in which its socket lies.
    owner: u32,
}

impl App {
    /// Connects, if it is the owner of the directory who answers.
    pub(crate) async fn reach(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket).await?;
        let peer = stream.peer_cred()?.uid();
        let is_own = self.owner == identity::effective_uid();
        if peer == self.owner || (is_own && identity::is_trusted(peer)) {
            return Ok(stream);
        }
        let reason = format!(
            "{} lies in a directory of the user with id {}, and the user with id {peer} serves it",
            self.socket.display(),
            self.owner
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
    }

    /// Asks something, or for something to be done, and waits as long as the primary shows that it works on it.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, falls silent, or answers with an error.
    pub async fn ask<R: Request>(&self, request: &R) -> Outcome<R::Answer> {
        let answer = self.ask_for_json(request).await?;
        connection::read(&self.name, answer)
    }

    /// As [`ask`](Self::ask), for the answer as it came, with the fields of later versions too.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub async fn ask_for_json<R: Request>(&self, request: &R) -> Outcome<Value> {
        match R::METHOD {
            Method::Get => {
                let mut connection = self.connect().await?;
                let pid = connection.pid;
                self.at_once(pid, connection.ask_for_json(request)).await
            }
            Method::Post => {
                self.as_long_as_it_answers(self.ask_at_leisure(request))
                    .await
            }
        }
    }

    pub(crate) async fn ask_at_leisure<R: Request>(&self, request: &R) -> Outcome<Value> {
        self.connect().await?.ask_for_json(request).await
    }

    /// Asks for the metrics as text, in the form that is accepted.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, or gives none.
    pub async fn metrics(&self, accept: &'static str) -> Outcome<String> {
        let mut connection = self.connect().await?;
        let pid = connection.pid;
        let answer = async {
            let asked = connection.send_for(Method::Get, api::METRICS, String::new(), accept);
            let response = asked.await?;
            if response.status() != StatusCode::OK {
                let reason = format!("the primary of {} gives no metrics", self.name);
                return Err(Failure::new(Exit::Failed, reason));
            }
            connection.text_of(response).await
        };
        self.at_once(pid, answer).await
    }

    /// Subscribes to the events. Whatever happens after this has returned is among them.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, or gives no events.
    pub async fn events(&self) -> Outcome<Events> {
        let mut connection = self.connect().await?;
        let pid = connection.pid;
        let answer = connection.send(Method::Get, api::EVENTS, String::new());
        let response = self.at_once(pid, answer).await?;
        if response.status() != StatusCode::OK {
            let reason = format!("the primary of {} gives no events", self.name);
            return Err(Failure::new(Exit::Failed, reason));
        }
        Ok(Events::new(response.into_body(), connection))
    }

    /// Reads the output of the workers.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, or keeps no output.
    pub async fn logs(&self, query: &Query) -> Outcome<Events> {
        let path = format!("{}{}", api::LOGS, query.text());
        let mut connection = self.connect().await?;
        let pid = connection.pid;
        let answer = connection.send(Method::Get, &path, String::new());
        let response = self.at_once(pid, answer).await?;
        if response.status() != StatusCode::OK {
            return Err(connection.refusal(response).await);
        }
        Ok(Events::new(response.into_body(), connection))
    }

    /// Connects to the primary.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached.
    pub async fn connect(&self) -> Outcome<Connection> {
        let stream = self.reach().await;
        let stream = stream.map_err(|error| find::cannot_connect(&self.name, &error))?;
        Connection::over(stream, &self.name).await
    }
}

/// A connection is not even queued: as many wait already as may.
pub(crate) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
