//! Lines that come in pieces, are too long, or senseless.

use proptest::prelude::*;

use super::*;

#[test]
fn an_oversized_line_is_dropped_and_the_next_one_read() {
    let mut frames = Frames::with_limit(100);
    let mut bytes = vec![b'x'; 5_000];
    bytes.extend_from_slice(b"\nshort\n");
    let mut seen = Vec::new();
    for chunk in bytes.chunks(64) {
        frames.room()[..chunk.len()].copy_from_slice(chunk);
        frames.fill(chunk.len());
        while let Some(frame) = frames.next_frame() {
            seen.push(match frame {
                Frame::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Frame::Long(_) => "LONG".to_owned(),
                Frame::Senseless => "SENSELESS".to_owned(),
                Frame::Oversized => "OVERSIZED".to_owned(),
                Frame::Value(_) => "VALUE".to_owned(),
            });
        }
    }
    assert_eq!(seen, ["OVERSIZED", "short"]);
}

/// What becomes of bytes that come in pieces.
fn cut(bytes: &[u8], limit: usize) -> Vec<String> {
    let mut frames = Frames::with_limit(limit);
    let mut seen = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = frames.room();
        let count = room.len().min(rest.len()).min(9_999);
        room[..count].copy_from_slice(&rest[..count]);
        frames.fill(count);
        rest = &rest[count..];
        while let Some(frame) = frames.next_frame() {
            seen.push(match frame {
                Frame::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Frame::Long(line) => match take_long_from_worker(line) {
                    Ok(FromWorker::User(text)) => format!("long: {}", text.len()),
                    other => format!("{other:?}"),
                },
                Frame::Senseless => "senseless".to_owned(),
                Frame::Oversized => "oversized".to_owned(),
                Frame::Value(_) => "value".to_owned(),
            });
        }
    }
    assert!(!frames.has_more());
    seen
}

#[test]
fn a_long_line_is_checked_while_it_arrives() {
    let long = format!("{{\"a\":[{}0]}}", "0,".repeat(100_000));
    let length = long.len();
    let broken = long.replacen(':', " ", 1);
    let unfinished = &long[..length - 1];
    let internal = long.replacen('a', "cmd\":\"NODE_X\",\"a", 1);
    let text = format!(
        "1\n{long}\n2\n{broken}\n3\n{unfinished}\n{internal}\n\"{}\"\n4\n",
        "x".repeat(400_000)
    );
    let seen = cut(text.as_bytes(), 300_000);
    let refused = format!("Err(Long {{ bytes: {} }})", internal.len());
    let expected = [
        "1",
        &format!("long: {length}"),
        "2",
        "senseless",
        "3",
        "senseless",
        &refused,
        "oversized",
        "4",
    ];
    assert_eq!(seen, expected);
    let dropped = [vec![b'x'; 400_000].as_slice(), b"\n5\n"].concat();
    assert_eq!(cut(&dropped, 300_000), ["senseless", "5"]);
    let not_text = [b"\"".as_slice(), &vec![0xff; 70_000], b"\"\n"].concat();
    let seen = cut(&not_text, MAX_MESSAGE_BYTES);
    assert!(seen[0].starts_with("Err(Text("), "{seen:?}");
}

#[test]
fn a_long_line_costs_no_more_memory_than_its_length() {
    const LIMIT: usize = 1 << 20;
    let mut frames = Frames::with_limit(LIMIT);
    let mut count = 0;
    while count < 2 * LIMIT {
        let room = frames.room();
        room.fill(b'x');
        let filled = room.len();
        count += filled;
        frames.fill(filled);
        assert_eq!(frames.next_frame(), None);
        assert!(frames.capacity_bytes() <= LIMIT + (64 << 10));
    }
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        lines in proptest::collection::vec("[a-z]{0,300}", 1..40), chunk in 1_usize..700) {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for part in bytes.chunks(chunk) {
            let mut part = part;
            while !part.is_empty() {
                let room = frames.room();
                let count = room.len().min(part.len());
                room[..count].copy_from_slice(&part[..count]);
                frames.fill(count);
                part = &part[count..];
                while let Some(Frame::Line(line)) = frames.next_frame() {
                    seen.push(String::from_utf8_lossy(line).into_owned());
                }
            }
        }
        prop_assert_eq!(seen, lines);
    }
}
