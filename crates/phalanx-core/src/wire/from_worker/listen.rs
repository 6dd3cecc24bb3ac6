//! What a worker says when it wants to listen.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::{WireError, field_error};

/// The body of `queryServer` and `listening`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenRequest {
    /// Where to listen.
    pub target: Target,
    /// The interface of a link-local address (`fe80::1%eth0`), by name or number.
    pub scope: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

pub(super) fn parse_listen(value: &Value, act: &str) -> Result<ListenRequest, WireError> {
    let null = Value::Null;
    let at = |name: &str| value.get(name).unwrap_or(&null);
    Ok(ListenRequest {
        target: parse_target(value, act)?,
        scope: at("address").as_str().and_then(scope_of),
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

/// The interface that an IPv6 address names (`fe80::1%eth0`).
fn scope_of(address: &str) -> Option<String> {
    let (address, scope) = address.split_once('%')?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(scope.to_owned())
}

fn parse_address(value: &Value, act: &str) -> Result<Option<IpAddr>, WireError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => {
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
