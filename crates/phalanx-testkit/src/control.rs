//! A client of the control socket: HTTP/1.1 with JSON over a Unix socket, and its event stream.
//!
//! One connection a request; no more of HTTP than the control plane offers.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::http::{Framing, Inbox};
use crate::socket::{Socket, Target};
use crate::wait::{Deadline, LIMIT};

/// An answer of the control socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body as sent.
    pub body: String,
}

impl Reply {
    /// The body as one JSON value; panics when it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in the body of {self:?}"),
        }
    }

    /// The body as one JSON value a line, as commands that report progress send it.
    #[must_use]
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let lines = self.body.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).expect("a JSON value a line"))
            .collect()
    }

    /// Panics with the answer unless its status is 2xx.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!((200..300).contains(&self.status), "{self:?}");
        self
    }
}

/// The control socket of one app.
#[derive(Clone, Debug)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// A client of the socket at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// When there is no socket, nobody answers within the deadline, or the answer is no HTTP.
    pub fn request(
        &self,
        method: &str,
        route: &str,
        body: Option<&Value>,
        deadline: impl Into<Deadline>,
    ) -> io::Result<Reply> {
        let deadline = deadline.into();
        let socket = self.send(method, route, body, deadline)?;
        let response = Inbox::default().read_response(&mut &socket, deadline)?;
        let body = String::from_utf8_lossy(&response.body).into_owned();
        Ok(Reply {
            status: response.status,
            body,
        })
    }

    /// Opens the stream of events, `GET /v1/events`. Events sent before it is open are not seen.
    ///
    /// # Errors
    /// When there is no socket or the answer is not 200.
    pub fn events(&self) -> io::Result<Events> {
        let deadline = Deadline::after(LIMIT);
        let socket = self.send("GET", "/v1/events", None, deadline)?;
        let mut inbox = Inbox::default();
        let head = inbox.read_head(&mut &socket, deadline)?;
        if head.status != 200 {
            return Err(io::Error::other(format!("GET /v1/events: {}", head.status)));
        }
        socket.set_read_limit(None)?;
        let socket = Arc::new(socket);
        let (sender, received) = channel();
        let reader = Arc::clone(&socket);
        thread::spawn(move || {
            for event in Stream::new(&reader, inbox, head.framing) {
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Events { received, socket })
    }

    fn send(
        &self,
        method: &str,
        route: &str,
        body: Option<&Value>,
        deadline: Deadline,
    ) -> io::Result<Socket> {
        let target = Target::Unix(self.path.clone());
        let limit = deadline.remaining().max(Duration::from_millis(1));
        let socket = Socket::connect(&target, limit)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let close = if route == "/v1/events" {
            ""
        } else {
            "Connection: close\r\n"
        };
        let content = if method == "GET" {
            String::new()
        } else {
            format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            )
        };
        let line = format!("{method} {route} HTTP/1.1\r\nHost: localhost\r\n");
        let request = line + close + &content + "\r\n" + &body;
        (&socket).write_all(request.as_bytes())?;
        Ok(socket)
    }
}

/// The events of an app, from the moment the stream was opened.
#[derive(Debug)]
pub struct Events {
    received: Receiver<Value>,
    socket: Arc<Socket>,
}

impl Events {
    /// The next event; `None` when the stream has ended. Panics at the deadline.
    #[track_caller]
    pub fn next_before(&self, deadline: impl Into<Deadline>) -> Option<Value> {
        match self.received.recv_timeout(deadline.into().remaining()) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("deadline passed: the next event"),
        }
    }

    /// The first event of which `wanted` is true; those before it are passed over. Panics with
    /// them at the deadline or when the stream ends.
    #[track_caller]
    pub fn wait_for(
        &self,
        deadline: impl Into<Deadline>,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = deadline.into();
        let mut passed: Vec<String> = Vec::new();
        loop {
            match self.received.recv_timeout(deadline.remaining()) {
                Ok(event) if wanted(&event) => return event,
                Ok(event) => passed.push(event.to_string()),
                Err(reason) => panic!("{what}: {reason}; events:\n{}", passed.join("\n")),
            }
        }
    }

    /// The events that have arrived and not been taken yet.
    #[must_use]
    pub fn so_far(&self) -> Vec<Value> {
        self.received.try_iter().collect()
    }
}

impl Iterator for Events {
    type Item = Value;

    /// As [`Events::next_before`], with [`LIMIT`].
    fn next(&mut self) -> Option<Value> {
        self.next_before(LIMIT)
    }
}

impl Drop for Events {
    /// Ends the connection, and with it the reader thread.
    fn drop(&mut self) {
        self.socket.shutdown();
    }
}

/// The reader's side of a stream of server-sent events: each `data:` line holds one JSON value;
/// comments and other fields are passed over.
struct Stream<'a> {
    socket: &'a Socket,
    inbox: Inbox,
    framing: Framing,
    text: Vec<u8>,
    /// So much of the text is known to hold no end of a line: events can be megabytes long.
    searched: usize,
}

impl<'a> Stream<'a> {
    fn new(socket: &'a Socket, inbox: Inbox, framing: Framing) -> Self {
        Self {
            socket,
            inbox,
            framing,
            text: Vec::new(),
            searched: 0,
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.text[self.searched..];
        let Some(offset) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.text.len();
            return None;
        };
        let end = self.searched + offset;
        self.searched = 0;
        Some(self.text.drain(..=end).collect())
    }
}

impl Iterator for Stream<'_> {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        // A test holds its stream for minutes at most; the end of the socket ends the wait.
        let deadline = Deadline::after(Duration::from_hours(24));
        loop {
            while let Some(line) = self.take_line() {
                if let Some(data) = line.strip_prefix(b"data:") {
                    return Some(parse_event(data));
                }
            }
            let part = self
                .inbox
                .read_part(&mut self.socket, deadline, &mut self.framing);
            self.text.extend(part.ok().flatten()?);
        }
    }
}

/// What is no JSON becomes a string, so that no wait mistakes it for an event and none hides it.
fn parse_event(data: &[u8]) -> Value {
    serde_json::from_slice(data)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(data).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    /// Answers one connection with `answer` and returns the request.
    fn answer_once(
        answer: &'static str,
    ) -> (Control, thread::JoinHandle<String>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let mut request = String::new();
            while !request.contains("\r\n\r\n") {
                let count = stream.read(&mut buffer).unwrap();
                request += std::str::from_utf8(&buffer[..count]).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        (Control::new(path), server, directory)
    }

    #[test]
    fn a_post_carries_its_json_and_returns_the_answer() {
        let (control, server, _directory) =
            answer_once("HTTP/1.1 409 Conflict\r\nContent-Length: 13\r\n\r\n{\"error\":\"x\"}");
        let body = serde_json::json!({"workers": "+1"});
        let reply = control
            .request("POST", "/v1/scale", Some(&body), LIMIT)
            .unwrap();
        assert_eq!(
            (reply.status, reply.json()["error"].as_str()),
            (409, Some("x"))
        );
        let request = server.join().unwrap();
        assert!(
            request.starts_with("POST /v1/scale HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.ends_with("Content-Length: 16\r\n\r\n{\"workers\":\"+1\"}"),
            "{request}"
        );
    }

    #[test]
    fn events_are_the_data_lines_of_the_stream() {
        let (control, _server, _directory) = answer_once(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             12\r\nevent: x\ndata: {\"a\r\n11\r\n\":1}\n\n: ping\n\ndat\r\n5\r\na: 2\n\r\n0\r\n\r\n",
        );
        let events: Vec<Value> = control.events().unwrap().collect();
        assert_eq!(events, [serde_json::json!({"a": 1}), serde_json::json!(2)]);
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        let control = Control::new("/nonexistent/x.sock");
        assert!(control.request("GET", "/v1/status", None, LIMIT).is_err());
    }
}
