//! Sends the metrics to an OpenTelemetry collector: OTLP over HTTP, in protobuf, at an interval and once more at the end.
//!
//! Sums are cumulative, so a collector that was away for a while has lost nothing but detail. It costs the app nothing that it is away:
//! each attempt has a limit, and the next one is the next interval's.

mod convert;
mod message;

use std::env;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use phalanx::supervisor::Control;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use convert::{Times, request};

/// One attempt takes no longer.
const LIMIT: Duration = Duration::from_secs(10);
/// What the specification has behind the address of a collector.
const SIGNAL: &str = "v1/metrics";

/// Where a collector takes metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || "use http://HOST:PORT (no https: have the collector beside the app)".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let is_plain = uri.scheme_str() == Some("http") && uri.query().is_none();
        let host = uri.host().filter(|host| is_plain && !host.is_empty());
        let host = host.ok_or_else(wrong)?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().ok_or_else(wrong)?,
            path: format!("{}/{SIGNAL}", uri.path().trim_end_matches('/')),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}{path}")
        } else {
            write!(f, "http://{host}:{port}{path}")
        }
    }
}

/// What is sent at an interval, until it is to end.
pub(crate) struct Exporting {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    pub(crate) fn start(
        collector: Collector,
        every: Duration,
        control: Control,
        app: &str,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let exporter = Exporter {
            collector,
            control,
            attributes: attributes(app),
            started: epoch_nanos(),
            has_failed: false,
        };
        let task = tokio::spawn(exporter.run(every, ended));
        Self { end, task }
    }

    /// Sends once more, and ends.
    pub(crate) async fn finish(self) {
        drop(self.end);
        drop(self.task.await);
    }
}

struct Exporter {
    collector: Collector,
    control: Control,
    /// Who is told of.
    attributes: Vec<(String, String)>,
    started: u64,
    has_failed: bool,
}

impl Exporter {
    async fn run(mut self, every: Duration, mut ended: oneshot::Receiver<()>) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                // Its sender sends nothing: being dropped is the message.
                _ = &mut ended => true,
            };
            let sent = timeout(LIMIT, self.send()).await;
            self.tell(&sent.unwrap_or_else(|_| Err("it takes too long".into())));
            if is_last {
                return;
            }
        }
    }

    async fn send(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let families = self.control.families().await;
        let times = Times {
            start: self.started,
            now: epoch_nanos(),
        };
        let body = request(&families, &self.attributes, times).encode_to_vec();
        let Collector { host, port, path } = &self.collector;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(path)
            .header(HOST, format!("{host}:{port}"))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))?;
        // The connection ends with its sender.
        let answered = async move {
            let answer = sender.send_request(request).await?;
            Ok::<_, hyper::Error>(answer.status())
        };
        let (status, end) = tokio::join!(answered, connection);
        let status = status?;
        drop(end);
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it answers {status}").into())
        }
    }

    /// Tells that it fails, and that it goes again, once each.
    fn tell(&mut self, sent: &Result<(), Box<dyn std::error::Error + Send + Sync>>) {
        let collector = &self.collector;
        match sent {
            Ok(()) if self.has_failed => {
                tracing::info!(%collector, "the collector takes metrics again");
            }
            Err(error) if !self.has_failed => {
                tracing::warn!(%collector, %error, "the collector does not take metrics");
            }
            Ok(()) | Err(_) => {}
        }
        self.has_failed = sent.is_err();
    }
}

/// The resource: the app's name, and what the variables of OpenTelemetry say.
fn attributes(app: &str) -> Vec<(String, String)> {
    let name = env::var("OTEL_SERVICE_NAME").ok();
    let name = name.filter(|name| !name.is_empty());
    let others = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    resource(&name.unwrap_or_else(|| app.to_owned()), &others)
}

fn resource(name: &str, others: &str) -> Vec<(String, String)> {
    let pairs = others.split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    let others = pairs.filter(|(key, _)| key != "service.name" && !key.is_empty());
    let name = ("service.name".to_owned(), name.to_owned());
    [name].into_iter().chain(others).collect()
}

fn epoch_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_plain_address_and_maybe_a_path() {
        let shown = |text: &str| text.parse::<Collector>().map(|one| one.to_string());
        for (text, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/metrics"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/metrics"),
            ("http://otel:80/in", "http://otel:80/in/v1/metrics"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(url));
        }
        for wrong in [
            "localhost:4318",
            "https://a:1",
            "http://a",
            "http://",
            "",
            "http://a:1?b",
        ] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_resource_is_the_app_and_what_the_variables_add() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            resource("shop", "team = blue,service.name=other,,x"),
            [pair("service.name", "shop"), pair("team", "blue")]
        );
    }
}
