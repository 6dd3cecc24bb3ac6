//! Drains of HTTP/2: a worker that leaves tells each session GOAWAY, serves every stream that was sent before
//! its client heard of that, and closes.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cluster::session::Session;
use cluster::{app, begin_reload, pid_in, side_by_side};
use h2::Reason;
use h2::client::SendRequest;
use hyper::body::Bytes;
use phalanx_testkit::app::AppBuilder;
use phalanx_testkit::wait::{self, Deadline};
use phalanx_testkit::{LIMIT, Target, node};

/// Whoever were to wait for the end of a drain would not be there in time.
const ENDLESS: [&str; 2] = ["--drain-timeout", "1h"];

/// A server that speaks HTTP/2.
struct Server {
    name: String,
    builder: AppBuilder,
    is_secure: bool,
    /// Serves what was sent before its GOAWAY was seen. Others say in it that they did not, and ask the
    /// client to repeat it.
    serves_late: bool,
}

/// A Rust program that uses the library's serving functions, and every Node; with TLS and without.
fn servers() -> Vec<Server> {
    let mut servers = Vec::new();
    for is_secure in [false, true] {
        let how = if is_secure { "over TLS" } else { "in clear" };
        let certified = if is_secure { "1" } else { "0" };
        let builder = app().env("CERTIFIED", certified).env("HTTP", "2");
        servers.push(Server {
            name: format!("Rust {how}"),
            builder: builder.clone().command([cluster::example("polite")]),
            is_secure,
            serves_late: true,
        });
        servers.extend(node::require_versions().into_iter().map(|node| Server {
            name: format!("Node {} {how}", node.major),
            builder: builder.clone().node(&node, "polite.js"),
            is_secure,
            serves_late: !is_secure,
        }));
    }
    servers
}

#[test]
fn what_was_sent_before_the_goaway_was_seen_is_served() {
    side_by_side(servers(), |server| {
        let name = server.name;
        let mut app = server.builder.options(ENDLESS).workers(1).start();
        let target = app.address();
        let open = || Session::open(&target, server.is_secure);
        let mut sessions: Vec<_> = (0..3).map(|_| open()).collect();
        for session in &mut sessions {
            let first = session.ask("/");
            session.answer(first);
        }
        let slow = sessions[1].ask("/slow?ms=1500");
        let old = app.worker_pids()[0];

        let reload = begin_reload(&mut app);
        sessions[0].until_leaving();
        // Nothing was read on these two since: they do not know that they are to leave.
        for session in &mut sessions[1..] {
            let late: Vec<_> = (0..20).map(|_| session.ask("/")).collect();
            for stream in late {
                let answer = session.answer_unless_unserved(stream);
                assert!(answer.is_some() || !server.serves_late, "{name}");
                assert!(answer.is_none_or(|body| pid_in(&body) == old), "{name}");
            }
        }
        assert_eq!(pid_in(&sessions[1].answer(slow)), old, "{name}");
        sessions.into_iter().for_each(Session::expect_gentle_end);
        reload.finish(LIMIT).expect_success();
        let mut session = open();
        let stream = session.ask("/");
        assert_ne!(pid_in(&session.answer(stream)), old, "{name}");
    });
}

#[test]
fn clients_with_many_streams_lose_none_over_reloads() {
    side_by_side(servers(), |server| {
        let mut app = server.builder.workers(2).start();
        let target = app.address();
        let (is_over, answered, told) =
            (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let client = || {
            while !is_over.load(Ordering::Acquire) {
                let mut session = Session::open(&target, server.is_secure);
                while !session.is_leaving && !is_over.load(Ordering::Acquire) {
                    let streams: Vec<_> = (0..10).map(|_| session.ask("/slow?ms=2")).collect();
                    for stream in streams {
                        let answer = session.answer_unless_unserved(stream);
                        assert!(answer.is_some() || !server.serves_late);
                        answered.fetch_add(u64::from(answer.is_some()), Ordering::AcqRel);
                    }
                }
                if session.is_leaving {
                    told.fetch_add(1, Ordering::AcqRel);
                    session.expect_gentle_end();
                }
            }
        };
        let more = || {
            let enough = answered.load(Ordering::Acquire) + 60;
            let reached = || (answered.load(Ordering::Acquire) >= enough).then_some(());
            wait::try_eventually(LIMIT, reached).is_some()
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..6).map(|_| scope.spawn(client)).collect();
            let reload = || more() && app.verb(["reload"]).status.success();
            let went_well = reload() && reload() && more();
            is_over.store(true, Ordering::Release);
            let lost = clients.into_iter().filter_map(|one| one.join().err());
            assert_eq!(lost.count(), 0, "{}", server.name);
            assert!(went_well, "{}", server.name);
        });
        let told = told.load(Ordering::Acquire);
        assert!(told >= 6, "{}: {told}", server.name);
    });
}

#[test]
fn a_slow_reader_gets_the_whole_of_its_answer() {
    side_by_side(servers(), |server| {
        let mut app = server.builder.options(ENDLESS).workers(1).start();
        let mut session = Session::open(&app.address(), server.is_secure);
        let stream = session.ask("/large");
        session.until(|session| session.received(stream) > 0);
        let reload = begin_reload(&mut app);
        session.allow(stream, 1 << 30);
        session.until_leaving();
        // Each of these would meet a reset if the server closed with its last byte.
        while session.received(stream) < 16 << 20 {
            let received = session.received(stream);
            session.until(|session| session.received(stream) > received);
            session.allow(0, 1);
        }
        assert_eq!(session.answer(stream).len(), 16 << 20, "{}", server.name);
        session.expect_gentle_end();
        reload.finish(LIMIT).expect_success();
    });
}

#[test]
fn events_outlive_the_drain_limit_and_end_at_their_own() {
    side_by_side(servers(), |server| {
        let limits = ["--drain-timeout", "1s", "--stream-timeout", "10s"];
        let mut app = server.builder.workers(1).options(limits).start();
        let mut session = Session::open(&app.address(), server.is_secure);
        let stream = session.ask("/events");
        session.allow(stream, 1 << 30);
        session.until(|session| session.received(stream) > 0);
        let reload = begin_reload(&mut app);
        let drained = Deadline::after(Duration::from_secs(1));
        while !drained.has_passed() {
            let received = session.received(stream);
            session.until(|session| session.received(stream) > received);
        }
        reload.finish(LIMIT).expect_success();
        session.expect_end();
        assert_eq!(app.status()["generation"], 2, "{}", server.name);
    });
}

/// One request; nothing if it was not served because the session goes away, and is to be sent again elsewhere.
///
/// The library may answer the server's last ping before it sends what it was given just then: that is sent to a server that was
/// told that nothing more comes.
async fn request(client: &SendRequest<Bytes>) -> Option<String> {
    let going = |error: &h2::Error| error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    let refused = |error: h2::Error| assert!(going(&error), "{error}");
    let request = http::Request::get("http://localhost/").body(()).unwrap();
    let mut client = client.clone().ready().await.map_err(refused).ok()?;
    let (answer, _) = client.send_request(request, true).map_err(refused).ok()?;
    let mut body = answer.await.map_err(refused).ok()?.into_body();
    let mut text = Vec::new();
    while let Some(part) = body.data().await {
        text.extend(part.unwrap());
    }
    Some(String::from_utf8(text).unwrap())
}

/// Asks for eight answers at a time, on one session after the other, until it is over and more than one worker has answered.
async fn ask_on(address: SocketAddr, begun: Arc<AtomicU64>, is_over: Arc<AtomicBool>) {
    let mut pids = BTreeSet::new();
    while !is_over.load(Ordering::Acquire) || pids.len() < 2 {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        while !is_over.load(Ordering::Acquire) || pids.len() < 2 {
            let answers = futures_util::future::join_all((0..8).map(|_| request(&requests)));
            let answers = answers.await;
            let is_first = pids.is_empty();
            pids.extend(answers.iter().flatten().map(|body| pid_in(body)));
            begun.fetch_add(u64::from(is_first && !pids.is_empty()), Ordering::AcqRel);
            if answers.iter().any(Option::is_none) {
                break;
            }
        }
        drop(requests);
        connection.await.unwrap().unwrap();
    }
}

#[test]
fn a_client_library_sees_no_failure_over_reloads() {
    let mut app = app()
        .workers(2)
        .options(ENDLESS)
        .command([cluster::example("polite")])
        .start();
    let Target::Tcp(address) = app.address() else {
        panic!("no TCP")
    };
    let (begun, is_over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = || ask_on(address, Arc::clone(&begun), Arc::clone(&is_over));
    let clients = [(); 4].map(|()| runtime.spawn(client()));
    wait::eventually(LIMIT, "an answer for each client", || {
        (begun.load(Ordering::Acquire) == 4).then_some(())
    });
    for _ in 0..3 {
        app.verb(["reload"]).expect_success();
    }
    is_over.store(true, Ordering::Release);
    runtime.block_on(async {
        for client in clients {
            tokio::time::timeout(LIMIT, client).await.unwrap().unwrap();
        }
    });
}
