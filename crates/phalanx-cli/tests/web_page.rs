//! The page of the web view in a real browser.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this whole file is a test"
)]

use crate::support;
use crate::support::browser;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use browser::{Browser, DESKTOP, Window};
use phalanx_testkit::lines::address_in;
use phalanx_testkit::{App, LIMIT, Load, node};
use support::app;

/// An app with its web view, and the page's address.
fn with_page(workers: usize, options: &[&str]) -> Option<(App, String)> {
    node::require()?;
    let app = app()
        .workers(workers)
        .options(options)
        .script("http.js")
        .start_ready();
    let address = address_in(&app.wait_for_line("web view on http://", LIMIT));
    Some((app, format!("http://{address}/")))
}

#[test]
fn the_page_shows_the_workers_and_what_changes() {
    let (Some((mut app, url)), Some(browser)) = (
        with_page(2, &["--admin", "127.0.0.1:0"]),
        Browser::start(DESKTOP),
    ) else {
        return;
    };
    browser.open(&url);
    browser.wait_until("document.body.dataset.live");
    browser.wait_until("document.getElementById('ready').textContent === '2 of 2 ready'");
    assert_eq!(
        browser.run("return document.querySelectorAll('#rows tr').length"),
        2
    );
    assert_eq!(browser.run("return document.title"), "2/2 app – phalanx");
    let load = Load::new(app.address()).clients(2).start();
    load.wait_until_ok(50, LIMIT);
    browser
        .wait_until("parseFloat(document.getElementById('rate').textContent.replace(',', '')) > 0");
    load.stop().expect_none_lost();
    app.verb(["reload"]).expect_success();
    browser.wait_until("document.getElementById('where').textContent.includes('generation 2')");
    browser.wait_until(
        "document.getElementById('events').textContent.includes('reload: generation 2 serves')",
    );
    app.verb(["scale", "3"]).expect_success();
    browser.wait_until("document.querySelectorAll('#rows tr').length === 3");
    browser.click("#output summary");
    browser.wait_until(
        "document.getElementById('lines').textContent.includes('[0] listening on 127.0.0.1:')",
    );
    assert_eq!(browser.complaints(), [""; 0]);
    assert!(app.stop().success());
    browser.wait_until("!document.getElementById('banner').hidden");
}

#[test]
fn buttons_and_keys_reload_scale_replace_and_change_the_policy() {
    let (Some((mut app, url)), Some(browser)) = (
        with_page(2, &["--admin", "127.0.0.1:0"]),
        Browser::start(DESKTOP),
    ) else {
        return;
    };
    browser.open(&url);
    browser.wait_until("document.body.dataset.live");
    browser.click("#reload");
    browser.wait_until("document.getElementById('sure').open");
    browser.click("#sure button[value=no]");
    browser.wait_until("!document.getElementById('sure').open");
    browser.click("#reload");
    browser.click("#sure-yes");
    browser.wait_until("document.getElementById('where').textContent.includes('generation 2')");
    browser.click("#more");
    browser.wait_until("document.getElementById('ready').textContent === '3 of 3 ready'");
    browser.type_into("body", "-");
    browser.wait_until("document.getElementById('ready').textContent === '2 of 2 ready'");
    let before = app.wait_ready(LIMIT);
    browser.click("#rows tr:first-child button");
    browser.click("#sure-yes");
    let id = before["workers"][0]["id"].as_u64().unwrap();
    browser.wait_until(&format!(
        "document.getElementById('toast').textContent === 'Replace worker {id}: done'"
    ));
    assert_ne!(
        app.wait_ready(LIMIT)["workers"][0]["pid"],
        before["workers"][0]["pid"]
    );
    browser.type_into("#policy", "least");
    browser.wait_until(
        "document.getElementById('toast').textContent === 'Policy least-connections: done'",
    );
    let after = app.wait_ready(LIMIT);
    assert_eq!(after["policy"], "least-connections");
    assert_eq!(
        (after["generation"].as_u64(), after["target"].as_u64()),
        (Some(2), Some(2))
    );
    let unnamed = "return [...document.querySelectorAll('button, select, input')].filter((one) => !one.closest('[hidden]') && \
                   !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).length";
    assert_eq!(
        browser.run(unnamed),
        0,
        "each control has a name for who cannot see it"
    );
    assert_eq!(browser.complaints(), [""; 0]);
    assert!(app.stop().success());
}

#[test]
fn the_page_asks_for_the_token_and_works_with_it() {
    let directory = support::directory();
    let path = directory.path().join("token");
    fs::write(&path, "correct-horse-battery\n").unwrap();
    let path = path.display().to_string();
    let options = ["--admin", "127.0.0.1:0", "--admin-token-file", &path];
    let (Some((mut app, url)), Some(browser)) = (with_page(1, &options), Browser::start(DESKTOP))
    else {
        return;
    };
    browser.open(&url);
    browser.wait_until("document.getElementById('ask').open");
    browser.type_into("#token", "wrong-horse-battery\u{e007}");
    browser.wait_until(
        "document.getElementById('ask').open && !document.getElementById('ask-wrong').hidden",
    );
    browser.type_into("#token", "correct-horse-battery\u{e007}");
    browser.wait_until("document.body.dataset.live");
    browser.wait_until("document.getElementById('ready').textContent === '1 of 1 ready'");
    browser.click("#more");
    browser.wait_until("document.getElementById('ready').textContent === '2 of 2 ready'");
    assert!(app.stop().success());
}

#[test]
fn pages_of_other_origins_and_names_reach_nothing_through_the_browser() {
    let (Some((mut app, url)), Some(browser)) = (
        with_page(1, &["--admin", "127.0.0.1:0"]),
        Browser::start(DESKTOP),
    ) else {
        return;
    };
    let hostile = hostile_page(&url);
    browser.open(&hostile);
    browser.wait_until("document.title === 'tried'");
    let tried = browser.run("return window.tried");
    assert_eq!(tried["read"], "refused", "{tried}");
    let status = app.wait_ready(LIMIT);
    assert_eq!(
        (status["generation"].as_u64(), status["target"].as_u64()),
        (Some(1), Some(1))
    );
    let port = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    browser.open(&format!("http://evil.example:{port}/v1/status"));
    browser.wait_until("document.body.innerText.includes('other_host')");
    assert!(app.stop().success());
}

/// The address of a page of another origin that tries what browsers let it try.
fn hostile_page(target: &str) -> String {
    let page = format!(
        "<!doctype html><title>trying</title><iframe name=f></iframe><form id=form method=post target=f enctype=text/plain action={target}v1/reload>\
         <input name='{{}}' value=''></form><script>(async () => {{\
         const quiet = (promise) => promise.then((answer) => answer.text(), () => 'refused').catch(() => 'refused');\
         for (const options of [{{mode: 'no-cors', body: '{{}}'}}, {{body: '{{}}'}}, {{headers: {{'content-type': 'application/json'}}, body: '{{}}'}}])\
         await quiet(fetch('{target}v1/reload', {{method: 'POST', ...options}}));\
         await quiet(fetch('{target}v1/scale', {{method: 'POST', mode: 'no-cors', body: '{{\"workers\": 3}}'}}));\
         navigator.sendBeacon('{target}v1/reload', '{{}}');\
         form.submit();\
         const read = await quiet(fetch('{target}v1/status'));\
         window.tried = {{read}}; document.title = 'tried'; }})()</script>"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            drop(stream.read(&mut request));
            let length = page.len();
            drop(write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            ));
        }
    });
    format!("http://{address}/")
}

/// `just screenshots`: the pictures of README and docs/web-view.md.
#[test]
#[ignore = "makes pictures; `just screenshots`"]
fn pictures_for_the_documentation() {
    let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/images");
    fs::create_dir_all(images).unwrap();
    let phone = Window {
        width: 390,
        height: 844,
        is_phone: true,
        is_dark: false,
    };
    let dark = Window {
        is_dark: true,
        ..DESKTOP
    };
    for (name, window) in [
        ("web-view-light", DESKTOP),
        ("web-view-dark", dark),
        ("web-view-phone", phone),
    ] {
        node::require().expect("Node");
        let builder = app()
            .name("shop")
            .workers(4)
            .options(["--admin", "127.0.0.1:0"]);
        let mut app = builder.script("http.js").start_ready();
        let line = app.wait_for_line("web view on http://", LIMIT);
        let url = line.split_once("http://").unwrap().1.trim().to_owned();
        let browser = Browser::start(window).expect("Chromium");
        let load = Load::new(app.address())
            .clients(6)
            .pause(Duration::from_millis(40))
            .start();
        browser.open(&format!("http://{url}"));
        browser.wait_until("document.body.dataset.live");
        load.wait_for_more(1_500, LIMIT);
        let mut reload = app.start_verb(["reload", "--canary", "1", "--for", "20s"]);
        browser.wait_until("!document.getElementById('sides').hidden");
        load.wait_for_more(800, LIMIT);
        fs::write(format!("{images}/{name}.png"), browser.picture()).unwrap();
        assert!(reload.wait_exit(LIMIT).success());
        load.stop().expect_none_lost();
        assert!(app.stop().success());
    }
}
