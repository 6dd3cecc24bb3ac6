//! Tests of V8's serialization.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn round(value: &Value) -> Value {
    let bytes = write(value);
    let (length, body) = bytes.split_at(LENGTH_BYTES);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        body.len()
    );
    read(body).unwrap()
}

#[test]
fn a_captured_message_is_read_and_written_to_the_byte() {
    // `v8.serialize({cmd: 'NODE_CLUSTER', act: 'online', seq: 0})` of Node 18 to 26.
    let captured = b"\xff\x0fo\"\x03cmd\"\x0cNODE_CLUSTER\"\x03act\"\x06online\"\x03seqI\x00{\x03";
    let online = json!({"cmd": "NODE_CLUSTER", "act": "online", "seq": 0});
    assert_eq!(read(captured).unwrap(), online);
    // `v8.serialize({a: '日本', b: -1})`: aligned by a zero before the text.
    let two_bytes = json!({"a": "日本", "b": -1});
    assert_eq!(round(&two_bytes), two_bytes);
    assert_eq!(
        write(&json!({"b": -1}))[LENGTH_BYTES..],
        *b"\xff\x0fo\"\x01bI\x01{\x01"
    );
}

#[test]
fn what_is_undefined_is_not_there_and_what_json_cannot_say_is_an_error() {
    assert_eq!(read(b"\xff\x0fo\"\x02fd_{\x01").unwrap(), json!({}));
    for beyond in [
        &b"\xff\x0f;:\x00"[..],
        b"\xff\x0fZ\x00",
        b"\xff\x0fo\"\x01a^\x00{\x01",
    ] {
        assert!(
            matches!(read(beyond), Err(WireError::Advanced(_))),
            "{beyond:?}"
        );
    }
}

/// An array that Node 18 had read itself, with a hole.
#[test]
fn an_array_with_places_is_read() {
    let captured = b"\xff\x0fa\x03I\x00I\x02I\x04T@\x02\x03";
    assert_eq!(read(captured).unwrap(), json!([1, null, true]));
    let vast = b"\xff\x0fa\xff\xff\xff\xff\x0f@\x00\x00";
    assert!(read(vast).is_err());
    let beyond = b"\xff\x0fa\x01I\x02T@\x01\x01";
    assert!(read(beyond).is_err());
}

/// Values take more than their bytes.
#[test]
fn a_message_of_very_many_values_is_not_read() {
    let mut bytes = b"\xff\x0fA\x80\x80\x10".to_vec();
    bytes.resize(1 << 18, b'T');
    assert!(matches!(
        read(&bytes),
        Err(WireError::Advanced("holds too many values"))
    ));
}

#[test]
fn numbers_beyond_32_bits_stay_integers() {
    let number = json!(1_u64 << 40);
    assert_eq!(round(&number), number);
    assert_eq!(round(&number).as_u64(), Some(1 << 40));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,4}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in values()) {
        prop_assert_eq!(round(&value), value);
    }

    #[test]
    fn random_bytes_are_an_error_and_no_panic(bytes: Vec<u8>) {
        drop(read(&[&[0xff, 0x0f][..], &bytes].concat()));
    }
}
