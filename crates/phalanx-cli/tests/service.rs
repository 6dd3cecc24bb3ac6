//! phalanx as a service of systemd: started with listeners, and telling the service manager how it is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole file is a test"
)]

use crate::cluster;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use cluster::{PHALANX, expect_in_turn, free_port, get_json};
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::try_eventually;
use phalanx_testkit::{App, LIMIT, Load, Signal, Target, fixtures, require};

/// What systemd would have for its end of the notifications.
struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self { directory, socket }
    }

    /// An app that it starts with these listeners.
    fn app(&self, listeners: &[&str]) -> AppBuilder {
        App::builder(fixtures::fixture("programs/as-systemd.py"))
            .env("STARTED_PROGRAM", PHALANX)
            .env("LISTEN_ON", listeners.join(" "))
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .workers(2)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Waits for a datagram with this line, and returns it.
    #[track_caller]
    fn wait_for(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        let found = try_eventually(LIMIT, || {
            let length = self.socket.recv(&mut buffer).ok()?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            seen.push(text.clone());
            text.lines().any(|one| one == line).then_some(text)
        });
        found.unwrap_or_else(|| panic!("no {line:?}: {seen:?}"))
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn activated(builder: AppBuilder) -> AppBuilder {
    let script = fixtures::fixture("programs/activated.py");
    builder.command(["python3"]).arg(script).arg("notify")
}

macro_rules! needs_python {
    () => {
        if require("python3").is_none() {
            return;
        }
    };
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    needs_python!();
    let manager = Manager::new();
    let mut app = manager.app(&[]).script("http.js").start_ready();
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", app.pid())), "{ready}");
    manager.wait_for("STATUS=2 of 2 workers ready");
    app.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    app.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    app.wait_exit(LIMIT);
}

#[test]
fn a_watchdog_is_told_that_the_primary_lives() {
    needs_python!();
    let manager = Manager::new();
    let _app = manager
        .app(&[])
        .env("WATCHDOG_USEC", "400000")
        .script("http.js")
        .start_ready();
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
}

#[test]
fn a_service_manager_that_does_not_listen_holds_up_nothing() {
    needs_python!();
    let manager = Manager::new();
    // Some ten datagrams wait in its socket, and then it is full.
    let mut app = manager
        .app(&[])
        .env("WATCHDOG_USEC", "2000")
        .script("http.js")
        .start_ready();
    app.wait_for_line("the service manager does not listen", LIMIT);
    let target = app.address();
    expect_in_turn(&mut app, &target, 3);
    app.signal(Signal::TERM);
    app.wait_exit(LIMIT);
}

#[test]
fn listeners_of_the_service_manager_are_given_to_the_workers() {
    needs_python!();
    let manager = Manager::new();
    let address = free_address();
    let unix = format!("unix:{}", manager.path().join("app.sock").display());
    let builder = manager
        .app(&[&address, &unix])
        .env("LISTEN_FDNAMES", "web:local");
    let mut app = activated(builder).start_ready();
    let addresses = app.addresses();
    assert_eq!(addresses.len(), 2);
    for target in &addresses {
        let env = get_json(target, "/env");
        assert_eq!(env["LISTEN_FDNAMES"], "web:local");
        assert!(
            app.worker_pids()
                .contains(&env["LISTEN_PID"].as_str().unwrap().parse().unwrap())
        );
        let own = manager.path().join("notify").display().to_string();
        assert_ne!(env["NOTIFY_SOCKET"], own, "that one is the primary's");
    }
    let load = Load::new(addresses[0].clone())
        .clients(4)
        .request_limit(LIMIT)
        .start();
    load.wait_until_ok(20, LIMIT);
    app.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    load.wait_for_more(20, LIMIT);
    load.stop().expect_none_lost();
    app.stop();
    assert!(
        manager.path().join("app.sock").exists(),
        "it is the service manager's"
    );
}

#[test]
fn a_node_script_that_listens_on_an_address_of_the_service_manager_gets_its_listener() {
    needs_python!();
    let manager = Manager::new();
    let address = free_address();
    let port = address.rsplit_once(':').unwrap().1;
    let mut app = manager
        .app(&[&address])
        .env("PORT", port)
        .script("http.js")
        .start_ready();
    let target: Target = app.address();
    assert_eq!(target.to_string(), address);
    expect_in_turn(&mut app, &target, 3);
}
