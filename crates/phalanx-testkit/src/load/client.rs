//! One client: connect, send, read, account.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::Ordering;

use super::report::{Failure, FailureSample, Tally};
use super::{Load, Mode, Progress};
use crate::http::{Inbox, ReadError, Response};
use crate::socket::Socket;
use crate::wait::{self, Deadline};
use std::os::fd::AsFd;
use std::time::Duration;

/// A connection and what is known of it.
#[derive(Debug)]
struct Connection {
    socket: Socket,
    inbox: Inbox,
    is_reused: bool,
}

/// A failure on its way into the account.
struct Trouble {
    failure: Failure,
    on_reused_connection: bool,
    detail: String,
}

pub(super) struct Client<'a> {
    load: &'a Load,
    progress: &'a Progress,
    request: Vec<u8>,
    kept: Option<Connection>,
    tally: Tally,
}

impl<'a> Client<'a> {
    pub(super) fn new(load: &'a Load, progress: &'a Progress) -> Self {
        let connection = match load.mode {
            Mode::ConnectionPerRequest => "Connection: close\r\n",
            Mode::KeepAlive => "",
        };
        let path = &load.path;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{connection}\r\n");
        Self {
            load,
            progress,
            request: request.into(),
            kept: None,
            tally: Tally::default(),
        }
    }

    pub(super) fn run(mut self, ends_at: Option<Deadline>) -> Tally {
        let is_over = || {
            self.progress.stop.load(Ordering::Relaxed) || ends_at.is_some_and(Deadline::has_passed)
        };
        while !is_over() && self.progress.begun.fetch_add(1, Ordering::Relaxed) < self.load.requests
        {
            self.do_request();
            self.rest();
        }
        self.tally
    }

    /// One request, with one repetition where RFC 9112 allows it.
    fn do_request(&mut self) {
        let began = wait::now();
        let deadline = Deadline::after(self.load.request_limit);
        let mut result = self.attempt(deadline);
        if let Err(trouble) = &result
            && is_retryable(trouble)
        {
            *self.tally.retryable.entry(trouble.failure).or_default() += 1;
            self.sample(trouble, true);
            result = self.attempt(deadline);
        }
        match result {
            Ok(response) => {
                self.tally.latencies.push(began.elapsed());
                if let Some(pid) = pid_in(&response.body) {
                    *self.tally.pids.entry(pid).or_default() += 1;
                }
                self.progress.ok.fetch_add(1, Ordering::Relaxed);
            }
            Err(trouble) => {
                *self.tally.failures.entry(trouble.failure).or_default() += 1;
                self.sample(&trouble, false);
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn attempt(&mut self, deadline: Deadline) -> Result<Response, Trouble> {
        let mut connection = match self.take_kept()? {
            Some(connection) => connection,
            None => self.connect(deadline)?,
        };
        let on_reused_connection = connection.is_reused;
        let trouble = |failure, detail| Trouble {
            failure,
            on_reused_connection,
            detail,
        };
        (&connection.socket)
            .write_all(&self.request)
            .map_err(|error| {
                trouble(
                    write_failure(&error, on_reused_connection),
                    error.to_string(),
                )
            })?;
        let mut source = Watched {
            socket: &connection.socket,
            has_begun: false,
        };
        let read = connection.inbox.read_response(&mut source, deadline);
        let has_begun = source.has_begun;
        let response =
            read.map_err(|error| trouble(read_failure(error, has_begun), format!("{error:?}")))?;
        if !connection.inbox.is_empty() {
            return Err(trouble(
                Failure::Malformed,
                "bytes after the response".to_owned(),
            ));
        }
        if self.load.mode == Mode::KeepAlive {
            if response.keep_alive {
                self.kept = Some(Connection {
                    is_reused: true,
                    ..connection
                });
            } else {
                self.tally.announced_closes += 1;
            }
        }
        if (200..300).contains(&response.status) {
            Ok(response)
        } else {
            Err(trouble(Failure::BadStatus(response.status), String::new()))
        }
    }

    fn connect(&mut self, deadline: Deadline) -> Result<Connection, Trouble> {
        // A zero limit would mean none.
        let limit = deadline.remaining().max(Duration::from_millis(1));
        match Socket::connect(&self.load.target, limit) {
            Ok(socket) => {
                self.tally.connections += 1;
                Ok(Connection {
                    socket,
                    inbox: Inbox::default(),
                    is_reused: false,
                })
            }
            Err(error) => Err(Trouble {
                failure: connect_failure(&error),
                on_reused_connection: false,
                detail: error.to_string(),
            }),
        }
    }

    /// The kept connection, unless the server has closed it meanwhile, as it may.
    fn take_kept(&mut self) -> Result<Option<Connection>, Trouble> {
        let Some(connection) = self.kept.take() else {
            return Ok(None);
        };
        if !wait::readable(connection.socket.as_fd(), Duration::ZERO) {
            return Ok(Some(connection));
        }
        if matches!((&connection.socket).read(&mut [0; 1]), Ok(1..)) {
            return Err(Trouble {
                failure: Failure::Malformed,
                on_reused_connection: true,
                detail: "bytes without a request".to_owned(),
            });
        }
        self.tally.idle_closes += 1;
        Ok(None)
    }

    /// Rests for the pause; the end of the load cuts it short.
    fn rest(&self) {
        let pause = Deadline::after(self.load.rest());
        wait::try_eventually(pause, || {
            self.progress.stop.load(Ordering::Relaxed).then_some(())
        });
    }

    fn sample(&mut self, trouble: &Trouble, retried: bool) {
        self.tally.sample(FailureSample {
            at: self.progress.started_at.elapsed(),
            failure: trouble.failure,
            on_reused_connection: trouble.on_reused_connection,
            retried,
            detail: trouble.detail.clone(),
        });
    }
}

/// A source that remembers whether any byte came.
struct Watched<'a> {
    socket: &'a Socket,
    has_begun: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.has_begun |= count > 0;
        Ok(count)
    }
}

/// RFC 9112, 9.3.1: a reused connection closed before any byte of the response was received.
fn is_retryable(trouble: &Trouble) -> bool {
    trouble.on_reused_connection
        && matches!(
            trouble.failure,
            Failure::Reset | Failure::ClosedBeforeResponse
        )
}

fn connect_failure(error: &io::Error) -> Failure {
    // A Unix socket whose file is gone or not yet there refuses in its own words.
    if matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::NotFound
    ) {
        Failure::Refused
    } else if error.kind() == ErrorKind::ConnectionReset {
        Failure::ConnectReset
    } else if is_time_out(error) {
        Failure::TimedOut
    } else {
        Failure::ClientFault
    }
}

fn write_failure(error: &io::Error, on_reused_connection: bool) -> Failure {
    if is_time_out(error) {
        Failure::TimedOut
    } else if on_reused_connection {
        Failure::Reset
    } else {
        Failure::ConnectReset
    }
}

fn read_failure(error: ReadError, has_begun: bool) -> Failure {
    match error {
        ReadError::TimedOut => Failure::TimedOut,
        ReadError::Malformed(_) => Failure::Malformed,
        ReadError::Closed | ReadError::Reset if has_begun => Failure::Truncated,
        ReadError::Closed => Failure::ClosedBeforeResponse,
        ReadError::Reset => Failure::Reset,
    }
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// The number after the first `pid` and any of blank, quote, `=` and `:`.
fn pid_in(body: &[u8]) -> Option<u32> {
    let at = body.windows(3).position(|window| window == b"pid")?;
    let rest = &body[at + 3..];
    let digits_at = rest.iter().position(|byte| !b" \"=:\t".contains(byte))?;
    let digits = rest[digits_at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |pid: Option<u32>, digit| {
        pid.unwrap_or_default()
            .checked_mul(10)?
            .checked_add(u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_found_in_text_and_in_json() {
        assert_eq!(pid_in(b"sum = 1, pid = 4711\n"), Some(4711));
        assert_eq!(pid_in(b"pid=12;"), Some(12));
        assert_eq!(pid_in(br#"{"x":1,"pid":99}"#), Some(99));
        assert_eq!(pid_in(b"pid: none"), None);
        assert_eq!(pid_in(b"hello"), None);
    }
}
