//! Addresses: what can be listened on, who shares it, and when it is free again.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;

use phalanx_testkit::{LIMIT, Signal, free_port, wait};
use serde_json::{Value, json};

use crate::probe::{Client, Probe, get};

fn refused(address: &str) -> bool {
    match Client::try_connect(address) {
        Err(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::NotFound
        ),
        Ok(_) => false,
    }
}

#[test]
fn port_0_is_one_port_for_all_workers() {
    let mut probe = Probe::start();
    let workers: Vec<_> = (0..3).map(|_| probe.fork().0).collect();
    let addresses: Vec<_> = workers
        .iter()
        .map(|&worker| probe.serve(worker, "127.0.0.1:0"))
        .collect();
    assert!(!addresses[0].ends_with(":0"));
    assert!(
        addresses.iter().all(|address| *address == addresses[0]),
        "{addresses:?}"
    );
}

#[test]
fn the_second_port_0_of_a_worker_is_another_port_and_shared_too() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    let listen = |probe: &mut Probe, worker, name| {
        probe.listen_with(
            worker,
            json!({"do": "listen", "at": "127.0.0.1:0", "as": name}),
        )
    };
    let (a, b) = (
        listen(&mut probe, first, "a"),
        listen(&mut probe, first, "b"),
    );
    assert_ne!(a, b);
    assert_eq!(listen(&mut probe, second, "a"), a);
    assert_eq!(listen(&mut probe, second, "b"), b);
}

#[test]
fn a_port_0_that_was_closed_is_the_same_port_again_while_others_serve_it() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    let address = probe.listen(first, "127.0.0.1:0");
    assert_eq!(probe.listen(second, "127.0.0.1:0"), address);
    probe.ask(second, json!({"do": "close", "as": "main"}));
    assert_eq!(probe.listen(second, "127.0.0.1:0"), address);
}

#[test]
fn several_listeners_each_have_their_own_clients() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}/b.sock", directory.path().display());
    let mut probe = Probe::start();
    let workers = [probe.fork().0, probe.fork().0];
    let mut addresses = Vec::new();
    for worker in workers {
        addresses = ["127.0.0.1:0", &path, "[::1]:0"]
            .map(|at| probe.serve(worker, at))
            .to_vec();
    }
    for address in addresses {
        let served = [get(&address).worker, get(&address).worker];
        assert_ne!(served[0], served[1], "{address}");
    }
}

#[test]
fn a_unix_socket_serves_and_its_file_is_gone_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.sock");
    let path = format!("unix:{}", file.display());
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, pid) = probe.fork();
    for worker in [first, second] {
        assert_eq!(probe.serve(worker, &path), path);
    }
    let answer = get(&path);
    assert_eq!(answer.peer, "unix:");
    // A worker that goes takes nothing with it.
    probe.signal(pid, Signal::KILL);
    probe.event(second, "exit");
    assert_eq!(get(&path).worker, first);
    probe.done(json!({"do": "disconnect"}));
    probe.wait("the end of disconnect", |line| {
        line["cluster"] == "disconnected"
    });
    assert!(!file.exists());
}

#[test]
fn an_abstract_unix_socket_serves_and_has_no_file() {
    let name = format!("unix:@phalanx-test-{}", std::process::id());
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    assert_eq!(probe.serve(worker, &name), name);
    assert_eq!(get(&name).worker, worker);
    probe.done(json!({"do": "disconnect"}));
    probe.wait("the end of disconnect", |line| {
        line["cluster"] == "disconnected"
    });
    assert!(refused(&name));
}

#[test]
fn a_unix_path_that_is_relative_is_one_for_primary_and_worker() {
    let directory = tempfile::tempdir().unwrap();
    let mut probe = Probe::start_with(|command| {
        command.current_dir(directory.path());
    });
    let (worker, _) = probe.fork();
    probe.serve(worker, "unix:./here.sock");
    let path = format!("unix:{}/here.sock", directory.path().display());
    assert_eq!(get(&path).worker, worker);
}

#[track_caller]
fn expect_in_use(probe: &mut Probe, worker: u32, order: Value) {
    let answer = probe.ask(worker, order);
    assert_eq!(answer["kind"], "AddrInUse", "{answer}");
}

#[test]
fn an_address_in_use_is_an_error_of_the_workers_listen() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("served.sock");
    let _served = UnixListener::bind(&file).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let tcp = taken.local_addr().unwrap().to_string();
    let udp = datagrams.local_addr().unwrap().to_string();
    let unix = format!("unix:{}", file.display());
    expect_in_use(&mut probe, worker, json!({"do": "listen", "at": tcp}));
    expect_in_use(&mut probe, worker, json!({"do": "listen", "at": unix}));
    expect_in_use(&mut probe, worker, json!({"do": "udp", "at": udp}));
    assert!(file.exists(), "what is not ours stays");
    // The worker lives, and can have the address once it is free.
    drop(taken);
    assert_eq!(probe.serve(worker, &tcp), tcp);
    assert_eq!(get(&tcp).worker, worker);
}

#[test]
fn other_errors_of_the_address_reach_the_worker_too() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let answer = probe.ask(worker, json!({"do": "listen", "at": "192.0.2.1:0"}));
    assert_eq!(answer["kind"], "AddrNotAvailable", "{answer}");
    let answer = probe.ask(
        worker,
        json!({"do": "listen", "at": "unix:/no/such/directory/a.sock"}),
    );
    assert_eq!(answer["kind"], "NotFound", "{answer}");
    let answer = probe.ask(worker, json!({"do": "listen", "at": "somewhere"}));
    assert!(
        answer["error"].as_str().unwrap().contains("no address"),
        "{answer}"
    );
    probe.serve(worker, "127.0.0.1:0");
}

#[test]
fn one_address_twice_in_one_worker_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}/twice.sock", directory.path().display());
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let tcp = probe.serve(worker, "127.0.0.1:0");
    expect_in_use(&mut probe, worker, json!({"do": "listen", "at": tcp}));
    probe.serve(worker, &path);
    expect_in_use(&mut probe, worker, json!({"do": "listen", "at": path}));
    assert_eq!(get(&tcp).worker, worker);
    assert_eq!(get(&path).worker, worker);
}

#[test]
fn a_listener_closed_by_all_is_free_and_can_be_had_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("again.sock");
    let tcp = format!("127.0.7.1:{}", free_port());
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    for at in [tcp, format!("unix:{}", file.display())] {
        for _ in 0..3 {
            assert_eq!(probe.listen(worker, &at), at);
            let mut client = Client::connect(&at);
            client.request();
            probe.ask(worker, json!({"do": "accept"}));
            assert_eq!(client.answer().worker, worker);
            probe.ask(worker, json!({"do": "close", "as": "main"}));
            let closed = || refused(&at).then_some(());
            wait::eventually(LIMIT, "the address is free", closed);
        }
    }
    assert!(!file.exists());
}

#[test]
fn a_listener_can_be_closed_and_had_again_in_one_go() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/again.sock", directory.path().display());
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let tcp = format!("127.0.7.2:{}", free_port());
    for at in [&tcp, &unix] {
        probe.listen(worker, at);
        for _ in 0..20 {
            probe.listen_with(worker, json!({"do": "close and listen", "at": at}));
        }
        probe.ask(worker, json!({"do": "close", "as": "main"}));
    }
}

#[test]
fn a_listener_that_one_worker_closes_goes_on_with_the_others() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    let address = probe.listen(first, "127.0.0.1:0");
    probe.serve(second, "127.0.0.1:0");
    probe.ask(first, json!({"do": "close", "as": "main"}));
    for _ in 0..4 {
        assert_eq!(get(&address).worker, second);
    }
}

#[test]
fn any_address_is_both_families() {
    if TcpListener::bind("[::1]:0").is_err() {
        phalanx_testkit::missing!("IPv6 on this machine");
        return;
    }
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let address = probe.serve(worker, ":0");
    let port = address.rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let mut client = Client::connect(&format!("{host}:{port}"));
        client.request();
        let peer: SocketAddr = client.answer().peer.parse().unwrap();
        let own: SocketAddr = client.address().parse().unwrap();
        assert_eq!(
            (peer.ip().to_canonical(), peer.port()),
            (own.ip(), own.port())
        );
    }
}

#[test]
fn udp_sockets_are_shared() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, pid) = probe.fork();
    let bind = |probe: &mut Probe, worker| {
        let order = json!({"do": "udp", "at": "127.0.0.1:0", "with": "echo"});
        probe.ask(worker, order)["address"]
            .as_str()
            .map(str::to_owned)
    };
    let address = bind(&mut probe, first).unwrap();
    assert_eq!(bind(&mut probe, second).unwrap(), address);
    assert_eq!(probe.event(first, "listening")["address"], address);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let ask = || {
        client.send_to(b"who?", &address).unwrap();
        let mut answer = [0; 16];
        let length = client.recv(&mut answer).unwrap();
        std::str::from_utf8(&answer[..length])
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let mut served = Vec::new();
    for _ in 0..20 {
        served.push(ask());
    }
    assert!(served.iter().all(|worker| [first, second].contains(worker)));
    probe.signal(pid, Signal::KILL);
    probe.event(second, "exit");
    assert_eq!(ask(), first);
}

#[test]
fn a_worker_may_bind_several_udp_sockets_and_bind_one_again() {
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let bind = |probe: &mut Probe, at: &str, name: &str| {
        let answer = probe.ask(worker, json!({"do": "udp", "at": at, "as": name}));
        let address = answer["address"].as_str();
        address.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let a = bind(&mut probe, "127.0.0.1:0", "a");
    let b = bind(&mut probe, "127.0.0.1:0", "b");
    assert_ne!(a, b);
    expect_in_use(&mut probe, worker, json!({"do": "udp", "at": a}));
    probe.ask(worker, json!({"do": "close", "as": "a"}));
    let free = || UdpSocket::bind(&a).ok();
    drop(wait::eventually(LIMIT, "the address is free", free));
    assert_eq!(bind(&mut probe, &a, "a"), a);
}

#[test]
fn a_listen_that_was_given_up_leaves_the_address_free() {
    let mut probe = Probe::start();
    let (first, _) = probe.fork();
    let (second, _) = probe.fork();
    let address = probe.listen(first, "127.0.0.1:0");
    probe.ask(
        second,
        json!({"do": "give up listening", "at": "127.0.0.1:0"}),
    );
    // The primary has answered before it passes this on.
    probe.ask(second, json!({"do": "about"}));
    assert_eq!(probe.serve(second, "127.0.0.1:0"), address);
    probe.ask(first, json!({"do": "close", "as": "main"}));
    assert_eq!(get(&address).worker, second);
}

#[test]
fn a_unix_path_that_is_too_long_is_an_error() {
    // Longer than the kernel's limit for a path (unix(7)).
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x".repeat(200));
    let mut probe = Probe::start();
    let (worker, _) = probe.fork();
    let answer = probe.ask(
        worker,
        json!({"do": "listen", "at": format!("unix:{}", file.display())}),
    );
    assert!(answer["error"].is_string(), "{answer}");
    assert!(!Path::new(&file).exists());
}
