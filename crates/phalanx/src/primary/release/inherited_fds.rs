//! What a worker of activation is given: its listeners as open descriptors, and the variables by which
//! programs find them: those of systemd (`sd_listen_fds(3)`) and those of einhorn, side by side.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use phalanx_core::ids::Position;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::ListenRequest;
use phalanx_sys::notify::NotifySocket;
use phalanx_sys::process::FdMapping;

use crate::settings::Settings;

/// `SD_LISTEN_FDS_START`.
const FIRST_NUMBER: i32 = 3;

/// What one worker is given.
#[derive(Debug, Default)]
pub(crate) struct InheritedFds {
    pub(in crate::primary) sockets: Vec<Given>,
    /// The name and the primary's end of the socket on which the worker speaks of itself.
    pub(in crate::primary) notify: Option<NotifySocket>,
}

#[derive(Debug)]
pub(in crate::primary) struct Given {
    pub(in crate::primary) name: String,
    pub(in crate::primary) listener: ListenerId,
    pub(in crate::primary) request: ListenRequest,
    pub(in crate::primary) socket: Arc<OwnedFd>,
    /// As einhorn names it.
    pub(in crate::primary) family: &'static str,
}

impl InheritedFds {
    /// Variables beside those that every worker has.
    pub(in crate::primary) fn env(
        &self,
        position: Position,
        settings: &Settings,
    ) -> Vec<(OsString, OsString)> {
        let mut env = Vec::new();
        let mut set = |name: String, value: String| env.push((name.into(), value.into()));
        if let Some(notify) = &self.notify {
            set("NOTIFY_SOCKET".to_owned(), notify.name.clone());
        }
        if let Some(limit) = settings.watchdog {
            set("WATCHDOG_USEC".to_owned(), limit.as_micros().to_string());
        }
        if self.sockets.is_empty() {
            return env;
        }
        let count = self.sockets.len();
        let names: Vec<_> = self.sockets.iter().map(|one| one.name.as_str()).collect();
        set("LISTEN_FDS".to_owned(), count.to_string());
        set("LISTEN_FDNAMES".to_owned(), names.join(":"));
        set(
            "EINHORN_MASTER_PID".to_owned(),
            std::process::id().to_string(),
        );
        set("EINHORN_CHILD_INDEX".to_owned(), position.to_string());
        set("EINHORN_FD_COUNT".to_owned(), count.to_string());
        for (index, (number, given)) in (FIRST_NUMBER..).zip(&self.sockets).enumerate() {
            set(format!("EINHORN_FD_{index}"), number.to_string());
            set(
                format!("EINHORN_FD_FAMILY_{index}"),
                given.family.to_owned(),
            );
        }
        if let Some(path) = &settings.ack_socket {
            env.push(("EINHORN_SOCK_PATH".into(), path.clone().into()));
        }
        env
    }

    /// Variables that hold the worker's own pid.
    pub(in crate::primary) fn own_pid_env(&self, settings: &Settings) -> Vec<OsString> {
        let mut names = Vec::new();
        if !self.sockets.is_empty() {
            names.push("LISTEN_PID".into());
        }
        if settings.watchdog.is_some() {
            names.push("WATCHDOG_PID".into());
        }
        names
    }

    /// The descriptors, from 3 on.
    pub(in crate::primary) fn fds(&self) -> impl Iterator<Item = FdMapping> {
        let numbered = (FIRST_NUMBER..).zip(&self.sockets);
        numbered.map(|(number, given)| FdMapping::shared(Arc::clone(&given.socket), number))
    }

    /// The sockets, by the keys under which the worker holds them; this keeps none of them open.
    pub(in crate::primary) fn sockets(&self) -> Vec<(String, Weak<OwnedFd>)> {
        let sockets = self.sockets.iter().enumerate();
        let socket = |(index, given): (usize, &Given)| (key(index), Arc::downgrade(&given.socket));
        sockets.map(socket).collect()
    }
}

/// The key of the socket of this index.
pub(in crate::primary) fn key(index: usize) -> String {
    format!("given:{index}")
}
