//! A worker that does not use the library: it writes to its channel what it is told, byte by byte.
//! What it is told comes as messages: `{"raw": TEXT}`, `{"fill": BYTES}`, `{"descriptors": COUNT}`, `{"handles": COUNT}`. With
//! `PROBE_ROGUE=nack` it says of each handle that it did not arrive.
//! Every other line from the primary it prints.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

pub(crate) fn run() {
    let number = std::env::var("NODE_CHANNEL_FD").expect("a worker has a channel");
    let number = number.parse().expect("a number");
    let channel = phalanx_sys::channel::take_over(number).expect("the channel is inherited");
    let mut channel = UnixStream::from(channel);
    channel
        .set_nonblocking(false)
        .expect("a socket can be blocking");
    let refuses = std::env::var("PROBE_ROGUE").is_ok_and(|how| how == "nack");
    let reader = channel.try_clone().expect("a socket can be duplicated");
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        let told: Value = serde_json::from_str(&line).expect("the primary writes JSON");
        if let Some(raw) = told["raw"].as_str() {
            channel
                .write_all(raw.as_bytes())
                .expect("the primary reads");
        } else if let Some(count) = told["fill"].as_u64() {
            fill(&mut channel, count);
        } else if let Some(count) = told["descriptors"].as_u64() {
            for _ in 0..count {
                let (bytes, handle) = (b"{\"with\":\"a descriptor\"}\n", channel.as_fd());
                let sent = phalanx_sys::channel::send(channel.as_fd(), bytes, Some(handle));
                sent.expect("the primary reads");
            }
        } else if let Some(count) = told["handles"].as_u64() {
            let line =
                b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"keep\":true}}\n";
            let socket = UdpSocket::bind("127.0.0.1:0").expect("there are ports");
            for _ in 0..count {
                while let Err(error) =
                    phalanx_sys::channel::send(channel.as_fd(), line, Some(socket.as_fd()))
                {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "the primary reads");
                    std::thread::yield_now();
                }
            }
        } else {
            if told["cmd"] == "NODE_HANDLE" && refuses {
                let answer = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";
                channel.write_all(answer).expect("the primary reads");
            }
            crate::print(&json!({"rogue": std::process::id(), "got": told}));
        }
    }
}

fn fill(channel: &mut UnixStream, mut count: u64) {
    let block = [b'x'; 1 << 13];
    while count > 0 {
        let part = usize::try_from(count).map_or(block.len(), |left| left.min(block.len()));
        channel
            .write_all(&block[..part])
            .expect("the primary reads");
        count -= part as u64;
    }
}
