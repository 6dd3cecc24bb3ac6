//! The matrix of `docs/programs.md`: real servers, unmodified, under load with a connection for each request,
//! while they are reloaded and scaled and while a worker is killed by SIGKILL. Each row prints what it counted.
//!
//! A few rows run always; `just programs` runs all of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "this whole file is a test, and its figures go into the documentation"
)]

use crate::cluster;
use crate::matrix::table;

use std::time::Duration;

use cluster::app;
use phalanx_testkit::{App, Load, Report, Target};
use table::{Place, Row, Way};

/// Interpreters and virtual machines start slowly on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(2);
const LIMIT: Duration = Duration::from_mins(1);
/// One connection each.
const CLIENTS: usize = 4;
/// Between two requests of a client: the machine is needed for starting workers, too.
const PAUSE: Duration = Duration::from_millis(2);
/// Requests between one change and the next.
const REQUESTS: u64 = 100;

macro_rules! rows {
    ($($(#[$attribute:meta])* $test:ident: $row:expr;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                run(&$row);
            }
        )*
    };
}

rows! {
    node_by_its_channel: table::NODE_CHANNEL;
    node_by_descriptor: table::NODE_DESCRIPTOR;
    python_by_activation: table::PYTHON_ACTIVATED;
    node_intercepted: table::NODE_INTERCEPTED;
    http_server_of_python: table::HTTP_SERVER;
    axum: table::AXUM;
    c_on_raw_sockets: table::C;
    #[ignore = "just programs"]
    bun: table::BUN;
    #[ignore = "just programs"]
    deno: table::DENO;
    #[ignore = "just programs"]
    uvicorn: table::UVICORN;
    #[ignore = "just programs"]
    hypercorn: table::HYPERCORN;
    #[ignore = "just programs"]
    granian: table::GRANIAN;
    #[ignore = "just programs"]
    webrick: table::WEBRICK;
    #[ignore = "just programs"]
    puma: table::PUMA;
    #[ignore = "just programs"]
    go_statically_linked: table::GO;
    #[ignore = "just programs"]
    java: table::JAVA;
    #[ignore = "just programs"]
    php: table::PHP;
    nginx: table::NGINX;
    #[ignore = "just programs"]
    gunicorn: table::GUNICORN;
    gunicorn_by_activation: table::GUNICORN_ACTIVATED;
    uvicorn_by_activation: table::UVICORN_ACTIVATED;
    #[ignore = "just programs"]
    hypercorn_by_activation: table::HYPERCORN_ACTIVATED;
    #[ignore = "just programs"]
    puma_by_activation: table::PUMA_ACTIVATED;
}

fn run(row: &Row) {
    let place = Place::new();
    let Some(command) = (row.command)(&place) else {
        return;
    };
    let mut builder = app()
        .workers(2)
        .options(["--ready-timeout", "60s"])
        .options(row.options)
        .cwd(place.path())
        .command(command);
    match row.way {
        Way::Channel => {}
        Way::Intercept => builder = builder.options(["--adopt", "intercept"]),
        Way::Activation(ready) => {
            builder = builder.options(["--ready", ready, "--bind", "127.0.0.1:0"]);
        }
    }
    let mut app = builder.start();
    app.wait_ready(START_LIMIT);
    let target = app.address();
    let changed = reload_and_scale(&app, &target);
    let killed = kill_one(&mut app, &target);
    let listener = app.status()["listeners"][0]["dispatch"].clone();
    println!(
        "ROW | {} | {listener} | {} requests, {} lost by reloads and scaling | {} requests, {} lost with a killed worker",
        row.name,
        changed.ok + changed.failed(),
        changed.disturbed(),
        killed.ok + killed.failed(),
        killed.disturbed()
    );
    assert!(
        changed.disturbed() == 0,
        "{}: {changed}\n{}",
        row.name,
        app.lines().shown()
    );
    // What each client had in the hands of the killed worker, and nothing that waited for it.
    let clients = u64::try_from(CLIENTS).unwrap();
    assert!(
        killed.disturbed() <= clients,
        "{}: {killed}\n{}",
        row.name,
        app.lines().shown()
    );
    app.stop();
}

fn load(target: &Target) -> Load {
    Load::new(target.clone())
        .clients(CLIENTS)
        .pause(PAUSE)
        .request_limit(LIMIT)
}

fn reload_and_scale(app: &App, target: &Target) -> Report {
    let load = load(target).start();
    load.wait_until_ok(REQUESTS, LIMIT);
    for words in [
        &["reload"][..],
        &["scale", "3"],
        &["reload"],
        &["scale", "1"],
        &["scale", "2"],
    ] {
        app.verb(words).expect_success();
        load.wait_for_more(REQUESTS, LIMIT);
    }
    load.stop()
}

fn kill_one(app: &mut App, target: &Target) -> Report {
    let load = load(target).start();
    load.wait_until_ok(REQUESTS, LIMIT);
    let victim = app.worker_pids()[0];
    app.kill_worker(victim);
    app.wait_status(START_LIMIT, |status| {
        phalanx_testkit::app::is_settled(status)
            && !phalanx_testkit::app::pids(status).contains(&victim)
    });
    load.wait_for_more(REQUESTS, LIMIT);
    load.stop()
}
