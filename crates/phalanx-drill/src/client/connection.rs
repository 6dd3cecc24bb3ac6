//! One connection of a client, and what is said on it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use phalanx_sys::clock;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use super::failed::{Failed, Origin};
use super::opening::Opening;
use crate::cause::Cause;
use crate::request::{Body, Message};
use crate::response::{Reader, Response};
use crate::session::Session;

/// A slow reader's bites, the pause between two, and how many it takes slowly.
const SLOW_BITE_BYTES: usize = 2 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(10);
const SLOW_BITES: u32 = 50;
/// How long a slow reader looks away before it reads at all.
const SLOW_START: Duration = Duration::from_millis(100);
const BITE_BYTES: usize = 4 << 10;
/// With this a server may announce that it is about to close an idle connection (RFC 9110, 15.5.9).
const FAREWELL: &[u8; 12] = b"HTTP/1.1 408";
/// What bodies are made of.
const FILLING: [u8; 16 << 10] = [b'x'; 16 << 10];

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) origin: Origin,
    /// What has come and was not yet taken.
    pub(super) input: Vec<u8>,
    /// Responses that it has carried.
    pub(super) responses: u64,
}

/// How an exchange ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything was answered, and the connection can be used again.
    Kept,
    /// Everything was answered, and the connection is at its end.
    Over,
    /// A response announced the close before everything was answered.
    Announced,
}

/// A response and when it was whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) at: Duration,
}

/// What a kept connection is fit for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    Open,
    Closed,
    /// The server has sent something that nobody asked for.
    Spoken,
}

impl Connection {
    pub(super) async fn open(
        address: SocketAddr,
        session: &Session,
        slow: bool,
    ) -> Result<Self, Failed> {
        let opening = Opening::begin(address, slow, session.now())?;
        let (stream, origin) = opening.finish().await?;
        // A request is written at once: waiting for more would only add to its latency.
        drop(stream.set_nodelay(true));
        Ok(Self {
            stream,
            origin,
            input: Vec::new(),
            responses: 0,
        })
    }

    /// Looks whether the server has closed the connection, or sent something, since the last response. Asks the
    /// kernel: the runtime would learn of it only later.
    pub(super) fn fitness(&self) -> Fitness {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut first = [0_u8; FAREWELL.len()];
        match recv(&self.stream, &mut first, flags) {
            Ok((0, _)) => Fitness::Closed,
            Ok(_) if first == *FAREWELL => Fitness::Closed,
            Ok(_) => Fitness::Spoken,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Fitness::Open,
            Err(_) => Fitness::Closed,
        }
    }

    /// Sends a message, and meanwhile reads the responses. They are left in `answers`, also when this fails
    /// or is dropped.
    pub(super) async fn exchange(
        &mut self,
        message: &Message,
        slow: bool,
        session: &Session,
        answers: &mut Vec<Answer>,
    ) -> Result<End, Failed> {
        let (mut reading, mut writing) = self.stream.split();
        let mut reads = Reads {
            stream: &mut reading,
            input: &mut self.input,
            slow_bites: if slow { SLOW_BITES } else { 0 },
            session,
        };
        let mut read = pin!(reads.responses(message, answers));
        let mut write = pin!(send(&mut writing, message));
        let mut sent = None;
        let read = loop {
            tokio::select! {
                biased;
                end = &mut read => break end,
                result = &mut write, if sent.is_none() => sent = Some(result),
            }
        };
        match (read, sent) {
            // A server may answer before it has everything, and what it then does not read is of no
            // interest to it; but the connection cannot be used again.
            (Ok(End::Kept), None | Some(Err(_))) => Ok(End::Over),
            (Ok(end), _) => Ok(end),
            (
                Err(Failed {
                    cause: Cause::ClosedWithoutAnswer,
                    ..
                }),
                Some(Err(error)),
            ) => Err(Failed::reading(Some(&error), false)),
            (Err(failed), _) => Err(failed),
        }
    }
}

async fn send(stream: &mut WriteHalf<'_>, message: &Message) -> io::Result<()> {
    stream.write_all(&message.heads).await?;
    match message.body {
        Body::None => {}
        Body::AtOnce(bytes) => send_filling(stream, bytes).await?,
        Body::Slow {
            pieces,
            piece_bytes,
            pause,
        } => {
            for _ in 0..pieces {
                sleep_until(Instant::from_std(clock::now() + pause)).await;
                send_filling(stream, piece_bytes).await?;
            }
        }
    }
    Ok(())
}

async fn send_filling(stream: &mut WriteHalf<'_>, bytes: u64) -> io::Result<()> {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let piece = left.min(FILLING.len());
        stream.write_all(&FILLING[..piece]).await?;
        left -= piece;
    }
    Ok(())
}

/// The reading half of an exchange.
struct Reads<'a, 'b> {
    stream: &'a mut ReadHalf<'b>,
    input: &'a mut Vec<u8>,
    /// How many bites are still to be taken slowly.
    slow_bites: u32,
    session: &'a Session,
}

impl Reads<'_, '_> {
    async fn responses(
        &mut self,
        message: &Message,
        answers: &mut Vec<Answer>,
    ) -> Result<End, Failed> {
        let mut reader = Reader::new(message.is_head);
        if self.slow_bites > 0 {
            sleep_until(Instant::from_std(clock::now() + SLOW_START)).await;
        }
        loop {
            let malformed = |text| Failed {
                response_has_begun: true,
                ..Failed::new(Cause::Malformed, text)
            };
            let whole = reader
                .advance(self.input)
                .map_err(|error| malformed(error.0))?;
            if let Some(response) = whole {
                answers.push(Answer {
                    response,
                    at: self.session.now(),
                });
                match (answers.len() == message.requests, response.keeps_alive) {
                    // Whatever came behind the last response, no later one can be told from it.
                    (true, true) if self.input.is_empty() => return Ok(End::Kept),
                    (true, _) => return Ok(End::Over),
                    (false, false) => return Ok(End::Announced),
                    (false, true) => reader = Reader::new(message.is_head),
                }
                continue;
            }
            match self.more().await {
                Ok(0) => match reader.end() {
                    Some(response) => {
                        answers.push(Answer {
                            response,
                            at: self.session.now(),
                        });
                        let is_all = answers.len() == message.requests;
                        return Ok(if is_all { End::Over } else { End::Announced });
                    }
                    None => return Err(Failed::reading(None, reader.has_begun())),
                },
                Ok(_) => {}
                Err(error) => return Err(Failed::reading(Some(&error), reader.has_begun())),
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        if self.slow_bites == 0 {
            self.input.reserve(BITE_BYTES);
            return self.stream.read_buf(self.input).await;
        }
        self.slow_bites -= 1;
        sleep_until(Instant::from_std(clock::now() + SLOW_PAUSE)).await;
        let mut bite = [0; SLOW_BITE_BYTES];
        let count = self.stream.read(&mut bite).await?;
        self.input.extend_from_slice(&bite[..count]);
        Ok(count)
    }
}
