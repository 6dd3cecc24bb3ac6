//! Where the drill's server is reached: on this machine, or at the other end of a link that takes time.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use phalanx_control::api::{GetStatus, Status};
use phalanx_control::client::App;
use phalanx_control::exit::Exit;
use phalanx_control::failure::{Failure, Outcome};
use phalanx_sys::delay::DelayLink;
use tokio::time::{Instant, timeout_at};

use super::args::DrillArgs;
use super::cluster::Cluster;
use super::director::Means;
use super::launch::OpensPorts;
use super::relay::Relay;
use super::target::{self, Place};

/// So long a drill of an app by its name waits for the first listener.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// What the drill aims at.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) means: Means,
    /// Stopped at the end.
    pub(super) own: Option<Cluster>,
    /// In front of a Unix socket.
    pub(super) relay: Option<Relay>,
    /// What everything goes through. Outlives the cluster.
    _link: Option<DelayLink>,
}

/// Starts the server, or finds the one that runs.
pub(super) async fn aim(args: &DrillArgs, opens_ports: OpensPorts) -> Outcome<Target> {
    if let Some(url) = &args.url {
        let (address, host) = target::of_url(url)?;
        let command = args.reload_command.clone().unwrap_or_default();
        return Ok(Target {
            address,
            host,
            means: Means::Command {
                command,
                settle: args.settle,
            },
            own: None,
            relay: None,
            _link: None,
        });
    }
    let link = link(args)?;
    let (app, status, own) = if args.name.is_some() {
        let app = App::find(args.name.as_ref()).await?;
        let status = listening(&app, args.port).await?;
        (app, status, None)
    } else {
        let (cluster, status) = Cluster::start(args, opens_ports, link.as_ref()).await?;
        (cluster.app.clone(), status, Some(cluster))
    };
    let (address, relay) = match place_in(&status, args.port)? {
        Place::Tcp(address) => (address, None),
        Place::Unix(path) => {
            let relay = relay(path, link.as_ref()).map_err(|error| {
                Failure::caused(Exit::Failed, "cannot relay to the Unix socket", &error)
            })?;
            (relay.address(), Some(relay))
        }
    };
    Ok(Target {
        address,
        host: address.to_string(),
        means: Means::Control(app),
        own,
        relay,
        _link: link,
    })
}

/// The status of an app that was started a moment ago: once it listens where the drill asks, or when that takes too long.
async fn listening(app: &App, port: Option<u16>) -> Outcome<Status> {
    // Before the first question, so that nothing happens between that and the first event.
    let mut events = app.events().await?;
    let deadline = Instant::now() + LISTEN_LIMIT;
    loop {
        let status = app.ask(&GetStatus {}).await?;
        if target::of_status(&status, port).is_some() {
            return Ok(status);
        }
        let Ok(Some(_)) = timeout_at(deadline, events.next()).await else {
            return Ok(status);
        };
        while events.next_arrived().is_some() {}
    }
}

/// The link that `--delay` asks for; this thread is at its client's end afterwards.
fn link(args: &DrillArgs) -> Outcome<Option<DelayLink>> {
    let Some(delay) = args.delay else {
        return Ok(None);
    };
    let link = DelayLink::new(delay).and_then(|link| link.enter_client().map(|()| link));
    link.map(Some).map_err(|error| {
        let needs = if error.kind() == io::ErrorKind::PermissionDenied {
            "it needs root (as in `unshare --user --map-root-user`), and containers seldom allow it"
        } else {
            "it needs network namespaces, /dev/net/tun and the program `ip` (package iproute2)"
        };
        let what = format!("--delay: cannot make network namespaces: {needs}");
        Failure::caused(Exit::CannotCreate, &what, &error)
    })
}

/// The relay's port is at the server's end: its clients are far away, the Unix socket is not.
fn relay(path: PathBuf, link: Option<&DelayLink>) -> io::Result<Relay> {
    let Some(link) = link else {
        return Relay::start(target::LOOPBACK, path);
    };
    link.enter_server()?;
    let relay = Relay::start(target::far(), path);
    link.enter_client()?;
    relay
}

fn place_in(status: &Status, port: Option<u16>) -> Outcome<Place> {
    target::of_status(status, port).ok_or_else(|| {
        let name = &status.name;
        let reason = match port {
            Some(port) => format!("{name} does not listen on port {port}"),
            None => format!(
                "{name} listens on no TCP address and no Unix path that the drill could ask"
            ),
        };
        Failure::new(Exit::Failed, reason)
    })
}
