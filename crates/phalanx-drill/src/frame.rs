//! WebSocket frames (RFC 6455, 5.2), as far as a client needs them that sends pings and a close.

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Data,
    Close,
    Ping,
    Pong,
}

/// A frame that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
}

/// The longest frame of data that is taken.
const MAX_PAYLOAD_BYTES: u64 = 16 << 20;
/// Control frames carry no more (5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// A control frame as a client sends it: masked. The payload is cut to what fits.
pub(super) fn control(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let code = match opcode {
        Opcode::Data => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    };
    let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
    let length = u8::try_from(payload.len()).unwrap_or(0);
    let mut frame = vec![0x80 | code, 0x80 | length];
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Takes a frame out of `input` if it is whole. Fails at what no server may send.
pub(super) fn take(input: &mut Vec<u8>) -> Result<Option<Frame>, &'static str> {
    let [first, second, rest @ ..] = input.as_slice() else {
        return Ok(None);
    };
    let opcode = match first & 0x0f {
        0x0..=0x2 => Opcode::Data,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return Err("an unknown opcode"),
    };
    if second & 0x80 != 0 {
        return Err("a masked frame from a server");
    }
    let (length, extra) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
        (127, rest) => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), 8),
            None => return Ok(None),
        },
        (126, _) => return Ok(None),
        (length, _) => (u64::from(length), 0),
    };
    if length > MAX_PAYLOAD_BYTES {
        return Err("a frame that is too long");
    }
    let start = 2 + extra;
    let end = start + usize::try_from(length).unwrap_or(usize::MAX);
    let Some(payload) = input.get(start..end) else {
        return Ok(None);
    };
    let payload = payload.to_vec();
    input.drain(..end);
    Ok(Some(Frame { opcode, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_lengths_are_taken_when_they_are_whole() {
        for (header, length) in [
            (vec![0x8a, 5], 5_usize),
            (vec![0x82, 126, 1, 0], 256),
            (vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
        ] {
            let whole = [header, vec![b'x'; length], vec![0x88]].concat();
            let mut input = whole[..whole.len() - 2].to_vec();
            assert_eq!(take(&mut input), Ok(None));
            let mut input = whole;
            let frame = take(&mut input).unwrap().unwrap();
            assert_eq!(frame.payload.len(), length);
            assert_eq!(input, [0x88]);
        }
        assert!(take(&mut vec![0x83, 0]).is_err());
        assert!(take(&mut vec![0x81, 0x80, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_client_masks_what_it_sends() {
        // The masked "Hello" of RFC 6455, 5.7, as a ping.
        let frame = control(Opcode::Ping, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(
            frame,
            [
                0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }
}
