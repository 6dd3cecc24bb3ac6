//! The tests' hand on a `probe`: commands in, events out, each wait with a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use phalanx_testkit::{LIMIT, Process, Signal, fixtures, procs};
use serde_json::{Value, json};

/// A running primary in the low-level style.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) process: Process,
    asked: u64,
}

impl Probe {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_mode(mode: &str) -> Self {
        let mut command = command(mode);
        command.arg("127.0.0.1:0");
        Self {
            process: Process::start_with_stdin(command),
            asked: 0,
        }
    }

    /// Starts it after `change` was applied to its command.
    pub(crate) fn start_with(change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command("cluster");
        change(&mut command);
        Self {
            process: Process::start_with_stdin(command),
            asked: 0,
        }
    }

    /// Has the primary do something; its answer.
    #[track_caller]
    pub(crate) fn tell(&mut self, mut order: Value) -> Value {
        self.asked += 1;
        order["n"] = json!(self.asked);
        self.process.write_line(&order.to_string());
        let number = json!(self.asked);
        self.wait("the answer", |line| line["answer"] == number)
    }

    /// As [`Probe::tell`], where it must go well.
    #[track_caller]
    pub(crate) fn done(&mut self, order: Value) -> Value {
        let shown = order.to_string();
        let answer = self.tell(order);
        assert!(answer.get("error").is_none(), "{shown}: {answer}");
        answer
    }

    /// Starts a worker; its id and pid.
    #[track_caller]
    pub(crate) fn fork(&mut self) -> (u32, u32) {
        self.fork_with(json!({}))
    }

    /// Starts a worker with variables of its own.
    #[track_caller]
    pub(crate) fn fork_with(&mut self, env: Value) -> (u32, u32) {
        let mut order = json!({"do": "fork"});
        order["env"] = env;
        let answer = self.done(order);
        (number(&answer["worker"]), number(&answer["pid"]))
    }

    /// Has a worker do something without waiting for its answer; the number of the answer to come.
    #[track_caller]
    pub(crate) fn start_asking(&mut self, worker: u32, mut order: Value) -> u64 {
        self.asked += 1;
        let number = self.asked;
        order["n"] = json!(number);
        self.done(json!({"do": "send", "worker": worker, "message": order}));
        number
    }

    /// Waits for a worker's answer.
    #[track_caller]
    pub(crate) fn answer(&self, worker: u32, number: u64) -> Value {
        let line = self.wait("a worker's answer", |line| {
            line["event"] == "message" && line["worker"] == worker && line["message"]["n"] == number
        });
        line["message"].clone()
    }

    /// Has a worker do something; its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, worker: u32, order: Value) -> Value {
        let number = self.start_asking(worker, order);
        self.answer(worker, number)
    }

    /// Has a worker listen without serving; where.
    #[track_caller]
    pub(crate) fn listen(&mut self, worker: u32, at: &str) -> String {
        self.listen_with(worker, json!({"do": "listen", "at": at}))
    }

    /// Has a worker listen and serve with axum; where.
    #[track_caller]
    pub(crate) fn serve(&mut self, worker: u32, at: &str) -> String {
        self.listen_with(worker, json!({"do": "listen", "at": at, "with": "axum"}))
    }

    #[track_caller]
    pub(crate) fn listen_with(&mut self, worker: u32, order: Value) -> String {
        let answer = self.ask(worker, order);
        // The worker's `listening` is on the channel before its answer, so it counts from here on.
        let address = answer["address"].as_str();
        address.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Waits for an event of a worker, old or new.
    #[track_caller]
    pub(crate) fn event(&self, worker: u32, name: &str) -> Value {
        self.wait(&format!("{name} of worker {worker}"), |line| {
            line["event"] == name && line["worker"] == worker
        })
    }

    /// Waits for a line, old or new.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_after(0, what, wanted)
    }

    /// Waits for a line that comes after the first `mark`.
    #[track_caller]
    pub(crate) fn wait_after(
        &self,
        mark: usize,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let matches = |line: &str| parse(line).is_some_and(|value| wanted(&value));
        let line = self.process.lines().wait_after(mark, LIMIT, what, matches);
        parse(&line).expect("it was parsed before")
    }

    /// Everything it has printed that is JSON.
    pub(crate) fn seen(&self) -> Vec<Value> {
        let lines = self.process.lines().all();
        lines.iter().filter_map(|line| parse(&line.text)).collect()
    }

    /// The names of all events about a worker, in order.
    pub(crate) fn history(&self, worker: u32) -> Vec<String> {
        let of_worker = |line: &Value| line["worker"] == worker;
        let name = |line: Value| line["event"].as_str().map(str::to_owned);
        self.seen()
            .into_iter()
            .filter(of_worker)
            .filter_map(name)
            .collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal to one of its workers.
    #[track_caller]
    pub(crate) fn signal(&self, pid: u32, signal: Signal) {
        assert!(procs::children(self.pid()).contains(&pid), "{pid} is gone");
        procs::signal(pid, signal);
    }
}

/// A probe in one of its modes, with nothing in its environment that steers it.
pub(crate) fn command(mode: &str) -> Command {
    let mut command = Command::new(fixtures::example("probe"));
    command.arg(mode);
    for name in [
        "NODE_CLUSTER_SCHED_POLICY",
        "NODE_CHANNEL_FD",
        "NODE_UNIQUE_ID",
        "NODE_CHANNEL_SERIALIZATION_MODE",
    ] {
        command.env_remove(name);
    }
    command
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().filter(Value::is_object)
}

#[track_caller]
pub(crate) fn number(value: &Value) -> u32 {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("no number: {value}"))
}

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub(crate) fn try_connect(address: &str) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = match path.strip_prefix('@') {
                Some(name) => connect_abstract(name)?,
                None => UnixStream::connect(path)?,
            };
            stream.set_read_timeout(Some(LIMIT))?;
            return Ok(Self::Unix(stream));
        }
        let address: SocketAddr = address.parse().expect("an address");
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self::Tcp(stream))
    }

    /// Its own address, as the server sees it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.local_addr().expect("it is bound").to_string(),
            Self::Unix(_) => "unix:".to_owned(),
        }
    }

    /// Sends a request.
    #[track_caller]
    pub(crate) fn request(&mut self) {
        self.request_path("/");
    }

    #[track_caller]
    pub(crate) fn request_path(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        self.send(request.as_bytes());
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let sent = match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        };
        sent.expect("the request is sent");
    }

    /// Reads the answer to its end.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let mut text = String::new();
        let read = match self {
            Self::Tcp(stream) => stream.read_to_string(&mut text),
            Self::Unix(stream) => stream.read_to_string(&mut text),
        };
        read.unwrap_or_else(|error| panic!("no answer: {error}; so far: {text}"));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text:?}");
        let field = |name: &str| {
            let lines = text.lines();
            let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            values.next().unwrap_or_default().to_owned()
        };
        Answer {
            worker: field("worker").parse().expect("a worker's id"),
            peer: field("peer"),
        }
    }
}

fn connect_abstract(name: &str) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address)
}

/// What a worker of a probe answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) worker: u32,
    pub(crate) peer: String,
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn get(address: &str) -> Answer {
    let mut client = Client::connect(address);
    client.request();
    client.answer()
}
