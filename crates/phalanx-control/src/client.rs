//! The client side of the control plane: finds the running apps, and talks to one.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use phalanx_sys::identity;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::api;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::names::{self, Name};
use crate::patience::is_full;
use crate::runtime_dirs::RuntimeDirs;

/// A running app.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name.
    pub name: Name,
    socket: PathBuf,
    /// The owner of the directory in which its socket lies.
    owner: u32,
}

/// An answer that is no error.
pub type Answer = Outcome<Value>;

impl App {
    /// The app of that name or, without a name, the only one that runs.
    ///
    /// # Errors
    ///
    /// Fails if there is no such app, or several are running, or its primary refuses this user.
    pub async fn find(name: Option<&Name>) -> Outcome<Self> {
        let runtime_dirs = RuntimeDirs::here();
        let Some(name) = name else {
            return only_one(Self::find_all().await, &runtime_dirs);
        };
        let (directories, refused) = trusted(&runtime_dirs);
        for (directory, owner) in directories {
            let app = Self {
                name: name.clone(),
                socket: names::socket_path(&directory, name)?,
                owner,
            };
            match app.reach().await {
                Ok(_) => return Ok(app),
                // It is there, and will be told to be silent.
                Err(error) if is_full(&error) => return Ok(app),
                Err(error) if is_nobody_there(&error) => {}
                Err(error) => return Err(cannot_connect(name, &error)),
            }
        }
        let looked_in = looked_in(&runtime_dirs, &refused);
        let reason = format!("no app named {name} is running{looked_in}");
        Err(Failure::new(Exit::NoApp, reason))
    }

    /// The app of that name whose socket lies in this directory of this user, whether it runs or not.
    ///
    /// # Errors
    ///
    /// Fails if the path of the socket is too long.
    pub fn at(name: Name, directory: &Path) -> Outcome<Self> {
        let socket = names::socket_path(directory, &name)?;
        let owner = identity::effective_uid();
        Ok(Self {
            name,
            socket,
            owner,
        })
    }

    /// All apps of this user, by name. For root, those of service users too.
    pub async fn find_all() -> Vec<Self> {
        let mut found = Vec::new();
        for (directory, owner) in trusted(&RuntimeDirs::here()).0 {
            for (name, socket) in sockets_in(&directory) {
                let app = Self {
                    name,
                    socket,
                    owner,
                };
                let reached = app.reach().await;
                if reached.is_ok() || reached.is_err_and(|error| is_full(&error)) {
                    found.push(app);
                }
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }

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

    /// Asks for what is at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, or answers with an error.
    pub async fn get(&self, path: &str) -> Answer {
        let mut connection = self.connect().await?;
        let pid = connection.pid;
        let answer = connection.request(Method::GET, path, None);
        self.at_once(pid, answer).await
    }

    pub(crate) async fn get_at_leisure(&self, path: &str) -> Answer {
        self.connect().await?.request(Method::GET, path, None).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, or answers with an error.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let answer = async {
            let mut connection = self.connect().await?;
            connection.request(Method::POST, path, Some(body)).await
        };
        self.as_long_as_it_answers(answer).await
    }

    /// Subscribes to the events. Whatever happens after this has returned is among them.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached, or gives no events.
    pub async fn events(&self) -> Outcome<Events> {
        let mut connection = self.connect().await?;
        let pid = connection.pid;
        let answer = connection.send(Method::GET, api::EVENTS, None);
        let response = self.at_once(pid, answer).await?;
        if response.status() != StatusCode::OK {
            let reason = format!("the primary of {} gives no events", self.name);
            return Err(Failure::new(Exit::Failed, reason));
        }
        Ok(Events {
            body: response.into_body(),
            text: Lines::default(),
            _connection: connection,
        })
    }

    /// Connects to the primary.
    ///
    /// # Errors
    ///
    /// Fails if the primary cannot be reached.
    pub async fn connect(&self) -> Outcome<Connection> {
        let stream = self.reach().await;
        let stream = stream.map_err(|error| cannot_connect(&self.name, &error))?;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let broken = |error| broken(&self.name, &error);
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the connection; what goes wrong there, the sender is told too.
        tokio::spawn(connection);
        Ok(Connection {
            app: self.name.clone(),
            sender,
            pid,
        })
    }
}

/// A connection to a primary.
#[derive(Debug)]
pub struct Connection {
    app: Name,
    sender: SendRequest<Full<Bytes>>,
    /// The primary's pid, where it is known.
    pub pid: Option<i32>,
}

impl Connection {
    /// Sends a request and reads the answer. An answer that tells of an error becomes a failure.
    ///
    /// # Errors
    ///
    /// Fails if the connection ends first, or the answer tells of an error.
    pub async fn request(&mut self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&self.app, &error))?;
        let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(|error| {
            Failure::caused(
                Exit::Failed,
                &format!("cannot read the answer of {}", self.app),
                &error,
            )
        })?;
        if status.is_success() {
            Ok(value)
        } else {
            Err(failure_in(&value))
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Outcome<Response<Incoming>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::caused(Exit::Failed, "cannot make a request", &error))?;
        self.sender
            .send_request(request)
            .await
            .map_err(|error| broken(&self.app, &error))
    }
}

/// The stream of events, as JSON.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    text: Lines,
    _connection: Connection,
}

impl Events {
    /// The next event; `None` when the stream has ended. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.text.next_event() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.text.push(&data);
            }
        }
    }
}

/// A text of server-sent events that comes in pieces. Each byte is looked at once.
#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    /// Where the line under way begins.
    start: usize,
    /// So much was found to have no newline.
    scanned: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.text.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.text.extend_from_slice(piece);
    }

    /// Goes on line by line until one is an event.
    fn next_event(&mut self) -> Option<Value> {
        loop {
            let newline = self.text[self.scanned..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(offset) = newline else {
                self.scanned = self.text.len();
                return None;
            };
            let end = self.scanned + offset;
            let data = self.text[self.start..end].strip_prefix(b"data:");
            let event = data.and_then(|data| serde_json::from_slice(data).ok());
            (self.start, self.scanned) = (end + 1, end + 1);
            if event.is_some() {
                return event;
            }
        }
    }
}

fn sockets_in(directory: &Path) -> Vec<(Name, PathBuf)> {
    // A directory that is not there, or not ours to read, holds none of our apps.
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sockets = entries.filter_map(|entry| {
        let path = entry.path();
        Some((names::name_of_socket(&path)?, path))
    });
    sockets.collect()
}

fn only_one(mut all: Vec<App>, runtime_dirs: &RuntimeDirs) -> Outcome<App> {
    if all.len() > 1 {
        let names: Vec<_> = all.iter().map(|app| app.name.as_str()).collect();
        let reason = format!(
            "several apps are running: {}; choose one with --name",
            names.join(", ")
        );
        return Err(Failure::new(Exit::NoApp, reason));
    }
    let none = || {
        Failure::new(
            Exit::NoApp,
            format!(
                "no app is running{}",
                looked_in(runtime_dirs, &trusted(runtime_dirs).1)
            ),
        )
    };
    all.pop().ok_or_else(none)
}

/// The directories that may be looked into, with their owners; and why others may not.
fn trusted(runtime_dirs: &RuntimeDirs) -> (Vec<(PathBuf, u32)>, Vec<String>) {
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for candidate in runtime_dirs.all_directories() {
        match runtime_dirs.trusted_owner(&candidate) {
            Some(Ok(owner)) => good.push((candidate.path, owner)),
            Some(Err(fault)) => refused.push(format!("{}: {fault}", candidate.path.display())),
            None => {}
        }
    }
    (good, refused)
}

fn looked_in(runtime_dirs: &RuntimeDirs, refused: &[String]) -> String {
    let directories = runtime_dirs.all_directories();
    let directories: Vec<_> = directories
        .iter()
        .map(|one| one.path.display().to_string())
        .collect();
    let mut text = format!(" (looked in {})", directories.join(", "));
    for fault in refused {
        text.push_str("; refused to look into ");
        text.push_str(fault);
    }
    text
}

/// No socket, or one that nobody listens on any more.
fn is_nobody_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

fn cannot_connect(name: &Name, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::PermissionDenied {
        Exit::Refused
    } else if is_nobody_there(error) {
        Exit::NoApp
    } else {
        Exit::Failed
    };
    Failure::caused(
        exit,
        &format!("cannot talk to the primary of {name}"),
        error,
    )
}

fn broken(name: &Name, error: &hyper::Error) -> Failure {
    let what = format!("the primary of {name} has closed the connection without an answer");
    Failure::caused(Exit::Failed, &what, error)
}

fn failure_in(answer: &Value) -> Failure {
    let error = &answer["error"];
    let reason = error["reason"]
        .as_str()
        .unwrap_or("the primary gave no reason");
    let lines = error["last_lines"].as_array().into_iter().flatten();
    Failure {
        exit: match error["kind"].as_str() {
            Some("invalid") => Exit::Usage,
            Some("description_wrong") => Exit::Config,
            Some(_) | None => Exit::Failed,
        },
        reason: reason.to_owned(),
        last_lines: lines
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_taken_out_of_the_stream_one_by_one() {
        let mut text = Lines::default();
        text.push(b": keep-alive\n\ndata: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: {\"a\"");
        assert_eq!(text.next_event(), Some(json!({"a": 1})));
        assert_eq!(text.next_event(), Some(json!({"a": 2})));
        assert_eq!(text.next_event(), None);
        text.push(b":3}\n");
        assert_eq!(text.next_event(), Some(json!({"a": 3})));
    }

    #[test]
    fn each_byte_of_the_stream_is_looked_at_once() {
        let mut text = Lines::default();
        let mut looked = 0;
        for _ in 0..1_000 {
            text.push(&[b'x'; 1_000]);
            looked += text.text.len() - text.scanned;
            assert_eq!(text.next_event(), None);
        }
        assert_eq!(looked, 1_000_000);
        text.push(b"\ndata: 1\n");
        assert_eq!(text.next_event(), Some(json!(1)));
        text.push(b"");
        assert_eq!(text.text.len(), 0);
    }

    #[test]
    fn an_error_answer_becomes_a_failure_with_the_last_lines() {
        let answer =
            json!({"error": {"kind": "rollout_failed", "reason": "no", "last_lines": ["x"]}});
        let failure = failure_in(&answer);
        assert_eq!(
            (failure.exit, failure.reason.as_str()),
            (Exit::Failed, "no")
        );
        assert_eq!(failure.last_lines, ["x"]);
        assert_eq!(
            failure_in(&json!({"error": {"kind": "invalid"}})).exit,
            Exit::Usage
        );
    }

    #[test]
    fn which_app_is_meant_must_be_clear() {
        let here = RuntimeDirs::default();
        let app = |name: &str| App {
            name: name.parse().unwrap(),
            socket: PathBuf::new(),
            owner: 0,
        };
        let failure = only_one(vec![], &here).unwrap_err();
        assert!(
            failure.exit == Exit::NoApp && failure.reason.contains("no app"),
            "{failure}"
        );
        assert_eq!(only_one(vec![app("a")], &here).unwrap().name.as_str(), "a");
        let failure = only_one(vec![app("a"), app("b")], &here).unwrap_err();
        assert!(failure.reason.contains("a, b"), "{failure}");
    }
}
