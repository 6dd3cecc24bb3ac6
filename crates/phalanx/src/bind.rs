//! A listener that the primary opens by itself, before any worker asks for it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::str::FromStr;

use phalanx_sys::socket::{self, SocketKind};

use crate::address::{Address, BadAddress};

/// The name of a listener that was given none.
const UNNAMED: &str = "listener";
/// The longest name that systemd allows (`FileDescriptorName=`, systemd.socket(5)).
const NAME_BYTES_MAX: usize = 255;

/// A listener: an address, and the name by which programs find its listener (`LISTEN_FDNAMES`).
///
/// As text: an [`Address`], or `name=` and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bind {
    /// The name; `listener` unless told otherwise.
    pub name: String,
    /// Where.
    pub address: Address,
    /// The number of the descriptor that it is, where this process was started with it.
    inherited: Option<i32>,
}

impl Bind {
    /// A listener without a name of its own.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            name: UNNAMED.to_owned(),
            address,
            inherited: None,
        }
    }

    /// The listener that this process was started with as descriptor `number`, as systemd starts
    /// services.
    ///
    /// # Errors
    /// `EBADF` when it was not started with such a descriptor; `InvalidInput` when that is no stream
    /// socket.
    pub fn inherited(number: i32, name: Option<&str>) -> io::Result<Self> {
        let socket = socket::inherited_socket(number)?;
        match socket::socket_kind(socket.as_fd())? {
            SocketKind::TcpListener
            | SocketKind::UnixListener
            | SocketKind::TcpStream
            | SocketKind::UnixStream => {}
            SocketKind::Udp | SocketKind::Other | _ => {
                let reason = "only stream sockets can be listened on";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
        }
        Ok(Self {
            name: name.unwrap_or(UNNAMED).to_owned(),
            address: crate::primary::from_sys(socket::local_address(socket.as_fd())?),
            inherited: Some(number),
        })
    }

    /// The descriptor, if this process was started with it.
    pub(crate) fn descriptor(&self) -> Option<i32> {
        self.inherited
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name != UNNAMED {
            write!(f, "{}=", self.name)?;
        }
        self.address.fmt(f)
    }
}

/// A text that is no listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadBind {
    /// What follows the name is no address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The name cannot be told to a program.
    #[error(
        "{0:?} is no name of a listener: use up to 255 letters, digits and punctuation, without ':'"
    )]
    Name(String),
}

impl FromStr for Bind {
    type Err = BadBind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Every address has a colon, and no name has one.
        let named = text.split_once('=').filter(|(name, _)| !name.contains(':'));
        let Some((name, address)) = named else {
            return Ok(Self::new(text.parse()?));
        };
        let is_fit = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
        if !is_fit(name) || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadBind::Name(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            address: address.parse()?,
            inherited: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_may_have_a_name() {
        for text in [
            "127.0.0.1:80",
            "web=:8080",
            "api=[::1]:1",
            "unix:/run/a=b.sock",
            "x.socket=unix:@c",
        ] {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), text);
        }
        assert_eq!(":80".parse::<Bind>().unwrap().name, "listener");
    }

    #[test]
    fn bad_names_and_addresses_are_told_apart() {
        for text in ["=:80", "a b=:80", "ü=:80"] {
            assert!(
                matches!(text.parse::<Bind>(), Err(BadBind::Name(_))),
                "{text}"
            );
        }
        for text in ["80", "web=80", "web=", "a:b=:80"] {
            assert!(
                matches!(text.parse::<Bind>(), Err(BadBind::Address(_))),
                "{text}"
            );
        }
    }
}
