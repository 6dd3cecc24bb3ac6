//! The metrics port of an app.

use std::net::SocketAddr;

use phalanx::supervisor::Control;
use phalanx_control::exit::Exit;
use phalanx_control::metrics;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::log::{Level, Log};
use crate::report::{Failure, Outcome};

/// Listens, before anything is started: an address that is taken is told at once.
pub(super) async fn listen(address: Option<SocketAddr>, log: &Log) -> Outcome<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let cannot = |error| {
        let what = format!("cannot serve metrics on {address} (--metrics)");
        Failure::caused(Exit::Failed, &what, &error)
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let actual = listener.local_addr().map_err(cannot)?;
    let text = format!("metrics: http://{actual}/metrics");
    let fields = json!({"address": actual.to_string()});
    log.tell(Level::Info, "metrics", &text, fields);
    Ok(Some(listener))
}

/// A port that is served.
pub(super) struct Served {
    /// Its end is the server's.
    end: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Served {
    pub(super) fn start(listener: TcpListener, control: Control) -> Self {
        let (end, ended) = oneshot::channel();
        let until = async { drop(ended.await) };
        let server = tokio::spawn(metrics::serve(listener, control, until));
        Self { end, server }
    }

    /// Who has a question under way gets its answer.
    pub(super) async fn finish(self) {
        drop(self.end);
        drop(tokio::time::timeout(super::ANSWER_LIMIT, self.server).await);
    }
}
