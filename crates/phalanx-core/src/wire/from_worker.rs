//! What a worker says to its primary.

mod advanced;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::json::JsonCheck;
use super::{WireError, field_error, internal_command, key_text, parse_value, unsigned};
use crate::health::{Health, Latency};

pub use advanced::parse_advanced_from_worker;

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
    /// It tells its load (`NODE_PHALANX`, `act:load`), as it was asked to.
    Load(LoadReport),
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

/// The body of `queryServer` and `listening`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenRequest {
    /// Where to listen.
    pub target: Target,
    /// The how-many-eth server of that worker on this address.
    pub index: u64,
    /// The requested backlog; nothing where the application named none.
    pub backlog: Option<u32>,
    /// Data of a TLS server (session ticket keys), to be echoed to every worker.
    pub data: Value,
    /// The four fields of the listener's key, as the worker wrote them.
    pub key: String,
}

/// Where a worker wants to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a listener can be made of each")]
pub enum Target {
    /// TCP. No address means any: `::` in dual stack, else `0.0.0.0`.
    Tcp {
        /// The address, resolved.
        address: Option<IpAddr>,
        /// The port; 0 lets the kernel choose.
        port: u16,
        /// `IPV6_V6ONLY`.
        only_v6: bool,
    },
    /// A Unix socket in the file system.
    UnixPath {
        /// The path.
        path: PathBuf,
        /// The file becomes readable for all.
        readable_all: bool,
        /// The file becomes writable for all.
        writable_all: bool,
    },
    /// A Unix socket in the abstract namespace; the name without its leading NUL.
    UnixAbstract(Vec<u8>),
    /// UDP.
    Udp {
        /// The address, resolved.
        address: Option<IpAddr>,
        /// The port; 0 lets the kernel choose.
        port: u16,
        /// An IPv6 socket.
        v6: bool,
        /// `IPV6_V6ONLY`.
        only_v6: bool,
        /// `SO_REUSEADDR`.
        reuse_address: bool,
    },
    /// A descriptor that the *primary* inherited.
    Descriptor(i32),
    /// The same, for a worker that wants datagrams from it.
    DatagramDescriptor(i32),
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
        "NODE_HANDLE" => Ok(FromWorker::Handle {
            message: value.get("msg").unwrap_or(&Value::Null).to_string().into(),
        }),
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
        "load" => LoadReport::deserialize(value)
            .map(FromWorker::Load)
            .map_err(WireError::Json),
        "leaving" => Ok(FromWorker::Leaving { seq: None }),
        "health" => Ok(FromWorker::Health(parse_health(value)?)),
        "patience" => Ok(FromWorker::Patience {
            by: Duration::from_millis(unsigned(value, "patience", "patience")?),
        }),
        _ => Ok(FromWorker::Ignored),
    }
}

fn parse_health(value: &Value) -> Result<Health, WireError> {
    let latency = Vec::<(u64, u64)>::deserialize(&value["latency"]).map_err(WireError::Json)?;
    Ok(Health {
        requests: unsigned(value, "health", "requests")?,
        server_errors: unsigned(value, "health", "errors")?,
        latency: Latency::from_pairs(latency),
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

fn parse_listen(value: &Value, act: &str) -> Result<ListenRequest, WireError> {
    let null = Value::Null;
    let at = |name: &str| value.get(name).unwrap_or(&null);
    Ok(ListenRequest {
        target: parse_target(value, act)?,
        index: at("index").as_u64().unwrap_or(0),
        backlog: at("backlog")
            .as_u64()
            .and_then(|backlog| u32::try_from(backlog).ok())
            .filter(|&backlog| backlog > 0),
        data: at("data").clone(),
        key: format!(
            "{}:{}:{}:{}",
            plain(at("address")),
            plain(at("port")),
            plain(at("addressType")),
            plain(at("fd")),
        ),
    })
}

/// A field as JavaScript would put it into a string.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_)) => other.to_string(),
    }
}

fn parse_target(value: &Value, act: &str) -> Result<Target, WireError> {
    let null = Value::Null;
    let at = |name: &str| value.get(name).unwrap_or(&null);
    if let Some(descriptor) = at("fd").as_i64().filter(|&fd| fd >= 0) {
        let descriptor = i32::try_from(descriptor).map_err(|_| field_error(act, "fd"))?;
        let is_udp = at("addressType")
            .as_str()
            .is_some_and(|kind| kind.starts_with("udp"));
        return Ok(if is_udp {
            Target::DatagramDescriptor(descriptor)
        } else {
            Target::Descriptor(descriptor)
        });
    }
    let flags = at("flags").as_u64().unwrap_or(0);
    let kind = at("addressType");
    if let Some(kind) = kind
        .as_str()
        .filter(|&kind| kind == "udp4" || kind == "udp6")
    {
        return Ok(Target::Udp {
            address: parse_address(at("address"), act)?,
            port: parse_port(at("port"), act)?,
            v6: kind == "udp6",
            only_v6: flags & 1 != 0,
            reuse_address: flags & 4 != 0,
        });
    }
    match kind.as_i64() {
        Some(-1) => parse_unix(value, act),
        Some(4 | 6) => Ok(Target::Tcp {
            address: parse_address(at("address"), act)?,
            port: parse_port(at("port"), act)?,
            only_v6: flags & 1 != 0,
        }),
        Some(_) | None => Err(field_error(act, "addressType")),
    }
}

fn parse_address(value: &Value, act: &str) -> Result<Option<IpAddr>, WireError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => {
            // A scope ("fe80::1%eth0") names an interface; the address before it is what is bound.
            let bare = text.split('%').next().unwrap_or(text);
            bare.parse()
                .map(Some)
                .map_err(|_| field_error(act, "address"))
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(field_error(act, "address"))
        }
    }
}

fn parse_port(value: &Value, act: &str) -> Result<u16, WireError> {
    if value.is_null() {
        return Ok(0);
    }
    let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| field_error(act, "port"))
}

/// Node makes an abstract name absolute against its working directory; the name begins at the NUL.
fn parse_unix(value: &Value, act: &str) -> Result<Target, WireError> {
    let path = value
        .get("address")
        .and_then(Value::as_str)
        .ok_or_else(|| field_error(act, "address"))?;
    if let Some((_, name)) = path.split_once('\0') {
        return Ok(Target::UnixAbstract(name.as_bytes().to_vec()));
    }
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    Ok(Target::UnixPath {
        path: PathBuf::from(path),
        readable_all: flag("readableAll"),
        writable_all: flag("writableAll"),
    })
}
