//! The other serialization: each message begins with its length.

use super::{Frame, Frames};
use crate::wire::advanced::LENGTH_BYTES;

impl Frames {
    pub(super) fn next_value(&mut self) -> Option<Frame<'_>> {
        if self.dropping == 0 {
            let waiting = &self.buffer[self.start..self.filled];
            let length = waiting.first_chunk::<LENGTH_BYTES>().copied();
            let Some(length) = length.map(u32::from_be_bytes) else {
                self.scanned = self.filled;
                return None;
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let whole = length.saturating_add(LENGTH_BYTES);
            if whole < self.limit {
                if waiting.len() < whole {
                    self.scanned = self.filled;
                    return None;
                }
                let value = self.start + LENGTH_BYTES..self.start + whole;
                self.start = value.end;
                self.scanned = self.start;
                return Some(Frame::Value(&self.buffer[value]));
            }
            self.dropping = whole;
        }
        let count = self.dropping.min(self.filled - self.start);
        self.start += count;
        self.scanned = self.start;
        self.dropping -= count;
        (self.dropping == 0).then_some(Frame::Oversized)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::splice::Serialization;

    proptest! {
        #[test]
        fn values_come_out_as_they_went_in(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..12),
            chunk in 1_usize..40,
        ) {
            const LIMIT: usize = 64;
            let mut bytes = Vec::new();
            for value in &values {
                bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(value);
            }
            let mut frames = Frames {
                serialization: Serialization::Advanced,
                ..Frames::with_limit(LIMIT)
            };
            let mut out = Vec::new();
            for chunk in bytes.chunks(chunk) {
                frames.room()[..chunk.len()].copy_from_slice(chunk);
                frames.fill(chunk.len());
                while let Some(frame) = frames.next_frame() {
                    out.push(match frame {
                        Frame::Value(value) => Some(value.to_vec()),
                        Frame::Line(_) | Frame::Long(_) | Frame::Senseless | Frame::Oversized => None,
                    });
                }
            }
            prop_assert!(!frames.has_more());
            let wanted: Vec<_> = values
                .into_iter()
                .map(|value| (value.len() + LENGTH_BYTES < LIMIT).then_some(value))
                .collect();
            prop_assert_eq!(out, wanted);
        }
    }
}
