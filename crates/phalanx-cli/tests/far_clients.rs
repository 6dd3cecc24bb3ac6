//! Clients that are far away: a handshake takes a round trip, and the kernel has chosen the worker when it begins. So a
//! worker is not told to leave before the handshakes that had begun have ended. In network namespaces of its own.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::net::SocketAddr;
use std::time::Duration;

use cluster::app;
use phalanx_sys::delay::{DelayLink, SERVER};
use phalanx_sys::identity;
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::{LIMIT, Load, Target, fixtures, missing, node, require};

/// Each way.
const DELAY: Duration = Duration::from_millis(35);
const PORT: u16 = 8080;
const RELOADS: usize = 4;

fn link() -> Option<DelayLink> {
    if !identity::is_root() {
        missing!("root, for network namespaces");
        return None;
    }
    require("ip")?;
    match DelayLink::new(DELAY) {
        Ok(link) => Some(link),
        Err(error) => {
            missing!("network namespaces and /dev/net/tun: {error}");
            None
        }
    }
}

fn python(builder: AppBuilder) -> AppBuilder {
    let server = fixtures::fixture("programs/binds.py");
    let port = PORT.to_string();
    let words = ["python3", server.to_str().unwrap(), "everywhere", &port];
    builder.options(["--adopt", "intercept"]).command(words)
}

fn servers() -> Vec<(&'static str, AppBuilder)> {
    let mut servers = Vec::new();
    if node::require().is_some() {
        let by = |dispatch| app().options(["--dispatch", dispatch]).script("far.js");
        servers.extend([("kernel", by("kernel")), ("handoff", by("handoff"))]);
    }
    if require("python3").is_some() {
        servers.push(("intercepted", python(app())));
        servers.push(("intercepted, unprivileged", python(app().uid(65_534))));
    }
    servers
}

#[test]
fn reloads_lose_no_client_that_is_far_away() {
    let Some(link) = link() else { return };
    let target = Target::from(SocketAddr::new(SERVER.parse().unwrap(), PORT));
    for (server, builder) in servers() {
        link.enter_server().unwrap();
        let mut app = builder
            .workers(2)
            .env("PORT", PORT.to_string())
            .start_ready();
        link.enter_client().unwrap();
        let load = Load::new(target.clone())
            .clients(24)
            .request_limit(LIMIT)
            .start();
        load.wait_until_ok(24, LIMIT);
        for _ in 0..RELOADS {
            app.verb(["reload"]).expect_success();
            load.wait_for_more(24, LIMIT);
        }
        let report = load.stop();
        assert!(
            report.ok > 0 && report.disturbed() == 0,
            "{server}: {report}"
        );
        assert!(app.stop().success(), "{server}");
    }
}
