//! Bytes and descriptors through the channel.
mod support;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use phalanx_sys::channel::{Received, pair, receive, send, take_over};
use phalanx_sys::process::{ExitStatus, FdMapping, SpawnPlan, spawn};
use phalanx_sys::socket::peer_credentials;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use support::{end_of, pipe, read_all, shell, wait_readable};

struct Inbox {
    fd: OwnedFd,
    text: Vec<u8>,
    handles: VecDeque<OwnedFd>,
}

impl Inbox {
    fn new(fd: OwnedFd) -> Inbox {
        Inbox {
            fd,
            text: Vec::new(),
            handles: VecDeque::new(),
        }
    }

    fn receive(&mut self) -> io::Result<Received> {
        let mut buf = vec![0; 65_536];
        let received = receive(self.fd.as_fd(), &mut buf, &mut self.handles)?;
        self.text.extend_from_slice(&buf[..received.bytes]);
        Ok(received)
    }

    /// Receives what is to come, as the end of the peer: a child that another test forks has a copy
    /// of its descriptor until it executes its program.
    #[track_caller]
    fn receive_next(&mut self) -> io::Result<Received> {
        wait_readable(&self.fd);
        self.receive()
    }
}

#[test]
fn bytes_and_a_handle_arrive_together() {
    let (ours, theirs) = pair().unwrap();
    let mut inbox = Inbox::new(theirs);
    let (reader, writer) = pipe();
    assert_eq!(
        send(ours.as_fd(), b"take\n", Some(writer.as_fd())).unwrap(),
        5
    );
    drop(writer);
    let received = inbox.receive().unwrap();
    assert_eq!((received.bytes, received.truncated), (5, false));
    let handle = inbox.handles.pop_front().unwrap();
    assert_eq!(fcntl_getfd(&handle).unwrap(), FdFlags::CLOEXEC);
    rustix::io::write(&handle, b"hello").unwrap();
    drop(handle);
    assert_eq!(read_all(&reader), "hello");
}

#[test]
fn a_read_yields_one_message_with_a_handle_at_most() {
    let (ours, theirs) = pair().unwrap();
    let mut inbox = Inbox::new(theirs);
    let (_reader, writer) = pipe();
    for line in [&b"one\n"[..], b"two\n", b"three\n"] {
        send(ours.as_fd(), line, Some(writer.as_fd())).unwrap();
    }
    for count in 1..=3 {
        inbox.receive().unwrap();
        assert_eq!(inbox.handles.len(), count);
    }
    assert_eq!(inbox.text, b"one\ntwo\nthree\n");
}

#[test]
fn a_handle_may_ride_on_any_piece_of_a_line() {
    let (ours, theirs) = pair().unwrap();
    let mut inbox = Inbox::new(theirs);
    let (_reader, writer) = pipe();
    send(ours.as_fd(), b"plain\nspl", None).unwrap();
    send(ours.as_fd(), b"it l", Some(writer.as_fd())).unwrap();
    send(ours.as_fd(), b"ine\n", None).unwrap();
    while inbox.text.len() < 17 {
        inbox.receive().unwrap();
    }
    assert_eq!(inbox.text, b"plain\nsplit line\n");
    assert_eq!(inbox.handles.len(), 1);
}

#[test]
fn a_full_buffer_asks_for_waiting_and_loses_nothing() {
    let (ours, theirs) = pair().unwrap();
    let mut inbox = Inbox::new(theirs);
    let (_reader, writer) = pipe();
    let line = [b'x'; 128];
    let mut sent = 0;
    // The kernel also limits handles on their way to the number of files that may be open
    // (ETOOMANYREFS, for users without privilege), so only every hundredth carries one.
    let error = loop {
        let handle = (sent % 100 == 0).then(|| writer.as_fd());
        match send(ours.as_fd(), &line, handle) {
            Ok(count) => {
                assert_eq!(count, line.len(), "short lines are taken whole");
                sent += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    while inbox.text.len() < sent * line.len() {
        inbox.receive().unwrap();
    }
    assert_eq!(inbox.handles.len(), sent.div_ceil(100));
    let error = inbox.receive().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(send(ours.as_fd(), &line, None).unwrap(), line.len());
}

#[test]
fn the_end_of_the_peer_is_seen_on_both_ways() {
    let (ours, theirs) = pair().unwrap();
    let mut inbox = Inbox::new(ours);
    drop(theirs);
    assert_eq!(inbox.receive_next().unwrap().bytes, 0);
    let error = send(inbox.fd.as_fd(), b"x", None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_handle_needs_bytes_to_ride_on() {
    let (ours, theirs) = pair().unwrap();
    let error = send(ours.as_fd(), b"", Some(theirs.as_fd())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn both_ends_are_made_by_this_process() {
    let (ours, theirs) = pair().unwrap();
    for end in [&ours, &theirs] {
        assert_eq!(fcntl_getfd(end).unwrap(), FdFlags::CLOEXEC);
        let peer = peer_credentials(end.as_fd()).unwrap();
        assert_eq!(peer.pid, Some(phalanx_sys::process::Pid::current()));
        assert_eq!(peer.uid, phalanx_sys::identity::effective_uid());
    }
    assert!(fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
    assert!(!fcntl_getfl(&theirs).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn an_inherited_channel_is_taken_over_once() {
    let (ours, theirs) = pair().unwrap();
    fcntl_setfd(&theirs, FdFlags::empty()).unwrap();
    let number = theirs.into_raw_fd();
    let channel = take_over(number).unwrap();
    assert_eq!(channel.as_raw_fd(), number);
    assert_eq!(fcntl_getfd(&channel).unwrap(), FdFlags::CLOEXEC);
    assert!(fcntl_getfl(&channel).unwrap().contains(OFlags::NONBLOCK));
    let error = take_over(number).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(9), "EBADF");
    drop(channel);
    assert_eq!(Inbox::new(ours).receive_next().unwrap().bytes, 0);
}

#[test]
fn what_is_no_channel_is_left_alone() {
    let file = std::fs::File::open("/dev/null").unwrap();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let error = take_over(file.as_raw_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(88), "ENOTSOCK");
    assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::empty());
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&udp, FdFlags::empty()).unwrap();
    let error = take_over(udp.as_raw_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(91), "EPROTOTYPE");
    assert!(take_over(987_654).is_err());
}

#[test]
fn a_worker_talks_through_its_end() {
    let (ours, theirs) = pair().unwrap();
    let mut plan = shell("read line <&3; echo got $line >&3");
    plan.fds.push(FdMapping::owned(theirs, 3));
    let mut process = spawn(plan).unwrap();
    rustix::io::write(&ours, b"hello\n").unwrap();
    assert_eq!(end_of(&mut process), ExitStatus::Code(0));
    assert_eq!(read_all(&ours), "got hello\n");
}

/// Not a test by itself: the worker of the next one, in a process of its own.
#[test]
fn as_a_worker_with_its_channel_on_stdin() {
    if std::env::var_os("PHALANX_SYS_TEST_WORKER").is_none() {
        return;
    }
    let channel = take_over(0).unwrap();
    assert!(channel.as_raw_fd() > 2);
    assert!(take_over(0).is_err(), "stdin is /dev/null now");
    let mut nothing = String::new();
    io::stdin().read_to_string(&mut nothing).unwrap();
    assert_eq!(nothing, "");
    send(channel.as_fd(), b"taken\n", None).unwrap();
}

#[test]
fn a_channel_on_a_standard_descriptor_moves() {
    let (ours, theirs) = pair().unwrap();
    let mut plan = SpawnPlan::new(std::env::current_exe().unwrap());
    let args = ["--exact", "as_a_worker_with_its_channel_on_stdin"];
    plan.args.extend(args.map(Into::into));
    plan.env
        .push(("PHALANX_SYS_TEST_WORKER".into(), "1".into()));
    plan.fds.push(FdMapping::owned(theirs, 0));
    plan.fds.push(FdMapping::null(1));
    let mut worker = spawn(plan).unwrap();
    assert_eq!(read_all(&ours), "taken\n");
    assert_eq!(end_of(&mut worker), ExitStatus::Code(0));
}
