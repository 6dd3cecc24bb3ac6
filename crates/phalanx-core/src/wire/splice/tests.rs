//! Tests of the splice's protocol.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::wire::{FromWorker, HANDLE_ACK, HANDLE_NACK};

const BOTH: [Serialization; 2] = [Serialization::Json, Serialization::Advanced];

fn frame(serialization: Serialization, value: &Value) -> Vec<u8> {
    match serialization {
        Serialization::Json => {
            // As `JSON.stringify` has it, the command first.
            let mut text = String::from("{");
            let mut fields: Vec<_> = value.as_object().unwrap().iter().collect();
            fields.sort_by_key(|(name, _)| *name != "cmd");
            for (name, value) in fields {
                if text.len() > 1 {
                    text.push(',');
                }
                text.extend([format!("{name:?}:{value}")]);
            }
            (text + "}\n").into_bytes()
        }
        Serialization::Advanced => {
            // `cmd` first here too: of the names, the others are given such that it is the first in order.
            advanced::write(value)
        }
    }
}

/// Feeds the bytes in chunks of this size, and collects what comes out.
fn cut(serialization: Serialization, bytes: &[u8], chunk: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut cutter = Cutter::new(serialization);
    let (mut internal, mut all) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(chunk) {
        let room = cutter.room();
        room[..chunk.len()].copy_from_slice(chunk);
        cutter.fill(chunk.len());
        while let Some(piece) = cutter.next_piece() {
            match piece {
                Piece::Internal(frame) => {
                    all.extend_from_slice(frame);
                    internal.push(frame.to_vec());
                }
                Piece::Part { bytes, .. } => all.extend_from_slice(bytes),
            }
        }
        cutter.rest();
    }
    (internal, all)
}

#[test]
fn internal_messages_are_told_from_others_in_both_serializations() {
    for serialization in BOTH {
        let online = frame(serialization, &json!({"cmd": "NODE_CLUSTER", "seq": 0}));
        let user = frame(serialization, &json!({"cmd": "NODE", "x": "NODE_CLUSTER"}));
        let text = serialization.of_line(b"\"NODE_\"\n".to_vec());
        let bytes = [&user, &online, &text, &online, &user]
            .map(Vec::as_slice)
            .concat();
        for chunk in [1, 2, 7, 4096] {
            let (internal, all) = cut(serialization, &bytes, chunk);
            assert_eq!(
                internal,
                [online.clone(), online.clone()],
                "{serialization:?}, {chunk}"
            );
            assert_eq!(all, bytes);
        }
    }
}

#[test]
fn a_long_message_passes_before_it_is_whole() {
    for serialization in BOTH {
        let mut bytes = serialization.of_line(format!("{:?}\n", "x".repeat(1 << 20)).into_bytes());
        bytes.truncate(9000);
        let (internal, all) = cut(serialization, &bytes, 1000);
        assert_eq!((internal.len(), all.len()), (0, 9000));
    }
}

fn of_worker(value: &Value) -> OfWorker {
    let [json, advanced] = BOTH.map(|serialization| {
        let bytes = match serialization {
            Serialization::Json => format!("{value}\n").into_bytes(),
            Serialization::Advanced => advanced::write(value),
        };
        judge_of_worker(&bytes, serialization)
    });
    assert_eq!(json, advanced, "{value}");
    json
}

fn query(fields: &Value) -> OfWorker {
    let mut message =
        json!({"cmd": "NODE_CLUSTER", "act": "queryServer", "index": 0, "data": null, "seq": 3});
    for (name, value) in fields.as_object().unwrap() {
        message[name] = value.clone();
    }
    of_worker(&message)
}

#[test]
fn connections_are_for_phalanx_and_everything_else_is_for_node() {
    let tcp = query(&json!({"address": null, "port": 80, "addressType": 4, "backlog": 0}));
    let OfWorker::Taken(FromWorker::QueryServer { seq: 3, request }) = tcp else {
        panic!("{tcp:?}");
    };
    assert!(request.key.starts_with(KEY_PREFIX));
    let unix = query(&json!({"address": "/x", "port": -1, "addressType": -1}));
    assert!(matches!(unix, OfWorker::Taken(_)), "{unix:?}");
    let udp = json!({"address": "0.0.0.0", "port": 1, "addressType": "udp4", "fd": -1});
    let descriptor = json!({"address": null, "port": null, "addressType": null, "fd": 3});
    assert_eq!(
        (query(&udp), query(&descriptor)),
        (OfWorker::Forwarded, OfWorker::Forwarded)
    );

    let close = |key: &str| {
        of_worker(&json!({"cmd": "NODE_CLUSTER", "act": "close", "key": key, "seq": 4}))
    };
    assert!(matches!(
        close("phx:null:80:4:null"),
        OfWorker::Taken(FromWorker::Close { .. })
    ));
    assert_eq!(close("null:80:4:undefined:0"), OfWorker::Forwarded);

    let accepted = |ack: u64| {
        of_worker(&json!({"cmd": "NODE_CLUSTER", "ack": ack, "accepted": true, "seq": 4}))
    };
    assert!(matches!(
        accepted(FIRST_NUMBER + 7),
        OfWorker::Taken(FromWorker::Accepted { .. })
    ));
    assert_eq!(accepted(7), OfWorker::Forwarded);
}

#[test]
fn what_node_acts_on_as_well_is_noted() {
    let act = |act: &str| of_worker(&json!({"cmd": "NODE_CLUSTER", "act": act, "seq": 4}));
    assert_eq!(act("online"), OfWorker::Noted(FromWorker::Online));
    let leaving = OfWorker::Noted(FromWorker::Leaving { seq: None });
    assert_eq!(act("exitedAfterDisconnect"), leaving);
    let own = of_worker(&json!({"cmd": "NODE_PHALANX", "act": "leaving"}));
    assert_eq!(own, OfWorker::Taken(FromWorker::Leaving { seq: None }));
}

#[test]
fn handles_and_their_answers_are_told() {
    assert_eq!(
        of_worker(&json!({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": 1})),
        OfWorker::Handle
    );
    for (line, arrived) in [(HANDLE_ACK, true), (HANDLE_NACK, false)] {
        for serialization in BOTH {
            let bytes = serialization.of_line(line.to_vec());
            assert_eq!(
                judge_of_worker(&bytes, serialization),
                OfWorker::Answer { arrived }
            );
        }
    }
    for serialization in BOTH {
        let primary = |value: Value| {
            judge_of_primary(
                &serialization.of_line(format!("{value}\n").into_bytes()),
                serialization,
            )
        };
        assert_eq!(
            primary(json!({"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": 1})),
            OfPrimary::Disconnect
        );
        assert_eq!(
            primary(json!({"cmd": "NODE_CLUSTER", "ack": 5, "seq": 2})),
            OfPrimary::Forwarded
        );
        let newconn = json!({"cmd": "NODE_HANDLE", "type": "net.Native", "msg": {"cmd": "NODE_CLUSTER", "act": "newconn"}});
        assert_eq!(primary(newconn), OfPrimary::Handle);
    }
}

/// Bytes of the application's, as V8 has them: nothing that JSON can say.
#[test]
fn a_handle_is_told_whatever_comes_with_it() {
    let mut body = b"\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE\"\x03msg".to_vec();
    body.extend(b"\\\x00\x0a\x01\x07{\x02");
    let mut handle = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    handle.extend(body);
    assert!(Serialization::Advanced.value(&handle).is_err());
    let judged = judge_of_worker(&handle, Serialization::Advanced);
    assert_eq!(judged, OfWorker::Handle);
    let judged = judge_of_primary(&handle, Serialization::Advanced);
    assert_eq!(judged, OfPrimary::Handle);
}

proptest! {
    #[test]
    fn nothing_is_lost_or_changed_however_it_is_cut(
        texts in proptest::collection::vec((any::<bool>(), "\\PC{0,40}"), 0..8),
        chunk in 1_usize..80,
        is_advanced: bool,
    ) {
        let serialization = BOTH[usize::from(is_advanced)];
        let messages: Vec<_> = texts.iter().map(|(is_internal, text)| {
            let value = if *is_internal {
                json!({"cmd": "NODE_X", "text": text})
            } else {
                json!({"text": text})
            };
            (*is_internal, frame(serialization, &value))
        }).collect();
        let bytes = messages.iter().flat_map(|(_, frame)| frame.clone()).collect::<Vec<_>>();
        let (internal, all) = cut(serialization, &bytes, chunk);
        prop_assert_eq!(all, bytes);
        let expected: Vec<_> = messages.into_iter().filter(|(is_internal, _)| *is_internal).map(|(_, frame)| frame).collect();
        prop_assert_eq!(internal, expected);
    }

    #[test]
    fn random_bytes_pass(bytes: Vec<u8>, is_advanced: bool) {
        let serialization = BOTH[usize::from(is_advanced)];
        let (_, all) = cut(serialization, &bytes, 3);
        prop_assert!(bytes.starts_with(&all));
        drop(judge_of_worker(&bytes, serialization));
        let _judged = judge_of_primary(&bytes, serialization);
    }
}
