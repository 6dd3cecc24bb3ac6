//! The metrics port of an app.

use std::net::SocketAddr;

use phalanx::supervisor::Control;
use phalanx_control::exit::Exit;
use phalanx_control::metrics_port;
use phalanx_control::names::Name;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::MetricsArgs;
use crate::log::{Level, Log};
#[cfg(feature = "otlp")]
use crate::otlp::Exporting;
use crate::report::{Failure, Outcome};

/// Listens, before anything is started: an address that is taken is told at once.
pub(super) async fn listen(address: Option<SocketAddr>, log: &Log) -> Outcome<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let cannot = |error| {
        let what = format!("cannot serve metrics on {address} (--metrics)");
        Failure::caused(Exit::CannotCreate, &what, &error)
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let actual = listener.local_addr().map_err(cannot)?;
    let text = format!("metrics: http://{actual}/metrics");
    let fields = json!({"address": actual.to_string()});
    log.tell(Level::Info, "metrics", &text, fields);
    Ok(Some(listener))
}

/// Whoever is told the app's figures: those that ask at the port, and a collector.
pub(super) struct Readers {
    port: Option<Served>,
    #[cfg(feature = "otlp")]
    collector: Option<Exporting>,
}

impl Readers {
    #[cfg_attr(
        not(feature = "otlp"),
        expect(unused_variables, reason = "they are for the collector")
    )]
    pub(super) fn start(
        port: Option<TcpListener>,
        args: &MetricsArgs,
        control: &Control,
        app: &Name,
    ) -> Self {
        Self {
            port: port.map(|port| Served::start(port, control.clone())),
            #[cfg(feature = "otlp")]
            collector: args.otlp.clone().map(|collector| {
                Exporting::start(collector, args.otlp_interval, control.clone(), app.as_str())
            }),
        }
    }

    /// Who has a question under way gets its answer, and the collector the last figures.
    pub(super) async fn finish(self) {
        if let Some(port) = self.port {
            port.finish().await;
        }
        #[cfg(feature = "otlp")]
        if let Some(collector) = self.collector {
            drop(tokio::time::timeout(super::ANSWER_LIMIT, collector.finish()).await);
        }
    }
}

/// A port that is served.
struct Served {
    /// Its end is the server's.
    end: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Served {
    fn start(listener: TcpListener, control: Control) -> Self {
        let (end, ended) = oneshot::channel();
        let until = async { drop(ended.await) };
        let server = tokio::spawn(metrics_port::serve(listener, control, until));
        Self { end, server }
    }

    async fn finish(self) {
        drop(self.end);
        drop(tokio::time::timeout(super::ANSWER_LIMIT, self.server).await);
    }
}
