//! The stack of a Node worker that does not answer: by its inspector, which Node opens at SIGUSR1 in a thread of its own, also
//! while JavaScript loops.
//!
//! Whoever speaks to an inspector can do anything in the program. Its address holds a secret, which Node tells to everybody on
//! the machine unless told otherwise: so it is only opened where it is told to the worker's standard error alone
//! ([`PUBLISH`](crate::primary::release::preload::PUBLISH)).

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use phalanx_sys::process::Pid;
use serde_json::{Value, json};

/// A longer message is none that is asked for.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// So many frames are told.
const FRAMES_MAX: usize = 50;

/// Whether that process has an inspector that may be opened.
pub(super) fn is_askable(pid: Pid) -> bool {
    super::publishes_to_output(pid)
}

/// Where an inspector listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    at: SocketAddr,
    path: String,
}

impl Address {
    /// Finds it in a line that Node prints.
    pub(super) fn find(line: &str) -> Option<Self> {
        let (_, url) = line.split_once("Debugger listening on ws://")?;
        let (at, path) = url.trim_end().split_once('/')?;
        let at: SocketAddr = at.parse().ok()?;
        at.ip().is_loopback().then(|| Self {
            at,
            path: format!("/{path}"),
        })
    }
}

/// A function that is being called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    function: String,
    place: String,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.function, self.place)
    }
}

/// The number of the last request to an inspector.
const LAST: u32 = 3;

/// Stops the program for a moment and reads where it is, the innermost function first.
///
/// # Errors
/// Those of the socket; `TimedOut` after the deadline.
pub(super) fn stack(address: &Address, deadline: Instant) -> io::Result<Vec<Frame>> {
    let mut client = Client::connect(address, deadline)?;
    client.say(&json!({"id": 1, "method": "Debugger.enable"}))?;
    client.say(&json!({"id": 2, "method": "Debugger.pause"}))?;
    let mut scripts = HashMap::new();
    loop {
        let message = client.hear()?;
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Debugger.scriptParsed") => {
                let script = (parameters["scriptId"].clone(), parameters["url"].clone());
                scripts.insert(script.0.to_string(), script.1);
            }
            Some("Debugger.paused") => {
                let frames = parameters["callFrames"].as_array();
                let frames = frames.into_iter().flatten().take(FRAMES_MAX);
                let frames = frames.map(|frame| read_frame(frame, &scripts)).collect();
                // It is let go in any case when the connection ends. But a client that leaves before the answer makes Node
                // end the session while it is still about it: one in some twenty crashed (20.20, SIGSEGV).
                drop(client.let_go());
                return Ok(frames);
            }
            _ => {}
        }
    }
}

fn read_frame(frame: &Value, scripts: &HashMap<String, Value>) -> Frame {
    let location = &frame["location"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let script = scripts.get(&location["scriptId"].to_string());
    let url = [&frame["url"], script.unwrap_or(&Value::Null)].map(text);
    let url = url
        .iter()
        .find(|url| !url.is_empty())
        .map_or("?", |url| url);
    let number = |name: &str| location[name].as_u64().unwrap_or(0) + 1;
    let function = text(&frame["functionName"]);
    Frame {
        function: if function.is_empty() {
            "(anonymous)".to_owned()
        } else {
            function
        },
        place: format!("{url}:{}:{}", number("lineNumber"), number("columnNumber")),
    }
}

/// A WebSocket (RFC 6455) to an inspector: text in one piece, either way. Nothing is between the two but this machine's loopback.
struct Client {
    stream: TcpStream,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: &Address, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address.at, left(deadline)?)?;
        let mut client = Self {
            stream,
            deadline,
            buffer: Vec::new(),
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: cGhhbGFueC1waGFsYW54IQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            address.path, address.at
        );
        client.send(request.as_bytes())?;
        let end = loop {
            let found = client
                .buffer
                .windows(4)
                .position(|part| part == b"\r\n\r\n");
            if let Some(end) = found {
                break end + 4;
            }
            client.receive()?;
        };
        let head: Vec<u8> = client.buffer.drain(..end).collect();
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(io::Error::other("its inspector refuses a client"));
        }
        Ok(client)
    }

    /// Sends a message, masked with zeros: that is what the mask of a client may be, and it hides nothing anyway.
    fn say(&mut self, message: &Value) -> io::Result<()> {
        let text = message.to_string();
        // INVARIANT: ours are shorter than 126 bytes.
        let length = u8::try_from(text.len()).unwrap_or(125).min(125);
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.send(&frame)
    }

    /// Lets the program go on, and waits until it does.
    fn let_go(&mut self) -> io::Result<()> {
        self.say(&json!({"id": LAST, "method": "Debugger.disable"}))?;
        while self.hear()?["id"] != LAST {}
        Ok(())
    }

    /// The next message in text.
    fn hear(&mut self) -> io::Result<Value> {
        loop {
            self.fill(2)?;
            let is_text = self.buffer[0] & 0x0f == 1;
            let (length, start) = match self.buffer[1] & 0x7f {
                126 => {
                    self.fill(4)?;
                    (
                        usize::from(u16::from_be_bytes([self.buffer[2], self.buffer[3]])),
                        4,
                    )
                }
                127 => {
                    self.fill(10)?;
                    let bytes: [u8; 8] = self.buffer[2..10].try_into().unwrap_or([0xff; 8]);
                    (
                        usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX),
                        10,
                    )
                }
                short => (usize::from(short), 2),
            };
            if length > MESSAGE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.fill(start + length)?;
            let message: Vec<u8> = self.buffer.drain(..start + length).skip(start).collect();
            if is_text {
                return serde_json::from_slice(&message).map_err(Into::into);
            }
        }
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.buffer.len() < count {
            self.receive()?;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write_all(bytes)
    }

    fn receive(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        let mut part = [0; 16 << 10];
        let count = self.stream.read(&mut part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&part[..count]);
        Ok(())
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(phalanx_sys::clock::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_inspector_on_this_machine_is_spoken_to() {
        let find = |line: &str| Address::find(line).map(|address| address.path);
        let line = "Debugger listening on ws://127.0.0.1:9229/0f2c936f-b1cd-4ac9-aab3-f63b0f33d55e";
        assert_eq!(find(line).unwrap(), "/0f2c936f-b1cd-4ac9-aab3-f63b0f33d55e");
        assert_eq!(find("Debugger listening on ws://10.0.0.1:9229/x"), None);
        assert_eq!(find("Debugger listening on ws://example.com:1/x"), None);
        assert_eq!(
            find("For help, see: https://nodejs.org/en/docs/inspector"),
            None
        );
    }

    #[test]
    fn a_frame_is_named_by_its_function_and_its_script() {
        let frame = json!({
            "functionName": "spin", "url": "",
            "location": {"scriptId": "7", "lineNumber": 4, "columnNumber": 1},
        });
        let scripts = HashMap::from([("\"7\"".to_owned(), json!("file:///app.js"))]);
        assert_eq!(
            read_frame(&frame, &scripts).to_string(),
            "spin (file:///app.js:5:2)"
        );
        let bare = read_frame(&json!({}), &HashMap::new());
        assert_eq!(bare.to_string(), "(anonymous) (?:1:1)");
    }
}
