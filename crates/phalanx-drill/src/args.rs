//! What `phalanx drill` can be told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::mix::Way;
use phalanx_control::names::Name;
use phalanx_control::values::{self, WorkerCount};

/// Prove that an app loses no request while it is reloaded, scaled and its workers are killed
///
/// Runs COMMAND as its own cluster and sends requests in many ways at once. Meanwhile it reloads the cluster, scales it
/// and kills workers. Reports which requests were lost, when and why. The exit status is 0 if the only lost requests
/// were in service on killed workers. Instead of COMMAND, it can test a running app (--name) or
/// any HTTP server on this machine (--url).
#[derive(Args, Debug)]
#[command(
    override_usage = "phalanx drill [OPTIONS] -- COMMAND [ARGS]...\n       \
    phalanx drill [OPTIONS] --name NAME\n       \
    phalanx drill [OPTIONS] --url URL --reload-command COMMAND"
)]
pub struct DrillArgs {
    /// The script or program, and its arguments, as for `phalanx run`
    #[arg(trailing_var_arg = true, value_name = "COMMAND [ARGS]")]
    pub(crate) command: Vec<OsString>,

    /// Test a running app, in addition to its own load
    #[arg(long, conflicts_with_all = ["command", "url", "workers", "run"])]
    pub(crate) name: Option<Name>,

    /// Test a server that phalanx does not run: http://127.0.0.1:PORT, on this machine only
    #[arg(long, conflicts_with_all = ["command", "workers", "run"])]
    pub(crate) url: Option<String>,

    /// The command that reloads the server of --url; /bin/sh runs it
    #[arg(long, value_name = "COMMAND")]
    pub(crate) reload_command: Option<String>,

    /// The least duration of a reload by --reload-command, for commands that return before it is done
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = values::duration)]
    pub(crate) settle: Duration,

    /// Number of workers
    #[arg(short = 'n', long, value_name = "N|auto", help_heading = "App")]
    pub(crate) workers: Option<WorkerCount>,

    /// More options for `phalanx run`, separated by spaces: --run '--dispatch kernel'; can be repeated
    #[arg(
        long,
        value_name = "OPTIONS",
        allow_hyphen_values = true,
        help_heading = "App"
    )]
    pub(crate) run: Vec<String>,

    /// Run the cluster under this command, split at spaces, which must finally execute its arguments:
    /// --under 'setpriv --inh-caps=-all --bounding-set=-bpf,-perfmon,-sys_admin'
    #[arg(
        long,
        value_name = "COMMAND",
        allow_hyphen_values = true,
        conflicts_with_all = ["name", "url"],
        help_heading = "App"
    )]
    pub(crate) under: Option<String>,

    /// Delay each packet by this time in each direction (20 or 20ms, at most 1s); needs root, and uses its own network
    /// namespaces
    #[arg(long, value_name = "MS", value_parser = delay, conflicts_with_all = ["name", "url"], help_heading = "Load")]
    pub(crate) delay: Option<Duration>,

    /// Send requests to the listener on this port, instead of the first one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "url", help_heading = "Load")]
    pub(crate) port: Option<u16>,

    #[command(flatten)]
    pub(crate) plan: PlanArgs,

    #[command(flatten)]
    pub(crate) load: LoadArgs,

    /// Print the report as JSON, in the format that docs/drill.md describes
    #[arg(long, help_heading = "Report")]
    pub(crate) json: bool,

    /// Write a timeline (SVG) to this file: throughput, latency, actions, lost requests
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) svg: Option<PathBuf>,

    /// Show no progress
    #[arg(short, long, help_heading = "Report")]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "What happens to the app")]
pub(crate) struct PlanArgs {
    /// How long the drill lasts; it lasts longer if its actions do
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = values::positive_duration)]
    pub(crate) length: Duration,

    /// How many times to reload [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) reloads: Option<u32>,

    /// How many workers to kill with SIGKILL [default: 2; 0 with --name and --url]
    #[arg(long, value_name = "N")]
    pub(crate) kills: Option<u32>,

    /// How many times to scale: one worker up, then one down [default: 2; 0 with --name and --url]
    #[arg(long, value_name = "N")]
    pub(crate) scales: Option<u32>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// Number of clients
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) clients: u32,

    /// Requests per second of all clients together, without the slow ones; 0: as many as the server answers
    #[arg(long, value_name = "N", default_value = "2000")]
    pub(crate) rate: u32,

    /// The kinds of clients [default: all]
    #[arg(long, value_name = "WAY,…", value_enum, value_delimiter = ',')]
    pub(crate) mix: Vec<Way>,

    /// A path to request; several are requested in turn
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    pub(crate) path: Vec<String>,

    /// The path for uploads [default: that of --path]
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) upload_path: Option<String>,

    /// The path of a WebSocket that answers pings
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) ws: Option<String>,

    /// The method; uploads use POST unless this method has a body
    #[arg(long, value_name = "METHOD", default_value = "GET", value_parser = method)]
    pub(crate) method: String,

    /// A header field of every request; can be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<String>,

    /// How long an answer may take before the request counts as lost
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
}

/// How far away clients can be.
const MOST_DELAY: Duration = Duration::from_secs(1);

/// A number alone is milliseconds.
fn delay(text: &str) -> Result<Duration, String> {
    let millis = text.parse().map(Duration::from_millis);
    let delay = millis.or_else(|_| values::duration(text));
    match delay {
        Ok(delay) if delay <= MOST_DELAY => Ok(delay),
        Ok(_) | Err(_) => Err("use milliseconds, 1000 at most: 20, 20ms".to_owned()),
    }
}

fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_path
        .then(|| text.to_owned())
        .ok_or_else(|| "use a path that starts with / and has no blanks".to_owned())
}

fn method(text: &str) -> Result<String, String> {
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    match text {
        "CONNECT" => Err("a tunnel is no request for a server".to_owned()),
        _ if is_method => Ok(text.to_owned()),
        _ => Err("use a method in capitals: GET, HEAD, POST".to_owned()),
    }
}

/// Those are written by the drill itself.
const OWN_HEADERS: [&str; 5] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
];

fn header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("use NAME: VALUE")?;
    let is_token = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let is_text = value
        .bytes()
        .all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    if !is_token || !is_text {
        return Err("use NAME: VALUE, without control characters".to_owned());
    }
    if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("the drill writes {name} itself"));
    }
    Ok(format!("{name}: {}", value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_one_line_and_not_the_drills_own() {
        assert_eq!(header("Cookie:a=b"), Ok("Cookie: a=b".to_owned()));
        for text in [
            "Cookie",
            ": x",
            "A B: c",
            "A: b\r\nC: d",
            "Connection: close",
            "HOST: x",
        ] {
            assert!(header(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_delay_is_a_number_of_milliseconds_within_bounds() {
        assert_eq!(delay("20"), Ok(Duration::from_millis(20)));
        assert_eq!(delay("70ms"), delay("70"));
        assert_eq!(delay("1s"), Ok(MOST_DELAY));
        for text in ["", "-1", "2s", "1001", "20 ms"] {
            assert!(delay(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_and_methods_are_what_fits_into_a_request() {
        assert!(path("/a?b=c").is_ok() && method("PATCH").is_ok());
        for text in ["", "a", "/a b", "/ä", "/a\r\n"] {
            assert!(path(text).is_err(), "{text:?}");
        }
        for text in ["", "get", "GET /", "CONNECT"] {
            assert!(method(text).is_err(), "{text:?}");
        }
    }
}
