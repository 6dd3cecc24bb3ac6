//! What a primary says to a worker: the lines it writes, and how a Rust worker reads them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{WireError, field_error, internal_command, key_text, parse_value, unsigned};

/// A message from the primary, as a worker sees it.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a worker must handle each")]
pub enum ToWorker {
    /// A connection comes with this message (`act:newconn`).
    Connection {
        /// For which server.
        key: String,
        /// To be answered with `ack`, where given.
        seq: Option<u64>,
    },
    /// Stop listening, finish, close the channel (`act:disconnect`), within these limits if there are any.
    Disconnect(Option<DrainLimits>),
    /// Tell what is answered from now on, or stop that (`NODE_PHALANX`, `act:watch-health`).
    WatchHealth {
        /// Whether to tell.
        wanted: bool,
    },
    /// This spare holds that position from now on (`NODE_PHALANX`, `act:position`).
    Position {
        /// The position.
        position: u32,
        /// Which half of the position's row of the scoreboard it writes to: 0 or 1.
        lane: u8,
    },
    /// Keep so many connections, end what is above that politely, and tell what is held (`NODE_PHALANX`, `act:shed`).
    Shed {
        /// What is wanted.
        wanted: Shed,
        /// The `seq` that what it tells answers.
        seq: u64,
    },
    /// The answer to a message of this worker.
    Reply {
        /// The `seq` it answers.
        ack: u64,
        /// True when a descriptor comes with it (a shared listener).
        handle: bool,
        /// The whole answer.
        body: ReplyBody,
    },
    /// The oldest unanswered handle this worker sent arrived.
    HandleAck,
    /// The oldest unanswered handle this worker sent came without its descriptor.
    HandleNack,
    /// A descriptor of the application comes with this message.
    Handle(Value),
    /// An internal message that a Rust worker has nothing to do for.
    Ignored,
    /// A message of the application.
    User(Value),
}

/// How long a worker may take to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the sender must give each")]
pub struct DrainLimits {
    /// For everything.
    pub drain: Duration,
    /// For streams, such as server-sent events, after that.
    pub stream: Duration,
}

impl DrainLimits {
    fn to_json(self) -> Value {
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        json!({"drain": millis(self.drain), "stream": millis(self.stream)})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let limit = |name| Some(Duration::from_millis(value.get(name)?.as_u64()?));
        Some(Self {
            drain: limit("drain")?,
            stream: limit("stream")?,
        })
    }
}

/// The fields of an answer to `queryServer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReplyBody {
    /// Negative error number, where the primary could not listen.
    pub errno: Option<i32>,
    /// The listener's key; connections name it.
    pub key: Option<Value>,
    /// The address bound, for listeners whose connections are handed over.
    pub sockname: Option<SocketName>,
    /// Which half of its row of the scoreboard the worker writes to: 0 or 1.
    pub lane: Option<u8>,
}

/// An address as Node.js writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketName {
    /// The IP address.
    pub address: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// The port.
    pub port: u16,
}

/// As what Node's receiver makes a handle of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all that travels")]
pub enum HandleType {
    /// A connection (`net.Socket`).
    Socket,
    /// A listener (`net.Server`).
    Server,
    /// A UDP socket of IPv4 (`dgram.Socket`).
    Udp4,
    /// A UDP socket of IPv6.
    Udp6,
}

/// What a worker is to do about its connections while they are rebalanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole order")]
pub struct Shed {
    /// How many it keeps: what it holds above that, it ends politely. `None`: all, from now on.
    pub keep: Option<u32>,
    /// Whether streams may be ended, too.
    pub streams: bool,
}

/// Parses one line from the primary.
///
/// # Errors
/// See [`WireError`].
pub fn parse_to_worker(line: &[u8]) -> Result<ToWorker, WireError> {
    let value = parse_value(line)?;
    match internal_command(&value) {
        None => Ok(ToWorker::User(value)),
        Some("NODE_CLUSTER") => parse_cluster(&value, false),
        Some("NODE_HANDLE") => match value.get("msg") {
            Some(message) if internal_command(message) == Some("NODE_CLUSTER") => {
                parse_cluster(message, true)
            }
            Some(message) => Ok(ToWorker::Handle(message.clone())),
            // The primary's probe: a handle message without a handle, to be answered with a NACK.
            None => Ok(ToWorker::Handle(Value::Null)),
        },
        Some("NODE_PHALANX") if value["act"] == "shed" => Ok(ToWorker::Shed {
            wanted: Shed {
                keep: value["keep"].as_u64().and_then(|keep| keep.try_into().ok()),
                streams: value["streams"] == true,
            },
            seq: unsigned(&value, "shed", "seq")?,
        }),
        Some("NODE_PHALANX") if value["act"] == "position" => Ok(ToWorker::Position {
            position: u32::try_from(unsigned(&value, "position", "position")?)
                .map_err(|_| field_error("position", "position"))?,
            lane: u8::from(value["lane"] == 1),
        }),
        Some("NODE_PHALANX") if value["act"] == "watch-health" => Ok(ToWorker::WatchHealth {
            wanted: value["wanted"] == true,
        }),
        Some("NODE_HANDLE_ACK") => Ok(ToWorker::HandleAck),
        Some("NODE_HANDLE_NACK") => Ok(ToWorker::HandleNack),
        Some(_) => Ok(ToWorker::Ignored),
    }
}

fn parse_cluster(value: &Value, handle: bool) -> Result<ToWorker, WireError> {
    let act = value.get("act").and_then(Value::as_str).unwrap_or("");
    match act {
        "newconn" => Ok(ToWorker::Connection {
            key: value
                .get("key")
                .and_then(key_text)
                .ok_or_else(|| field_error(act, "key"))?,
            seq: value.get("seq").and_then(Value::as_u64),
        }),
        "disconnect" => Ok(ToWorker::Disconnect(
            value.get("limits").and_then(DrainLimits::from_json),
        )),
        "" => Ok(ToWorker::Reply {
            ack: unsigned(value, "reply", "ack")?,
            handle,
            body: ReplyBody::deserialize(value).map_err(WireError::Json)?,
        }),
        _ => Ok(ToWorker::Ignored),
    }
}

/// The lines themselves, newline included.
pub mod outgoing {
    use super::{DrainLimits, Duration, HandleType, Shed, SocketName, Value, json};

    fn line(value: &Value) -> Vec<u8> {
        let mut bytes = value.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    /// An application's message, already JSON.
    #[must_use]
    pub fn user(message: &Value) -> Vec<u8> {
        line(message)
    }

    /// An application's message that a descriptor goes with, in both directions.
    #[must_use]
    pub fn user_handle(message: &Value, of: HandleType) -> Vec<u8> {
        let (name, datagram) = match of {
            HandleType::Socket => ("net.Socket", None),
            HandleType::Server => ("net.Server", None),
            HandleType::Udp4 => ("dgram.Socket", Some("udp4")),
            HandleType::Udp6 => ("dgram.Socket", Some("udp6")),
        };
        let mut envelope = json!({"cmd": "NODE_HANDLE", "type": name, "msg": message});
        if let Some(datagram) = datagram {
            envelope["dgramType"] = datagram.into();
        }
        line(&envelope)
    }

    /// `{"cmd":"NODE_CLUSTER","act":"disconnect"}`: to be sent once a worker, never twice. The limits are
    /// for whoever knows of them; Node ignores them.
    #[must_use]
    pub fn disconnect(seq: u64, limits: Option<DrainLimits>) -> Vec<u8> {
        let mut message = json!({"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": seq});
        if let Some(limits) = limits {
            message["limits"] = limits.to_json();
        }
        line(&message)
    }

    /// A bare answer, as `exitedAfterDisconnect` waits for it.
    #[must_use]
    pub fn acknowledge(ack: u64, seq: u64) -> Vec<u8> {
        line(&json!({"cmd": "NODE_CLUSTER", "ack": ack, "seq": seq}))
    }

    /// Answers `queryServer` with an error; `errno` is negative.
    #[must_use]
    pub fn listen_error(ack: u64, key: &str, errno: i32, seq: u64) -> Vec<u8> {
        line(&json!({
            "cmd": "NODE_CLUSTER", "errno": errno, "key": key, "ack": ack, "data": null, "seq": seq,
        }))
    }

    /// Answers `queryServer` with a promise: connections will be handed over.
    #[must_use]
    pub fn listen_handoff(
        ack: u64,
        key: &str,
        data: &Value,
        sockname: Option<&SocketName>,
        seq: u64,
    ) -> Vec<u8> {
        let mut body = json!({
            "cmd": "NODE_CLUSTER", "errno": null, "key": key, "ack": ack, "data": data, "seq": seq,
        });
        if let Some(name) = sockname {
            body["sockname"] = json!(name);
        }
        line(&body)
    }

    /// Answers `queryServer` with the listener itself, which goes with the line.
    /// `nativeKind` and `socketType` are for Deno; Node.js ignores them.
    #[must_use]
    pub fn listen_shared(ack: u64, key: &str, data: &Value, kind: &str, seq: u64) -> Vec<u8> {
        line(&shared(ack, key, data, kind, seq))
    }

    /// Answers `queryServer` with a slot, from which nobody else accepts: the preloaded script goes by that.
    #[must_use]
    pub fn listen_slot(ack: u64, key: &str, data: &Value, seq: u64) -> Vec<u8> {
        let mut message = shared(ack, key, data, "net.Native", seq);
        message["msg"]["slot"] = true.into();
        line(&message)
    }

    fn shared(ack: u64, key: &str, data: &Value, kind: &str, seq: u64) -> Value {
        let native = if kind == "dgram.Native" { "udp" } else { "tcp" };
        json!({
            "cmd": "NODE_HANDLE", "type": kind, "socketType": 1, "nativeKind": native,
            "msg": {"cmd": "NODE_CLUSTER", "errno": 0, "key": key, "ack": ack, "data": data, "seq": seq},
        })
    }

    /// Answers `board`: the scoreboard goes with the line.
    #[must_use]
    pub fn board(ack: u64, lane: u8, seq: u64) -> Vec<u8> {
        line(&json!({
            "cmd": "NODE_HANDLE", "type": "net.Native",
            "msg": {"cmd": "NODE_CLUSTER", "ack": ack, "lane": lane, "seq": seq},
        }))
    }

    /// Asks a worker that cannot reach the scoreboard to tell its load from now on, or to stop that.
    #[must_use]
    pub fn watch_load(wanted: bool, seq: u64) -> Vec<u8> {
        line(&json!({"cmd": "NODE_PHALANX", "act": "watch-load", "wanted": wanted, "seq": seq}))
    }

    /// Asks a Node worker to accept in batches from the listener of this key, or to stop that.
    #[must_use]
    pub fn batch(key: &str, wanted: bool, seq: u64) -> Vec<u8> {
        line(&json!({
            "cmd": "NODE_PHALANX", "act": "batch", "key": key, "wanted": wanted, "seq": seq,
        }))
    }

    /// Nobody has room for what reaches this listener: for so long a full worker does with it as Node does by itself.
    #[must_use]
    pub fn crowded(key: &str, lease: Duration, seq: u64) -> Vec<u8> {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        line(&json!({
            "cmd": "NODE_PHALANX", "act": "crowded", "key": key, "lease": millis, "seq": seq,
        }))
    }

    /// Answers `duplicates`, once for each: a duplicate of the worker's slot goes with the line.
    #[must_use]
    pub fn duplicate(key: &str, backlog: u32, seq: u64) -> Vec<u8> {
        line(&json!({
            "cmd": "NODE_HANDLE", "type": "net.Native",
            "msg": {"cmd": "NODE_PHALANX", "act": "duplicate", "key": key, "backlog": backlog, "seq": seq},
        }))
    }

    /// Asks a worker to tell what it answers from now on, or to stop that.
    #[must_use]
    pub fn watch_health(wanted: bool, seq: u64) -> Vec<u8> {
        line(&json!({"cmd": "NODE_PHALANX", "act": "watch-health", "wanted": wanted, "seq": seq}))
    }

    /// Asks a worker to tell how busy its event loop is from now on, or to stop that.
    #[must_use]
    pub fn watch_loop(wanted: bool, seq: u64) -> Vec<u8> {
        line(&json!({"cmd": "NODE_PHALANX", "act": "watch-loop", "wanted": wanted, "seq": seq}))
    }

    /// Asks a worker to end politely what it holds above what it is to keep, and to tell what it holds.
    #[must_use]
    pub fn shed(shed: Shed, seq: u64) -> Vec<u8> {
        line(&json!({
            "cmd": "NODE_PHALANX", "act": "shed", "keep": shed.keep, "streams": shed.streams, "seq": seq,
        }))
    }

    /// Tells a spare which position it holds from now on, and its half of that position's row of the scoreboard.
    #[must_use]
    pub fn position(position: u32, lane: u8, seq: u64) -> Vec<u8> {
        line(&json!({
            "cmd": "NODE_PHALANX", "act": "position", "position": position, "lane": lane, "seq": seq,
        }))
    }

    /// Asks a Node worker for the application's own metrics; without a number, has it know that it will be asked.
    #[must_use]
    pub fn app_metrics(number: Option<u64>, seq: u64) -> Vec<u8> {
        let id = number.map(|number| format!("phalanx:{number}"));
        line(&json!({"cmd": "NODE_PHALANX", "act": "app-metrics", "id": id, "seq": seq}))
    }

    /// Asks whether the worker's event loop turns: a handle message without a handle, which an
    /// unmodified Node worker answers from there, with a NACK.
    pub const PROBE: &[u8] = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\"}\n";

    /// The part of `newconn` that is the same for every connection of a listener; the number and
    /// [`NEW_CONNECTION_END`] follow it.
    #[must_use]
    pub fn new_connection_start(key: &str) -> Vec<u8> {
        let key = Value::String(key.to_owned()).to_string();
        format!(
            "{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\",\"key\":{key},\"seq\":"
        )
        .into_bytes()
    }

    /// What closes a `newconn` line.
    pub const NEW_CONNECTION_END: &[u8] = b"}}\n";

    /// All sockets sent for this key are closed.
    #[must_use]
    pub fn sockets_closed(key: &Value) -> Vec<u8> {
        line(&json!({"cmd": "NODE_SOCKET_ALL_CLOSED", "key": key}))
    }

    /// So many of the sockets sent for this key are open.
    #[must_use]
    pub fn socket_count(key: &Value, count: u64) -> Vec<u8> {
        line(&json!({"cmd": "NODE_SOCKET_COUNT", "key": key, "count": count}))
    }

    /// What a Rust worker writes.
    pub mod worker {
        use super::{Duration, Value, json, line};
        use crate::health::Health;
        use crate::wire::HoldReport;

        /// The first message: the process runs.
        #[must_use]
        pub fn online(seq: u64) -> Vec<u8> {
            line(&json!({"cmd": "NODE_CLUSTER", "act": "online", "seq": seq}))
        }

        /// `queryServer` or `listening`: `act` in front of the fields of the address.
        #[must_use]
        pub fn listen(act: &str, address: &Value, seq: u64) -> Vec<u8> {
            let mut message = json!({"cmd": "NODE_CLUSTER", "act": act, "seq": seq});
            if let (Some(message), Some(fields)) = (message.as_object_mut(), address.as_object()) {
                message.extend(fields.clone());
            }
            line(&message)
        }

        /// A listener was closed.
        #[must_use]
        pub fn close(key: &str, seq: u64) -> Vec<u8> {
            line(&json!({"cmd": "NODE_CLUSTER", "act": "close", "key": key, "seq": seq}))
        }

        /// The answer to a `newconn`. Written as Node writes it, so that the primary's quick path takes it.
        #[must_use]
        pub fn accepted(ack: u64, accepted: bool, seq: u64) -> Vec<u8> {
            format!(
                "{{\"cmd\":\"NODE_CLUSTER\",\"ack\":{ack},\"accepted\":{accepted},\"seq\":{seq}}}\n"
            )
            .into_bytes()
        }

        /// Asks for the scoreboard.
        #[must_use]
        pub fn board(seq: u64) -> Vec<u8> {
            line(&json!({"cmd": "NODE_PHALANX", "act": "board", "seq": seq}))
        }

        /// It drains, and has streams to finish: it asks for so much time from now on.
        #[must_use]
        pub fn patience(by: Duration) -> Vec<u8> {
            let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            line(&json!({"cmd": "NODE_PHALANX", "act": "patience", "patience": millis}))
        }

        /// What this worker holds, as the message `ack` asked it to tell.
        #[must_use]
        pub fn holds(report: HoldReport, ack: u64, seq: u64) -> Vec<u8> {
            line(&json!({
                "cmd": "NODE_PHALANX", "act": "holds", "open": report.open, "ending": report.ending,
                "fixed": report.fixed, "ack": ack, "seq": seq,
            }))
        }

        /// What this worker answered since it was asked to tell.
        #[must_use]
        pub fn health(health: &Health, seq: u64) -> Vec<u8> {
            let latency: Vec<_> = health.latency.pairs().collect();
            line(&json!({
                "cmd": "NODE_PHALANX", "act": "health", "requests": health.requests,
                "errors": health.server_errors, "latency": latency, "time_us": health.time_us,
                "open": health.open, "seq": seq,
            }))
        }

        /// This worker leaves by its own wish.
        #[must_use]
        pub fn leaving(seq: u64) -> Vec<u8> {
            line(&json!({"cmd": "NODE_CLUSTER", "act": "exitedAfterDisconnect", "seq": seq}))
        }
    }
}
