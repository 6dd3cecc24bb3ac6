//! A worker that does not use the library: it writes to its channel what it is told, byte by byte.
//! What it is told comes as messages: `{"raw": TEXT}`, `{"fill": BYTES}`, `{"descriptors": COUNT}`.
//! Every other line from the primary it prints.

use std::io::{BufRead, BufReader, Write};
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
        } else {
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
