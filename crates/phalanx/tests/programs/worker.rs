//! A worker of the probe: it does what messages tell it and answers each with a message.

use std::collections::HashMap;
use std::io;

use phalanx::{Error, Handle, ListenError, Listener, MessageError, ThisWorker, UdpSocket};
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::serve;
use crate::{describe, handles};

#[derive(Default)]
struct State {
    listeners: HashMap<String, Listener>,
    sockets: HashMap<String, UdpSocket>,
    servers: JoinSet<()>,
}

/// Ends when it is to leave and its servers are done; with `PROBE_STUBBORN` set, never.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(worker: &ThisWorker) -> phalanx::Result<()> {
    let mut state = State::default();
    loop {
        tokio::select! {
            biased;
            command = worker.message_with_handle::<Value>() => match command {
                None => break,
                Some(command) => {
                    let (command, handle) = command?;
                    let mut answer = match handle {
                        Some(handle) => take(worker, handle).await,
                        None => state.obey(worker, &command).await,
                    };
                    answer["n"] = command["n"].clone();
                    // The primary may be gone by now.
                    drop(worker.send(&answer));
                    if command["do"] == "last words" {
                        return Ok(());
                    }
                }
            },
            () = worker.draining() => break,
        }
    }
    if std::env::var_os("PROBE_STUBBORN").is_some() {
        std::future::pending::<()>().await;
    }
    while state.servers.join_next().await.is_some() {}
    Ok(())
}

fn exit_code(command: &Value) -> i32 {
    let code = command["code"].as_i64();
    code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0)
}

impl State {
    async fn obey(&mut self, worker: &ThisWorker, command: &Value) -> Value {
        let done = match command["do"].as_str() {
            Some("listen") => self.listen(worker, command).await,
            Some("give up listening") => {
                let address = command["at"].as_str().unwrap_or_default();
                tokio::select! {
                    biased;
                    listener = worker.listen(address) => panic!("so soon? {listener:?}"),
                    () = std::future::ready(()) => Ok(json!({})),
                }
            }
            Some("close and listen") => {
                drop(self.listeners.remove("main"));
                self.listen(worker, command).await
            }
            Some("udp") => self.udp(worker, command).await,
            Some("about") => Ok(about(worker)),
            Some("spawn") => Ok(json!({"env": environment_of_a_child().await})),
            Some("disconnect") => {
                let left = worker.disconnect().await.map_err(Error::from);
                left.map(|()| json!({"left": worker.is_draining()}))
            }
            Some("last words") => Ok(json!({"words": "x".repeat(3 << 20)})),
            Some("flood") => flood(worker),
            Some("send handle") => {
                let count = command["count"].as_u64().unwrap_or(1);
                let sent = (0..count).try_for_each(|_| {
                    let (handle, _) = handles::open(command);
                    worker.send_with_handle(&command["message"], handle)
                });
                sent.map(|()| json!({"sent": count})).map_err(Error::from)
            }
            Some("print") => {
                crate::print(&command["text"]);
                Ok(json!({}))
            }
            Some("accept") => Ok(self.accept(worker, command).await),
            Some("close") => {
                let name = command["as"].as_str().unwrap_or_default();
                drop(self.listeners.remove(name));
                drop(self.sockets.remove(name));
                Ok(json!({}))
            }
            Some("exit") => std::process::exit(exit_code(command)),
            Some("abort") => std::process::abort(),
            _ => Ok(json!({"echo": command})),
        };
        done.unwrap_or_else(|error| {
            let kind = if let Error::Listen(ListenError::Refused { source, .. }) = &error {
                format!("{:?}", source.kind())
            } else {
                String::new()
            };
            json!({"error": describe(&error), "kind": kind})
        })
    }

    async fn accept(&mut self, worker: &ThisWorker, command: &Value) -> Value {
        let count = command["count"].as_u64().unwrap_or(1);
        for _ in 0..count {
            let accepted = self.listener(command).accept().await;
            let (stream, peer) = accepted.expect("this worker does not leave");
            self.servers.spawn(serve::answer(stream, peer, worker.id()));
        }
        json!({"accepted": count})
    }

    async fn listen(&mut self, worker: &ThisWorker, command: &Value) -> phalanx::Result<Value> {
        let listener = worker
            .listen(command["at"].as_str().unwrap_or_default())
            .await?;
        let address = listener.local_addr().to_string();
        let name = command["as"].as_str().unwrap_or("main").to_owned();
        match command["with"].as_str() {
            None => drop(self.listeners.insert(name, listener)),
            Some(with) => drop(self.servers.spawn(serve::start(
                with.to_owned(),
                listener,
                worker.clone(),
            ))),
        }
        Ok(json!({"address": address}))
    }

    async fn udp(&mut self, worker: &ThisWorker, command: &Value) -> phalanx::Result<Value> {
        let at = command["at"].as_str().unwrap_or_default();
        let socket = worker
            .bind_udp(at.parse().expect("a socket address"))
            .await?;
        let address = socket.local_addr().expect("a bound socket has an address");
        let name = command["as"].as_str().unwrap_or("main").to_owned();
        if command["with"] == "echo" {
            self.servers.spawn(serve::echo(socket, worker.clone()));
        } else {
            self.sockets.insert(name, socket);
        }
        Ok(json!({"address": address.to_string()}))
    }

    fn listener(&self, command: &Value) -> &Listener {
        let name = command["as"].as_str().unwrap_or("main");
        self.listeners.get(name).expect("a listener of that name")
    }
}

/// Says who it is over the socket that came with a message: to whoever is there, or comes first.
async fn take(worker: &ThisWorker, handle: Handle) -> Value {
    let said = format!("from {}\n", std::process::id());
    let (name, address) = handles::about(&handle);
    let done = match handle {
        Handle::TcpStream(stream) => say(TcpStream::from_std(stream), &said).await,
        Handle::TcpListener(listener) => {
            let listener = TcpListener::from_std(listener).expect("it does not block");
            // The answer goes first: the client waits for it.
            drop(worker.send(&json!({"got": name, "address": address})));
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            say(accepted, &said).await
        }
        Handle::UnixListener(listener) => {
            let listener = UnixListener::from_std(listener).expect("it does not block");
            drop(worker.send(&json!({"got": name, "address": address})));
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            say(accepted, &said).await
        }
        Handle::UdpSocket(socket) => {
            let socket = tokio::net::UdpSocket::from_std(socket).expect("it does not block");
            drop(worker.send(&json!({"got": name, "address": address})));
            let (_, peer) = socket.recv_from(&mut [0; 64]).await.expect("a datagram");
            socket.send_to(said.as_bytes(), peer).await.map(|_| ())
        }
        other @ (Handle::UnixStream(_) | _) => panic!("no such handle was sent: {other:?}"),
    };
    done.expect("the other side is there");
    json!({"got": name, "address": address})
}

async fn say(stream: io::Result<impl AsyncWrite + Unpin>, said: &str) -> io::Result<()> {
    stream?.write_all(said.as_bytes()).await
}

/// Sends until the channel says that it is full.
fn flood(worker: &ThisWorker) -> phalanx::Result<Value> {
    let text = "x".repeat(1 << 20);
    for sent in 0..64 {
        match worker.send(&text) {
            Ok(()) => {}
            Err(MessageError::ChannelFull { .. }) => return Ok(json!({"sent": sent})),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(json!({"sent": null}))
}

fn about(worker: &ThisWorker) -> Value {
    let args: Vec<_> = std::env::args().skip(1).collect();
    json!({
        "id": worker.id(),
        "position": worker.position(),
        "pid": std::process::id(),
        "is_worker": phalanx::is_worker(),
        "is_primary": phalanx::is_primary(),
        "connected": worker.is_connected(),
        "draining": worker.is_draining(),
        "program": std::env::args().next(),
        "args": args,
        "cwd": std::env::current_dir().ok(),
        "env": std::env::vars().collect::<HashMap<_, _>>(),
    })
}

async fn environment_of_a_child() -> HashMap<String, String> {
    let child = tokio::task::spawn_blocking(|| std::process::Command::new("env").output());
    let output = child
        .await
        .expect("it does not panic")
        .expect("env(1) runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
