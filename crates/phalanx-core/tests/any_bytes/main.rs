//! Whatever a worker, a program or a client sends, nothing panics and every bound holds. `just fuzz` goes further, with coverage as its
//! guide, where cargo-fuzz and a nightly are installed.

mod entries;

use phalanx_core::wire::splice::Serialization;
use proptest::prelude::*;

/// Bytes that are more often like messages than chance makes them.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"\n",
        b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"seq\":1}\n",
        b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n",
        b"\"\\ud800\"",
        b"[[[[",
        b"{\"a\":",
        b"1e999",
        b"\xff\x0f",
        b"\0\0\0\x04",
        b"o\"\x03cmd\"\x05NODE_{\x01",
        b"READY=1\nSTATUS=x\n",
        b"EXTEND_TIMEOUT_USEC=18446744073709551616",
    ];
    let piece = prop_oneof![
        proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_makes_a_reader_panic(bytes in bytes()) {
        entries::message(&bytes);
    }

    #[test]
    fn no_stream_gets_a_message_past_its_bound(bytes in bytes(), piece in 1_usize..100) {
        entries::stream(&bytes, piece);
    }

    #[test]
    fn what_is_spliced_is_neither_changed_nor_reordered(bytes in bytes(), piece in 1_usize..100) {
        entries::spliced(&bytes, piece, Serialization::Json);
        entries::spliced(&bytes, piece, Serialization::Advanced);
    }

    #[test]
    fn no_datagram_makes_the_reader_of_notifications_panic(bytes in bytes()) {
        entries::notification(&bytes);
    }
}
