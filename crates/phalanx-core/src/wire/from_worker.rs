//! What a worker says to its primary.

mod advanced;
mod listen;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::json::JsonCheck;
use super::{
    HANDLE_RETRIES, WireError, field_error, internal_command, key_text, parse_value, unsigned,
};
use crate::health::{Health, Latency};

pub use advanced::parse_advanced_from_worker;
use listen::parse_listen;
pub use listen::{ListenRequest, Target};

/// A message from a worker.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the primary must handle each")]
pub enum FromWorker {
    /// The worker runs (`act:online`); its own code has not started yet.
    Online,
    /// It wants to listen (`act:queryServer`); `seq` must be answered.
    QueryServer {
        /// The number to answer with `ack`.
        seq: u64,
        /// What it wants.
        request: ListenRequest,
    },
    /// It listens (`act:listening`), and serves from now on. Carries the actual port.
    Listening(ListenRequest),
    /// It closed the server of this key (`act:close`).
    Close {
        /// The key its `queryServer` was answered with.
        key: String,
    },
    /// It leaves by its own wish: it finishes its work (`NODE_PHALANX`, `act:leaving`), or has done so
    /// (`act:exitedAfterDisconnect`).
    Leaving {
        /// The number to answer with `ack`, if it waits for that.
        seq: Option<u64>,
    },
    /// The answer to a `newconn`: the worker took the connection, or returns it.
    Accepted {
        /// The `seq` of the `newconn`.
        ack: u64,
        /// False: the connection is returned.
        accepted: bool,
    },
    /// The oldest unanswered handle arrived.
    HandleAck,
    /// The oldest unanswered handle message came without its descriptor.
    HandleNack,
    /// The application sends a descriptor (`process.send(message, handle)`).
    Handle {
        /// Its message, as JSON.
        message: Arc<str>,
    },
    /// A server that had sent sockets is closing and waits for `NODE_SOCKET_ALL_CLOSED`.
    SocketsClosing {
        /// Whose sockets.
        key: Value,
    },
    /// It asks for the scoreboard (`NODE_PHALANX`, `act:board`), to count for itself; `seq` must be answered.
    Board {
        /// The number to answer with `ack`.
        seq: u64,
    },
    /// It asks for duplicates of its slot (`NODE_PHALANX`, `act:duplicates`), to accept in batches.
    Duplicates {
        /// The key its `queryServer` was answered with.
        key: String,
        /// How many; not more than [`MAX_DUPLICATES`].
        count: u32,
    },
    /// Whether it takes no more connections from this slot for now (`NODE_PHALANX`, `act:full`).
    Full {
        /// The key its `queryServer` was answered with.
        key: String,
        /// False: it has room again.
        full: bool,
    },
    /// It gives back a connection that reached its slot when it was full (a handle, in which `NODE_PHALANX`,
    /// `act:return`).
    Returned {
        /// The key its `queryServer` was answered with.
        key: String,
    },
    /// It tells its load (`NODE_PHALANX`, `act:load`), as it was asked to.
    Load(LoadReport),
    /// It tells what it holds (`NODE_PHALANX`, `act:holds`), as it was asked to.
    Holds {
        /// What it holds.
        report: HoldReport,
        /// The `seq` of the message that asked. A worker whose preload is older does not say it.
        ack: Option<u64>,
    },
    /// It tells how busy its event loop was of late (`NODE_PHALANX`, `act:loop`), as it was asked to.
    Loop {
        /// In thousandths of the time.
        busy: u32,
    },
    /// It tells what it answered since it was asked to (`NODE_PHALANX`, `act:health`).
    Health(Health),
    /// How many of the sent sockets are open?
    SocketCount {
        /// Whose sockets.
        key: Value,
    },
    /// It drains, and has streams to finish (`NODE_PHALANX`, `act:patience`).
    Patience {
        /// How much time it asks for, from now on.
        by: Duration,
    },
    /// An internal message that a primary has nothing to do for.
    Ignored,
    /// A message of the application, as JSON. It was checked, not built: that is for those who want to see it.
    User(Arc<str>),
}

/// How many duplicates of its slot a worker gets at most.
pub const MAX_DUPLICATES: u32 = 15;

/// The load of a worker that cannot reach the scoreboard itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadReport {
    /// Connections that are open now.
    pub open: u32,
    /// Connections closed since it began to tell.
    pub closed: u32,
    /// Requests that await their answer.
    pub outstanding: u32,
    /// The slowest answer since the last report, in µs; 0 if there was none.
    pub slowest_us: u32,
}

/// What a worker holds while connections are rebalanced, all at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "both ends make it")]
pub struct HoldReport {
    /// Connections that are open.
    pub open: u32,
    /// Those of them that it is ending.
    pub ending: u32,
    /// Those of them that it does not end: streams.
    pub fixed: u32,
}

/// Parses one line from a worker.
///
/// # Errors
/// See [`WireError`]; the line alone is at fault, later lines are good.
pub fn parse_from_worker(line: &[u8]) -> Result<FromWorker, WireError> {
    if let Some(frequent) = parse_frequent(line) {
        return Ok(frequent);
    }
    if !may_be_internal(line) {
        return check(line).map(FromWorker::User);
    }
    let value = parse_value(line)?;
    match internal_command(&value) {
        None => check(line).map(FromWorker::User),
        Some(command) => parse_internal(command, &value),
    }
}

/// Reads an internal message with this command.
pub(super) fn parse_internal(command: &str, value: &Value) -> Result<FromWorker, WireError> {
    match command {
        "NODE_CLUSTER" => parse_cluster(value),
        "NODE_PHALANX" => parse_own(value),
        "NODE_HANDLE_ACK" => Ok(FromWorker::HandleAck),
        "NODE_HANDLE_NACK" => Ok(FromWorker::HandleNack),
        "NODE_HANDLE" => {
            let message = sent_with(value);
            Ok(returned(message).unwrap_or_else(|| FromWorker::Handle {
                message: message.to_string().into(),
            }))
        }
        "NODE_SOCKET_NOTIFY_CLOSE" => Ok(FromWorker::SocketsClosing {
            key: value.get("key").cloned().unwrap_or(Value::Null),
        }),
        "NODE_SOCKET_GET_COUNT" => Ok(FromWorker::SocketCount {
            key: value.get("key").cloned().unwrap_or(Value::Null),
        }),
        _ => Ok(FromWorker::Ignored),
    }
}

/// Takes a line of more than 64 KiB that was found to be JSON while it arrived. No message of the protocol is
/// that long, and none is built from so many bytes.
///
/// # Errors
/// [`WireError::Long`] and [`WireError::Text`].
pub fn take_long_from_worker(line: &[u8]) -> Result<FromWorker, WireError> {
    if line.starts_with(INTERNAL) {
        return Err(WireError::Long { bytes: line.len() });
    }
    let text = std::str::from_utf8(line).map_err(WireError::Text)?;
    Ok(FromWorker::User(text.into()))
}

/// How Node begins every message of its own.
const INTERNAL: &[u8] = br#"{"cmd":"NODE_"#;

/// Whether the line has to be looked into. A message that hides its `cmd` behind escapes is the application's.
fn may_be_internal(line: &[u8]) -> bool {
    line.starts_with(INTERNAL) || line.windows(6).any(|part| part == b"\"NODE_")
}

/// An application's message, if it is JSON.
fn check(line: &[u8]) -> Result<Arc<str>, WireError> {
    let mut check = JsonCheck::default();
    if check.take(line) && check.is_whole() {
        return std::str::from_utf8(line)
            .map(Arc::from)
            .map_err(WireError::Text);
    }
    match serde_json::from_slice::<IgnoredAny>(line) {
        Err(error) => Err(WireError::Json(error)),
        Ok(IgnoredAny) => Err(WireError::Deep),
    }
}

/// The two lines a worker writes for every connection, without a JSON parser.
pub(super) fn parse_frequent(line: &[u8]) -> Option<FromWorker> {
    if line == b"{\"cmd\":\"NODE_HANDLE_ACK\"}" {
        return Some(FromWorker::HandleAck);
    }
    let rest = line.strip_prefix(b"{\"cmd\":\"NODE_CLUSTER\",\"ack\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let ack = std::str::from_utf8(number).ok()?.parse().ok()?;
    let rest = rest.strip_prefix(b",\"accepted\":")?;
    let (accepted, rest) = match rest.strip_prefix(b"true") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(b"false")?),
    };
    let simple = rest == b"}"
        || (rest.starts_with(b",\"seq\":") && rest.ends_with(b"}") && !rest.contains(&b'{'));
    simple.then_some(FromWorker::Accepted { ack, accepted })
}

/// What only workers of phalanx say.
fn parse_own(value: &Value) -> Result<FromWorker, WireError> {
    match value.get("act").and_then(Value::as_str).unwrap_or("") {
        "board" => Ok(FromWorker::Board {
            seq: unsigned(value, "board", "seq")?,
        }),
        "duplicates" => Ok(FromWorker::Duplicates {
            key: parse_key(value, "duplicates")?,
            count: u32::try_from(unsigned(value, "duplicates", "count")?)
                .ok()
                .filter(|&count| count <= MAX_DUPLICATES)
                .ok_or_else(|| field_error("duplicates", "count"))?,
        }),
        "full" => Ok(FromWorker::Full {
            key: parse_key(value, "full")?,
            full: value.get("full").and_then(Value::as_bool).unwrap_or(false),
        }),
        "load" => LoadReport::deserialize(value)
            .map(FromWorker::Load)
            .map_err(WireError::Json),
        "holds" => HoldReport::deserialize(value)
            .map(|report| FromWorker::Holds {
                report,
                ack: value["ack"].as_u64(),
            })
            .map_err(WireError::Json),
        "loop" => Ok(FromWorker::Loop {
            busy: u32::try_from(unsigned(value, "loop", "busy")?)
                .map_err(|_| field_error("loop", "busy"))?
                .min(1000),
        }),
        "leaving" => Ok(FromWorker::Leaving { seq: None }),
        "health" => Ok(FromWorker::Health(parse_health(value)?)),
        "patience" => Ok(FromWorker::Patience {
            by: Duration::from_millis(unsigned(value, "patience", "patience")?),
        }),
        _ => Ok(FromWorker::Ignored),
    }
}

/// The message that a handle was sent with. When a handle did not arrive, Node sends it again in an envelope around
/// the envelope, up to three times.
fn sent_with(envelope: &Value) -> &Value {
    let mut message = envelope.get("msg").unwrap_or(&Value::Null);
    for _ in 0..HANDLE_RETRIES {
        if internal_command(message) != Some("NODE_HANDLE") {
            break;
        }
        message = message.get("msg").unwrap_or(&Value::Null);
    }
    message
}

/// Whether a handle is a connection that a full worker gives back, by the message that came with it.
pub(super) fn returned(message: &Value) -> Option<FromWorker> {
    let is_own = internal_command(message) == Some("NODE_PHALANX") && message["act"] == "return";
    let key = message.get("key").and_then(key_text).filter(|_| is_own)?;
    Some(FromWorker::Returned { key })
}

fn parse_health(value: &Value) -> Result<Health, WireError> {
    let latency = Vec::<(u64, u64)>::deserialize(&value["latency"]).map_err(WireError::Json)?;
    Ok(Health {
        requests: unsigned(value, "health", "requests")?,
        server_errors: unsigned(value, "health", "errors")?,
        latency: Latency::from_pairs(latency),
        // Workers of older versions do not tell these.
        time_us: value["time_us"].as_u64().unwrap_or(0),
        open: value["open"].as_u64().and_then(|open| open.try_into().ok()),
    })
}

fn parse_cluster(value: &Value) -> Result<FromWorker, WireError> {
    let act = value.get("act").and_then(Value::as_str).unwrap_or("");
    match act {
        "online" => Ok(FromWorker::Online),
        "queryServer" => Ok(FromWorker::QueryServer {
            seq: unsigned(value, act, "seq")?,
            request: parse_listen(value, act)?,
        }),
        "listening" => Ok(FromWorker::Listening(parse_listen(value, act)?)),
        "close" => Ok(FromWorker::Close {
            key: parse_key(value, act)?,
        }),
        "exitedAfterDisconnect" => Ok(FromWorker::Leaving {
            seq: Some(unsigned(value, act, "seq")?),
        }),
        _ => match (
            value.get("ack").and_then(Value::as_u64),
            value.get("accepted"),
        ) {
            (Some(ack), Some(accepted)) => Ok(FromWorker::Accepted {
                ack,
                accepted: accepted.as_bool().unwrap_or(false),
            }),
            (Some(_) | None, _) => Ok(FromWorker::Ignored),
        },
    }
}

fn parse_key(value: &Value, act: &str) -> Result<String, WireError> {
    let key = value.get("key").and_then(key_text);
    key.ok_or_else(|| field_error(act, "key"))
}
