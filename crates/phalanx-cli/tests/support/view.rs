//! An app with its web view, asked over plain sockets, as no browser would.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use phalanx_testkit::lines::address_in;
use phalanx_testkit::{App, LIMIT, node};

use super::app;

/// An app with its web view, and where that is.
pub(crate) fn with_view(options: &[&str]) -> Option<(App, SocketAddr)> {
    node::require()?;
    let app = app()
        .workers(1)
        .options(options)
        .script("http.js")
        .start_ready();
    let address = address_in(&app.wait_for_line("web view on http://", LIMIT));
    let port = address.port();
    Some((app, ([127, 0, 0, 1], port).into()))
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends a request, and reads until the other end closes.
pub(crate) fn ask(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> String {
    let mut stream = connect(address);
    let lines = headers.iter().flat_map(|header| [*header, "\r\n"]);
    let lines: String = lines.collect();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    all_of(&mut stream)
}

pub(crate) fn all_of(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // What was not read of a request makes the end a reset.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn status(answer: &str) -> u16 {
    let code = answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    code.parse().unwrap()
}

pub(crate) fn generation(app: &mut App) -> u64 {
    app.wait_ready(LIMIT)["generation"].as_u64().unwrap()
}
