//! Options of `run` on metrics and probes, and the verb that shows the metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::AppArgs;
use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Metrics")]
pub(crate) struct MetricsArgs {
    /// Serve /metrics for Prometheus, and /livez, /readyz and /startupz, on this address; a port alone is one of 127.0.0.1
    ///
    /// Whoever reaches the address can read them. Metrics of the application itself (prom-client, Python's client library) are among them.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,

    /// Send the metrics to an OpenTelemetry collector at this address, by OTLP over HTTP in protobuf
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "http://HOST:PORT")]
    pub(crate) otlp: Option<crate::otlp::Collector>,

    /// How often they are sent
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = values::positive_duration)]
    pub(crate) otlp_interval: Duration,

    /// How long /readyz says no before a stop begins, so that load balancers look elsewhere while all is still served
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = values::duration)]
    pub(crate) pre_stop_delay: Duration,
}

impl MetricsArgs {
    /// Whether anybody is told the metrics without asking for them first.
    pub(crate) fn are_read(&self) -> bool {
        #[cfg(feature = "otlp")]
        if self.otlp.is_some() {
            return true;
        }
        self.metrics.is_some()
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse()
        .map_err(|_| "use an IP address and a port, as in 127.0.0.1:9464, or a port".to_owned())
}

/// Show the metrics of an app, as Prometheus would read them
///
/// The first question has them sampled and requests counted from then on; `run --metrics` does so from the start.
#[derive(Args, Debug)]
pub(crate) struct ShowMetricsArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// The form
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: MetricsFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricsFormat {
    /// Prometheus' text format 0.0.4
    #[default]
    Text,
    /// The text of openmetrics.io, 1.0
    Openmetrics,
    /// The snapshot that docs/metrics.md describes
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        for (text, address_of) in [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), address_of);
        }
        for text in ["", "localhost:9464", "9464x", "1.2.3.4", "99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
