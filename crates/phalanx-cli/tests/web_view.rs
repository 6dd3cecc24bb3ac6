//! The web view's address: who is answered there, and what it withstands. Asked over plain sockets, as no browser would.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this whole file is a test"
)]

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use phalanx_testkit::{LIMIT, Process, require, wait};
use support::expect_refused;
use support::view::{ask, generation, status, with_view};

#[test]
fn the_page_and_the_api_are_served_and_protected_by_headers() {
    let Some((mut app, address)) = with_view(&["--admin", "127.0.0.1:0"]) else {
        return;
    };
    let host = format!("Host: {address}");
    let page = ask(address, "GET /", &[&host], "");
    assert_eq!(status(&page), 200);
    assert!(page.contains("<title>phalanx</title>"), "{page}");
    let api = ask(address, "GET /v1/status", &[&host], "");
    assert!(
        status(&api) == 200 && api.contains("\"workers\":["),
        "{api}"
    );
    let script = ask(address, "GET /main.js", &[&host], "");
    assert!(script.contains("content-type: text/javascript"), "{script}");
    let missing = ask(address, "GET /nothing", &[&host], "");
    assert_eq!(status(&missing), 404);
    for answer in [page, api, script, missing] {
        let head = answer.split("\r\n\r\n").next().unwrap().to_owned();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{header} is not in\n{head}");
        }
        assert!(!head.contains("access-control-"), "{head}");
    }
    assert!(app.stop().success());
}

#[test]
fn a_name_that_was_made_to_lead_here_is_not_answered() {
    let Some((mut app, address)) = with_view(&["--admin", "127.0.0.1:0"]) else {
        return;
    };
    let port = address.port();
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "localhost.evil.example",
        "10.0.0.1",
        "",
    ] {
        for request in [
            "GET /",
            "GET /v1/status",
            "GET /v1/events",
            "POST /v1/reload",
        ] {
            let origin = format!("Origin: http://{host}");
            let answer = ask(address, request, &[&format!("Host: {host}"), &origin], "");
            assert_eq!(status(&answer), 403, "{host}: {answer}");
            assert!(answer.contains("other_host"), "{answer}");
        }
    }
    let two = ask(
        address,
        "GET /v1/status",
        &["Host: localhost", "Host: evil.example"],
        "",
    );
    assert!([400, 403].contains(&status(&two)), "{two}");
    let absolute = ask(
        address,
        "GET http://evil.example/v1/status",
        &["Host: localhost"],
        "",
    );
    assert!([400, 403].contains(&status(&absolute)), "{absolute}");
    assert_eq!(generation(&mut app), 1);
    assert!(app.stop().success());
}

#[test]
fn pages_of_other_origins_change_and_read_nothing() {
    let Some((mut app, address)) = with_view(&["--admin", "127.0.0.1:0"]) else {
        return;
    };
    let host = format!("Host: {address}");
    let attempts: [&[&str]; 7] = [
        &["Origin: http://evil.example"],
        &["Origin: null"],
        &["Origin: http://127.0.0.1:1"],
        &["Content-Type: text/plain"],
        &["Content-Type: application/json"],
        &[
            "Origin: http://evil.example",
            "Content-Type: application/json",
        ],
        &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"],
    ];
    for attempt in attempts {
        let headers = [&[host.as_str()], attempt].concat();
        for path in ["/v1/reload", "/v1/stop", "/v1/scale", "/v1/messages", "/"] {
            let answer = ask(address, &format!("POST {path}"), &headers, "{}");
            assert_eq!(status(&answer), 403, "{attempt:?} {path}: {answer}");
        }
    }
    let preflight = [
        "Origin: http://evil.example",
        "Access-Control-Request-Method: POST",
    ];
    let answer = ask(
        address,
        "OPTIONS /v1/reload",
        &[&[host.as_str()], &preflight[..]].concat(),
        "",
    );
    assert!(
        status(&answer) == 403 && !answer.contains("access-control-allow"),
        "{answer}"
    );
    let read = ask(
        address,
        "GET /v1/status",
        &[&host, "Sec-Fetch-Site: cross-site"],
        "",
    );
    assert_eq!(status(&read), 403);
    assert_eq!(generation(&mut app), 1);
    let own = format!("Origin: http://{address}");
    let answer = ask(address, "POST /v1/reload", &[&host, &own], "");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(generation(&mut app), 2);
    assert!(app.stop().success());
}

#[test]
fn an_address_for_others_demands_a_token_that_is_kept_for_the_user() {
    let Some((mut app, address)) = with_view(&["--admin", "0.0.0.0:0"]) else {
        return;
    };
    let line = app.wait_for_line("its token is in ", LIMIT);
    let path = line
        .split("its token is in ")
        .nth(1)
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let token = fs::read_to_string(&path).unwrap().trim().to_owned();
    let host = "Host: web1.example:9900";
    assert_eq!(
        status(&ask(address, "GET /", &[host], "")),
        200,
        "the page asks for the token"
    );
    let bearer = format!("Authorization: Bearer {token}");
    let wrong = format!("Authorization: Bearer {}", "0".repeat(token.len()));
    for headers in [
        &[host][..],
        &[host, &wrong],
        &[host, "Authorization: Bearer "],
    ] {
        for request in ["GET /v1/status", "GET /v1/events", "POST /v1/reload"] {
            let answer = ask(address, request, headers, "");
            assert!(
                status(&answer) == 401 && answer.contains("token_needed"),
                "{answer}"
            );
        }
    }
    let answer = ask(address, "GET /v1/status", &[host, &bearer], "");
    assert!(
        status(&answer) == 200 && !answer.contains(&token),
        "{answer}"
    );
    let foreign = ask(
        address,
        "POST /v1/reload",
        &[host, &bearer, "Origin: http://evil.example"],
        "",
    );
    assert_eq!(status(&foreign), 403);
    assert_eq!(generation(&mut app), 1);
    let lines = app.lines().shown();
    assert!(
        !lines.contains(&token),
        "the log tells where it is, not what it is"
    );
    assert!(app.stop().success());
    assert!(!fs::exists(&path).unwrap(), "it goes with the app");
}

#[test]
fn a_token_of_a_file_holds_on_loopback_too() {
    let directory = support::directory();
    let path = directory.path().join("token");
    fs::write(&path, "correct-horse-battery\n").unwrap();
    let path = path.display().to_string();
    let Some((mut app, address)) =
        with_view(&["--admin", "127.0.0.1:0", "--admin-token-file", &path])
    else {
        return;
    };
    let host = format!("Host: {address}");
    assert_eq!(status(&ask(address, "GET /v1/status", &[&host], "")), 401);
    let bearer = "Authorization: Bearer correct-horse-battery";
    assert_eq!(
        status(&ask(address, "GET /v1/status", &[&host, bearer], "")),
        200
    );
    assert_eq!(
        status(&ask(address, "POST /v1/reload", &[&host, bearer], "")),
        200
    );
    assert_eq!(generation(&mut app), 2);
    assert!(app.stop().success());
}

#[test]
fn a_token_that_is_changed_in_its_file_holds_without_a_stop() {
    let directory = support::directory();
    let path = directory.path().join("token");
    fs::write(&path, "correct-horse-battery\n").unwrap();
    let option = path.display().to_string();
    let Some((mut app, address)) =
        with_view(&["--admin", "127.0.0.1:0", "--admin-token-file", &option])
    else {
        return;
    };
    let host = format!("Host: {address}");
    let answered = |token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        status(&ask(address, "GET /v1/status", &[&host, &bearer], ""))
    };
    assert_eq!(answered("correct-horse-battery"), 200);
    fs::write(&path, "another-horse-battery\n").unwrap();
    wait::eventually(LIMIT, "the new token to hold", || {
        (answered("another-horse-battery") == 200).then_some(())
    });
    assert_eq!(answered("correct-horse-battery"), 401);
    // A file that has no token leaves the one that holds.
    fs::write(&path, "short\n").unwrap();
    wait::eventually(LIMIT, "the log to tell it", || {
        assert_eq!(answered("another-horse-battery"), 200);
        let log = app.lines().shown();
        log.contains("the token before stays in force")
            .then_some(())
    });
    assert!(app.stop().success());
}

#[test]
fn other_users_of_the_machine_are_not_served_on_loopback() {
    if !rustix::process::geteuid().is_root() {
        phalanx_testkit::missing!("root, for a client of another user");
        return;
    }
    let (Some((mut app, address)), Some(bash)) =
        (with_view(&["--admin", "127.0.0.1:0"]), require("bash"))
    else {
        return;
    };
    let port = address.port();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /v1/status HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
    );
    let as_user = |uid: u32| {
        let mut command = Command::new(&bash);
        command.arg("-c").arg(&script).uid(uid).current_dir("/");
        Process::run(command, LIMIT).stdout
    };
    let stranger = as_user(65_534);
    assert!(
        status(&stranger) == 403 && stranger.contains("other_user"),
        "{stranger}"
    );
    let owner = as_user(0);
    assert_eq!(status(&owner), 200, "{owner}");
    assert!(app.stop().success());
}

#[test]
fn what_cannot_be_meant_or_opened_is_refused_before_anything_starts() {
    let run = |words: &[&str]| {
        let words = [&["run", "-n", "1"], words, &["--", "true"]].concat();
        support::run_alone(&words)
    };
    expect_refused(
        &run(&["--admin", "9900"]),
        64,
        &["an IP address and a port"],
    );
    expect_refused(
        &run(&["--admin-token-file", "/dev/null"]),
        64,
        &["--admin-token-file is for --admin"],
    );
    let no_file = ["--admin", "0.0.0.0:0", "--admin-token-file", "/no/such"];
    expect_refused(&run(&no_file), 64, &["cannot read the token of /no/such"]);
    let empty = ["--admin", "0.0.0.0:0", "--admin-token-file", "/dev/null"];
    expect_refused(&run(&empty), 64, &["a token has at least 16 characters"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    expect_refused(
        &run(&["--admin", &address]),
        73,
        &[&address, "for the web view"],
    );
}
