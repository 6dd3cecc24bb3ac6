//! What apps say to the service manager, for which they take this process (`sd_notify(3)`): that they are up.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use super::Happening;
use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;

/// The longest notice; a status line fits.
const NOTICE_BYTES: usize = 4096;

/// The sockets, one for each app, in a directory that nobody else may enter.
pub(super) struct NotifySockets {
    directory: TempDir,
}

impl NotifySockets {
    pub(super) fn open(apps: usize, told: &mpsc::UnboundedSender<Happening>) -> Outcome<Self> {
        let cannot = |error: std::io::Error| {
            Failure::caused(
                Exit::CannotCreate,
                "cannot create sockets for the apps",
                &error,
            )
        };
        let directory = tempfile::Builder::new()
            .prefix("phalanx-up")
            .tempdir()
            .map_err(cannot)?;
        let notify_sockets = Self { directory };
        for index in 0..apps {
            let socket = UnixDatagram::bind(notify_sockets.path(index)).map_err(cannot)?;
            tokio::spawn(hear(socket, index, told.clone()));
        }
        Ok(notify_sockets)
    }

    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.directory.path().join(index.to_string())
    }
}

async fn hear(socket: UnixDatagram, index: usize, told: mpsc::UnboundedSender<Happening>) {
    let mut notice = vec![0; NOTICE_BYTES];
    loop {
        match socket.recv(&mut notice).await {
            Ok(length) => {
                let is_ready = notice[..length]
                    .split(|byte| *byte == b'\n')
                    .any(|line| line == b"READY=1");
                if is_ready && told.send(Happening::Ready(index)).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an app is not heard any more");
                return;
            }
        }
    }
}
