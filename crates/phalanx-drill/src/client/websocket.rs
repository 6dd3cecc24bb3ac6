//! The client that holds a WebSocket: opens it, sends pings, and closes it after some seconds.
//!
//! One stream counts as one request. It is answered if it was opened and ended with a closing handshake,
//! whoever began that; a stream that ends otherwise, or whose ping is not answered, was cut.

use std::time::Duration;

use phalanx_sys::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::Connection;
use super::failed::Failed;
use super::{Asking, Client};
use crate::account::Fate;
use crate::cause::{self, Cause};
use crate::frame::{self, Frame, Opcode};
use crate::request::Questions;
use crate::response::Reader;
use crate::session::Session;

/// The nonce of RFC 6455's own example, and what a server has to answer to it (1.3). A nonce of the
/// client's own would only keep caches between them honest, and there are none.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How long a stream lives.
const LIFE_MILLIS: std::ops::Range<u64> = 1_000..8_000;
const PING_EVERY: Duration = Duration::from_millis(100);
const NORMAL_CLOSURE: [u8; 2] = 1000_u16.to_be_bytes();

impl Client {
    /// One stream. False if nobody could be asked.
    pub(super) async fn hold_stream(&mut self) -> bool {
        let asking = Asking {
            began_at: self.session.now(),
            deadline: clock::now() + self.questions.limit,
            left: 1,
            was_retried: false,
        };
        let open = Connection::open(self.questions.address, &self.session, false);
        let opened = timeout_at(asking.deadline.into(), open).await;
        let mut connection = match opened {
            Ok(Ok(connection)) => connection,
            Ok(Err(failed)) => {
                self.enter(&asking, None, &failed, Fate::Lost, 1);
                return false;
            }
            Err(_) => {
                let failed = Failed::new(Cause::ConnectTimedOut, "");
                self.enter(&asking, None, &failed, Fate::Lost, 1);
                return false;
            }
        };
        self.session.account().connected(self.way);
        match self.converse(&asking, &mut connection).await {
            Ok(status) => {
                let at = self.session.now();
                let is_answer =
                    self.session
                        .account()
                        .answered(self.way, status, asking.began_at, at);
                if !is_answer {
                    let failed = Failed::new(Cause::ServerError, format!("status {status}"));
                    self.enter(&asking, Some(&connection), &failed, Fate::Lost, 1);
                }
            }
            Err(failed) => self.enter(&asking, Some(&connection), &failed, Fate::Lost, 1),
        }
        true
    }

    /// Opens a stream and talks on it to its end; the status of the opening handshake.
    async fn converse(
        &mut self,
        asking: &Asking,
        connection: &mut Connection,
    ) -> Result<u16, Failed> {
        let shake = shake_hands(&self.questions, connection);
        let late = |_| Err(Failed::new(Cause::TimedOut, "the opening handshake"));
        let status = timeout_at(asking.deadline.into(), shake)
            .await
            .unwrap_or_else(late)?;
        if status != 101 {
            return Ok(status);
        }
        let life = self.rng.u64(LIFE_MILLIS);
        let ends_at = clock::now() + Duration::from_millis(life);
        while clock::now() < ends_at && !self.session.is_stopping() {
            let ping = self.rng.u64(..).to_be_bytes();
            self.send(connection, Opcode::Ping, &ping).await?;
            if !self.until_pong(connection, &ping).await? {
                return Ok(status);
            }
            if !listen_for(connection, PING_EVERY).await? {
                self.send(connection, Opcode::Close, &[]).await.ok();
                return Ok(status);
            }
        }
        // From here on the end is wanted, however the server words it.
        if self
            .send(connection, Opcode::Close, &NORMAL_CLOSURE)
            .await
            .is_ok()
        {
            let patience = Instant::from_std(clock::now() + self.questions.limit);
            drop(timeout_at(patience, until_close(connection)).await);
        }
        Ok(status)
    }

    async fn send(
        &mut self,
        connection: &mut Connection,
        opcode: Opcode,
        payload: &[u8],
    ) -> Result<(), Failed> {
        let mask = self.rng.u32(..).to_be_bytes();
        let frame = frame::control(opcode, payload, mask);
        let sent = connection.stream.write_all(&frame).await;
        sent.map_err(|error| Failed::new(Cause::StreamCut, error.to_string()))
    }

    /// Waits for the answer to a ping. False if the server began the closing handshake instead.
    async fn until_pong(
        &mut self,
        connection: &mut Connection,
        ping: &[u8],
    ) -> Result<bool, Failed> {
        let patience = Instant::from_std(clock::now() + self.questions.limit);
        loop {
            let frame = timeout_at(patience, next_frame(connection)).await;
            let frame =
                frame.map_err(|_| Failed::new(Cause::TimedOut, "a ping was not answered"))??;
            match frame.opcode {
                Opcode::Pong if frame.payload == ping => return Ok(true),
                Opcode::Close => {
                    self.send(connection, Opcode::Close, &frame.payload)
                        .await
                        .ok();
                    return Ok(false);
                }
                Opcode::Ping => self.send(connection, Opcode::Pong, &frame.payload).await?,
                Opcode::Data | Opcode::Pong => {}
            }
        }
    }
}

/// Opens a stream, and closes it; the status of the opening handshake.
pub(super) async fn probe(questions: &Questions, session: &Session) -> Result<u16, Failed> {
    let mut connection = Connection::open(questions.address, session, false).await?;
    let status = shake_hands(questions, &mut connection).await?;
    if status == 101 {
        let close = frame::control(Opcode::Close, &NORMAL_CLOSURE, [0; 4]);
        drop(connection.stream.write_all(&close).await);
        until_close(&mut connection).await;
    }
    Ok(status)
}

/// The opening handshake; its status.
async fn shake_hands(questions: &Questions, connection: &mut Connection) -> Result<u16, Failed> {
    let request = questions.handshake(KEY);
    let cut = |error: &std::io::Error, begun| {
        Failed::new(cause::of_reading(Some(error), begun), error.to_string())
    };
    let written = connection.stream.write_all(&request).await;
    written.map_err(|error| cut(&error, false))?;
    let mut reader = Reader::new(false);
    let mut has_accept = false;
    loop {
        let accepts = |bytes: &[u8]| bytes.windows(ACCEPT.len()).any(|part| part == ACCEPT);
        has_accept |= accepts(&connection.input);
        let whole = reader.advance(&mut connection.input);
        match whole.map_err(|error| Failed::new(Cause::Malformed, error.0))? {
            Some(response) if response.status == 101 && !has_accept => {
                return Err(Failed::new(
                    Cause::Malformed,
                    "not the expected Sec-WebSocket-Accept",
                ));
            }
            Some(response) => return Ok(response.status),
            None => {}
        }
        match connection.stream.read_buf(&mut connection.input).await {
            Ok(0) => {
                let cause = cause::of_reading(None, reader.has_begun());
                return Err(Failed::new(cause, "the opening handshake"));
            }
            Ok(_) => {}
            Err(error) => return Err(cut(&error, reader.has_begun())),
        }
    }
}

/// Listens for this long. False if the server began the closing handshake; its pings can wait.
async fn listen_for(connection: &mut Connection, time: Duration) -> Result<bool, Failed> {
    let until = Instant::from_std(clock::now() + time);
    loop {
        tokio::select! {
            biased;
            frame = next_frame(connection) => match frame?.opcode {
                Opcode::Close => return Ok(false),
                Opcode::Data | Opcode::Ping | Opcode::Pong => {}
            },
            () = sleep_until(until) => return Ok(true),
        }
    }
}

async fn until_close(connection: &mut Connection) {
    while let Ok(frame) = next_frame(connection).await {
        if frame.opcode == Opcode::Close {
            return;
        }
    }
}

async fn next_frame(connection: &mut Connection) -> Result<Frame, Failed> {
    loop {
        let frame = frame::take(&mut connection.input);
        if let Some(frame) = frame.map_err(|text| Failed::new(Cause::Malformed, text))? {
            return Ok(frame);
        }
        match connection.stream.read_buf(&mut connection.input).await {
            Ok(0) => return Err(Failed::new(Cause::StreamCut, "no closing handshake")),
            Ok(_) => {}
            Err(error) => return Err(Failed::new(Cause::StreamCut, error.to_string())),
        }
    }
}
