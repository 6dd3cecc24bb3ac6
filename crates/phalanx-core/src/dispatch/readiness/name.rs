//! What makes a listener of one release the same as that of another: what a client would connect to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::wire::{ListenRequest, Target};

/// Where Linux begins to choose ports for port 0 (`ip_local_port_range`, by default).
const FIRST_FREE_PORT: u16 = 32_768;

/// How the names of listeners begin whose port the kernel chose.
const FREE_PORT: &str = "a free port";

/// The name of a listener: the same in every worker and every release, however the program asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ListenerName(String);

impl ListenerName {
    /// The name of what was asked for. `key` tells listeners on port 0 apart, which have no address yet.
    #[must_use]
    pub fn of_request(request: &ListenRequest, key: &str) -> Self {
        Self(match &request.target {
            Target::Tcp { port: 0, .. } | Target::Udp { port: 0, .. } => {
                format!("{FREE_PORT} ({key})")
            }
            Target::Tcp {
                address,
                port,
                only_v6,
            } => scoped(inet(*address, *port, *only_v6), request),
            Target::Udp {
                address,
                port,
                only_v6,
                ..
            } => {
                let name = format!("udp:{}", inet(*address, *port, *only_v6));
                scoped(name, request)
            }
            Target::UnixPath { path, .. } => format!("unix:{}", path.display()),
            Target::UnixAbstract(name) => format!("unix:@{}", String::from_utf8_lossy(name)),
            Target::Descriptor(number) | Target::DatagramDescriptor(number) => {
                format!("descriptor {number}")
            }
        })
    }

    /// The name of a socket that the worker opened by itself.
    #[must_use]
    pub fn of_own(address: SocketAddr) -> Self {
        if address.port() >= FIRST_FREE_PORT {
            return Self(FREE_PORT.to_owned());
        }
        Self(inet(Some(address.ip()), address.port(), false))
    }

    /// Whether the kernel chose its port, and the worker was only seen to have it.
    #[must_use]
    pub fn is_own_free_port(&self) -> bool {
        self.0 == FREE_PORT
    }

    /// Whether the kernel chose its port.
    #[must_use]
    pub fn is_free_port(&self) -> bool {
        self.0.starts_with(FREE_PORT)
    }

    /// The name of a Unix socket that the worker opened by itself; whether its path is the same in every worker
    /// is not known.
    #[must_use]
    pub fn of_own_unix() -> Self {
        Self("a Unix socket".to_owned())
    }
}

/// Every address of the machine is the same to a client, whether by IPv4 or IPv6.
fn inet(address: Option<IpAddr>, port: u16, only_v6: bool) -> String {
    match address.filter(|address| !address.is_unspecified()) {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None if only_v6 => format!("[::]:{port}"),
        None => format!(":{port}"),
    }
}

/// Link-local addresses are others on another interface.
fn scoped(name: String, request: &ListenRequest) -> String {
    match &request.scope {
        Some(scope) => format!("{name} on {scope}"),
        None => name,
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
impl From<&str> for ListenerName {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
