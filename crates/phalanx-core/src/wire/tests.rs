use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

mod frames;

fn from(line: &str) -> FromWorker {
    parse_from_worker(line.as_bytes()).unwrap()
}

fn target(fields: &str) -> Target {
    let line = format!(
        r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,{fields},"seq":1}}"#
    );
    let FromWorker::QueryServer { seq: 1, request } = from(&line) else {
        panic!("not read as queryServer: {line}");
    };
    request.target
}

#[test]
fn a_handle_that_node_sends_again_has_the_message_of_the_first_time() {
    let mut line = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"of":"the app"}}"#.to_owned();
    for _ in 0..=HANDLE_RETRIES {
        let FromWorker::Handle { message } = from(&line) else {
            panic!("no handle: {line}");
        };
        assert_eq!(&*message, r#"{"of":"the app"}"#);
        line = format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{line}}}"#);
    }
}

#[test]
fn a_message_with_a_handle_is_read_as_it_was_written() {
    for (of, name) in [
        (HandleType::Socket, "net.Socket"),
        (HandleType::Server, "net.Server"),
        (HandleType::Udp4, "dgram.Socket"),
        (HandleType::Udp6, "dgram.Socket"),
    ] {
        let line = outgoing::user_handle(&json!({"n": 1}), of);
        let line = std::str::from_utf8(&line).unwrap().trim_end();
        assert!(
            line.starts_with(r#"{"cmd":"NODE_HANDLE""#) && line.contains(name),
            "{line}"
        );
        let read = parse_to_worker(line.as_bytes()).unwrap();
        assert_eq!(read, ToWorker::Handle(json!({"n": 1})));
    }
}

#[test]
fn reads_the_captured_lines_of_node() {
    assert_eq!(
        from(r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#),
        FromWorker::Online
    );
    assert_eq!(from(r#"{"cmd":"NODE_HANDLE_ACK"}"#), FromWorker::HandleAck);
    assert_eq!(
        from(r#"{"cmd":"NODE_HANDLE_NACK"}"#),
        FromWorker::HandleNack
    );
    assert_eq!(
        from(r#"{"cmd":"NODE_CLUSTER","ack":1,"accepted":true,"seq":3}"#),
        FromWorker::Accepted {
            ack: 1,
            accepted: true
        }
    );
    assert_eq!(
        from(r#"{"accepted":false,"ack":7,"cmd":"NODE_CLUSTER"}"#),
        FromWorker::Accepted {
            ack: 7,
            accepted: false
        }
    );
    assert_eq!(
        from(r#"{"cmd":"NODE_CLUSTER","act":"close","key":"null:3456:4:undefined:0","seq":4}"#),
        FromWorker::Close {
            key: "null:3456:4:undefined:0".into()
        }
    );
    assert_eq!(
        from(r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":5}"#),
        FromWorker::Leaving { seq: Some(5) }
    );
    assert_eq!(
        from(r#"{"cmd":"NODE_PHALANX","act":"leaving"}"#),
        FromWorker::Leaving { seq: None }
    );
}

#[test]
fn tells_internal_messages_from_the_applications() {
    for user in [
        "null",
        "0",
        "\"NODE_x\"",
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":"node_x"}"#,
        r#"{"cmd":7}"#,
        r#"[{"cmd":"NODE_CLUSTER"}]"#,
        r#"{"cmd":"USER","x":"é"}"#,
    ] {
        assert!(matches!(from(user), FromWorker::User(_)), "{user}");
    }
    assert_eq!(from(r#"{"cmd":"NODE_FUTURE"}"#), FromWorker::Ignored);
}

#[test]
fn reads_every_kind_of_listen() {
    assert_eq!(
        target(r#""address":null,"port":3456,"addressType":4,"backlog":0"#),
        Target::Tcp {
            address: None,
            port: 3456,
            only_v6: false
        }
    );
    assert_eq!(
        target(r#""address":"127.0.0.1","port":1,"addressType":4,"backlog":50,"flags":0"#),
        Target::Tcp {
            address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: 1,
            only_v6: false
        }
    );
    assert_eq!(
        target(r#""address":"::","port":0,"addressType":6,"backlog":false,"flags":1"#),
        Target::Tcp {
            address: Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            port: 0,
            only_v6: true
        }
    );
    assert_eq!(
        target(r#""address":"/tmp/x.sock","port":-1,"addressType":-1,"readableAll":true"#),
        Target::UnixPath {
            path: "/tmp/x.sock".into(),
            readable_all: true,
            writable_all: false
        }
    );
    assert_eq!(
        target("\"address\":\"/cwd/\\u0000name\",\"port\":-1,\"addressType\":-1"),
        Target::UnixAbstract(b"name".to_vec())
    );
    assert_eq!(
        target(r#""address":null,"port":null,"addressType":null,"fd":3"#),
        Target::Descriptor(3)
    );
    assert_eq!(
        target(r#""address":"::1","port":9,"addressType":"udp6","fd":-1,"flags":5"#),
        Target::Udp {
            address: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            port: 9,
            v6: true,
            only_v6: true,
            reuse_address: true,
        }
    );
    assert_eq!(
        target(r#""address":"0.0.0.0","addressType":"udp4","fd":-1,"flags":0"#),
        Target::Udp {
            address: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: 0,
            v6: false,
            only_v6: false,
            reuse_address: false,
        }
    );
}

#[test]
fn a_bad_line_is_an_error_and_names_the_field() {
    assert!(matches!(parse_from_worker(b""), Err(WireError::Json(_))));
    assert!(matches!(parse_from_worker(b"{"), Err(WireError::Json(_))));
    let bad = br#"{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1,"address":"127.0.0.1","port":70000,"addressType":4}"#;
    assert_eq!(
        parse_from_worker(bad).unwrap_err().to_string(),
        r#"internal message "queryServer" lacks a usable field "port""#
    );
}

fn read(mut line: Vec<u8>) -> ToWorker {
    assert_eq!(line.pop(), Some(b'\n'));
    parse_to_worker(&line).unwrap()
}

#[test]
fn a_worker_reads_what_a_primary_writes() {
    let mut newconn = outgoing::new_connection_start("a\"b");
    newconn.extend_from_slice(b"12");
    newconn.extend_from_slice(outgoing::NEW_CONNECTION_END);
    assert_eq!(
        read(newconn),
        ToWorker::Connection {
            key: "a\"b".into(),
            seq: Some(12)
        }
    );
    assert_eq!(
        read(outgoing::disconnect(1, None)),
        ToWorker::Disconnect(None)
    );
    let limits = DrainLimits {
        drain: Duration::from_secs(30),
        stream: Duration::from_millis(1500),
    };
    assert_eq!(
        read(outgoing::disconnect(1, Some(limits))),
        ToWorker::Disconnect(Some(limits))
    );
}

#[test]
fn a_worker_reads_what_a_primary_answers() {
    let name = SocketName {
        address: "::".into(),
        family: "IPv6".into(),
        port: 80,
    };
    let handoff = read(outgoing::listen_handoff(
        4,
        "k",
        &json!(null),
        Some(&name),
        0,
    ));
    assert_eq!(
        handoff,
        ToWorker::Reply {
            ack: 4,
            handle: false,
            body: ReplyBody {
                errno: None,
                key: Some(json!("k")),
                sockname: Some(name),
                lane: None,
            },
        }
    );
    let shared = read(outgoing::listen_shared(
        5,
        "k",
        &json!(null),
        "net.Native",
        0,
    ));
    assert!(matches!(
        shared,
        ToWorker::Reply {
            ack: 5,
            handle: true,
            ..
        }
    ));
    let error = read(outgoing::listen_error(6, "k", -98, 0));
    assert!(matches!(
        error,
        ToWorker::Reply {
            ack: 6,
            handle: false,
            body: ReplyBody {
                errno: Some(-98),
                ..
            }
        }
    ));
}

#[test]
fn an_applications_message_is_checked_and_not_built() {
    let raw = r#"{"b":1,"a":[1.0,"\u00e9"]}"#;
    assert_eq!(from(raw), FromWorker::User(raw.into()));
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let error = parse_from_worker(deep.as_bytes()).unwrap_err();
    assert!(matches!(error, WireError::Deep), "{error}");
    let error = parse_from_worker(b"\"\xff\"").unwrap_err();
    assert!(matches!(error, WireError::Text(_)), "{error}");
}

#[test]
fn handles_are_paced_after_many_plain_bytes() {
    let mut pacing = Pacing::default();
    pacing.handle(130);
    pacing.handle(130);
    assert!(pacing.may_send_handle());
    pacing.plain(70_000);
    assert!(!pacing.may_send_handle());
    assert!(pacing.answered() && pacing.answered());
    assert!(pacing.may_send_handle());
    pacing.handle(130);
    assert!(
        !pacing.may_send_handle(),
        "the second handle goes alone too"
    );
    assert!(pacing.answered());
    pacing.handle(130);
    assert!(pacing.may_send_handle());
    assert!(pacing.answered());
    assert!(!pacing.answered(), "an answer nobody owes is noticed");
}

proptest! {
    #[test]
    fn no_bytes_from_a_worker_can_panic_the_parser(line in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(parse_from_worker(&line));
        drop(parse_to_worker(&line));
    }

    #[test]
    fn no_internal_looking_message_can_panic_the_parser(
        act in "(queryServer|listening|close|newconn|disconnect|x)", fields in proptest::collection::vec(
            ("(address|port|addressType|fd|flags|key|seq|ack|accepted|data|backlog|index)",
             prop_oneof![Just(json!(null)), any::<i64>().prop_map(|n| json!(n)), any::<String>().prop_map(|s| json!(s)),
                         any::<bool>().prop_map(|b| json!(b)), Just(json!({})), Just(json!([1.5]))]), 0..10)) {
        let mut message = json!({"cmd": "NODE_CLUSTER", "act": act});
        for (name, value) in fields {
            message[name] = value;
        }
        let line = message.to_string();
        drop(parse_from_worker(line.as_bytes()));
        drop(parse_to_worker(line.as_bytes()));
    }
}

#[test]
fn figures_arrive_as_they_were_counted() {
    let mut health = crate::health::Health::default();
    for millis in [1, 5, 5, 900] {
        health.record(millis == 900, std::time::Duration::from_millis(millis));
    }
    let line = outgoing::worker::health(&health, 7);
    assert_eq!(
        parse_from_worker(&line).unwrap(),
        FromWorker::Health(health)
    );
    let bad = br#"{"cmd":"NODE_PHALANX","act":"health","requests":1,"errors":0}"#;
    assert!(parse_from_worker(bad).is_err());
    let asked = parse_to_worker(&outgoing::watch_health(true, 1)).unwrap();
    assert_eq!(asked, ToWorker::WatchHealth { wanted: true });
    let probe = parse_to_worker(outgoing::PROBE).unwrap();
    assert_eq!(probe, ToWorker::Handle(serde_json::Value::Null));
}

#[test]
fn duplicates_are_asked_for_by_key_and_within_bounds() {
    let asks = |count: &str| {
        let line = format!(
            r#"{{"cmd":"NODE_PHALANX","act":"duplicates","key":"127.0.0.1:80:4:undefined:0","count":{count}}}"#
        );
        parse_from_worker(line.as_bytes())
    };
    let key = "127.0.0.1:80:4:undefined:0".to_owned();
    assert_eq!(asks("3").unwrap(), FromWorker::Duplicates { key, count: 3 });
    assert!(asks("15").is_ok());
    for bad in ["16", "-1", "1.5", "null", "4294967299"] {
        assert!(asks(bad).is_err(), "{bad}");
    }
    let keyless = br#"{"cmd":"NODE_PHALANX","act":"duplicates","count":3}"#;
    assert!(parse_from_worker(keyless).is_err());
    // A Rust worker has nothing to do for it.
    let told = parse_to_worker(&outgoing::batch("a", true, 4)).unwrap();
    assert_eq!(told, ToWorker::Ignored);
}
