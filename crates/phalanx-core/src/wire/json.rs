//! Is it JSON? Told a piece at a time, so that a long line costs each turn of the event loop no more than
//! that turn's bytes, and nothing is built from what nobody asked to see.
//!
//! The grammar is that of RFC 8259, with at most [`MAX_DEPTH`] levels, as `serde_json` has it. Whether the
//! bytes are UTF-8 is the caller's question, once the line is whole: that check is many times faster.

/// Arrays and objects within each other, at most.
pub const MAX_DEPTH: u32 = 127;

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Value,
    /// A value or the end of the array that has just begun.
    FirstElement,
    /// A name or the end of the object that has just begun.
    FirstName,
    Name,
    Colon,
    /// Behind a value: a comma, the end of what is open, or the end of all.
    Behind,
    Text {
        is_name: bool,
    },
    Escape {
        is_name: bool,
    },
    /// So many hexadecimal digits of `\u` are to come.
    Digits {
        is_name: bool,
        left: u8,
    },
    /// What is left of `true`, `false` or `null`.
    Word(&'static [u8]),
    Number(Number),
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// Checks one JSON text, piece by piece.
#[derive(Clone, Debug)]
pub struct JsonCheck {
    at: At,
    depth: u32,
    /// Bit by level: set where an object is open, clear where it is an array.
    objects: u128,
}

impl Default for JsonCheck {
    fn default() -> Self {
        Self {
            at: At::Value,
            depth: 0,
            objects: 0,
        }
    }
}

impl JsonCheck {
    /// Takes the next piece in. False when the text cannot become JSON any more.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            if let At::Text { .. } = self.at {
                // Most of what is long is text: pass over it quickly.
                let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
                let count = rest.iter().take_while(|byte| plain(byte)).count();
                if count > 0 {
                    rest = &rest[count..];
                    continue;
                }
            }
            self.at = self.step(byte);
            if self.at == At::Broken {
                return false;
            }
            rest = behind;
        }
        true
    }

    /// Was that a whole JSON text?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.depth == 0
            && match self.at {
                At::Behind => true,
                At::Number(number) => number.may_end(),
                At::Value
                | At::FirstElement
                | At::FirstName
                | At::Name
                | At::Colon
                | At::Text { .. }
                | At::Escape { .. }
                | At::Digits { .. }
                | At::Word(_)
                | At::Broken => false,
            }
    }

    fn step(&mut self, byte: u8) -> At {
        match self.at {
            At::Text { is_name } => after_text(byte, is_name),
            At::Escape { is_name } => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => At::Text { is_name },
                b'u' => At::Digits { is_name, left: 4 },
                _ => At::Broken,
            },
            At::Digits { is_name, left } => match (byte.is_ascii_hexdigit(), left) {
                (false, _) => At::Broken,
                (true, 1) => At::Text { is_name },
                (true, left) => At::Digits {
                    is_name,
                    left: left - 1,
                },
            },
            At::Word(word) => match word.split_first() {
                Some((&first, [])) if first == byte => At::Behind,
                Some((&first, rest)) if first == byte => At::Word(rest),
                Some(_) | None => At::Broken,
            },
            At::Number(number) => match number.step(byte) {
                Some(number) => At::Number(number),
                None if number.may_end() => self.between(At::Behind, byte),
                None => At::Broken,
            },
            at @ (At::Value
            | At::FirstElement
            | At::FirstName
            | At::Name
            | At::Colon
            | At::Behind
            | At::Broken) => self.between(at, byte),
        }
    }

    /// A byte outside of texts, words and numbers.
    fn between(&mut self, at: At, byte: u8) -> At {
        match (at, byte) {
            (At::Broken, _) => At::Broken,
            (_, b' ' | b'\t' | b'\n' | b'\r') => at,
            (At::Value | At::FirstElement, b'"') => At::Text { is_name: false },
            (At::Value | At::FirstElement, b'{') => self.open(true),
            (At::Value | At::FirstElement, b'[') => self.open(false),
            (At::Value | At::FirstElement, b't') => At::Word(b"rue"),
            (At::Value | At::FirstElement, b'f') => At::Word(b"alse"),
            (At::Value | At::FirstElement, b'n') => At::Word(b"ull"),
            (At::Value | At::FirstElement, b'-') => At::Number(Number::Minus),
            (At::Value | At::FirstElement, b'0') => At::Number(Number::Zero),
            (At::Value | At::FirstElement, b'1'..=b'9') => At::Number(Number::Whole),
            (At::FirstElement | At::Behind, b']') => self.close(false),
            (At::FirstName | At::Name, b'"') => At::Text { is_name: true },
            (At::FirstName | At::Behind, b'}') => self.close(true),
            (At::Colon, b':') => At::Value,
            (At::Behind, b',') => match self.is_in_object() {
                Some(true) => At::Name,
                Some(false) => At::Value,
                None => At::Broken,
            },
            (_, _) => At::Broken,
        }
    }

    fn is_in_object(&self) -> Option<bool> {
        let level = self.depth.checked_sub(1)?;
        Some(self.objects >> level & 1 == 1)
    }

    fn open(&mut self, object: bool) -> At {
        if self.depth >= MAX_DEPTH {
            return At::Broken;
        }
        let bit = 1_u128 << self.depth;
        if object {
            self.objects |= bit;
        } else {
            self.objects &= !bit;
        }
        self.depth += 1;
        if object {
            At::FirstName
        } else {
            At::FirstElement
        }
    }

    fn close(&mut self, object: bool) -> At {
        if self.is_in_object() != Some(object) {
            return At::Broken;
        }
        self.depth -= 1;
        At::Behind
    }
}

fn after_text(byte: u8, is_name: bool) -> At {
    match byte {
        b'"' if is_name => At::Colon,
        b'"' => At::Behind,
        b'\\' => At::Escape { is_name },
        0..=0x1f => At::Broken,
        _ => At::Text { is_name },
    }
}

impl Number {
    fn step(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            (_, _) => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// What the check says of a text that comes in pieces of this length.
    fn check(text: &[u8], piece: usize) -> bool {
        let mut check = JsonCheck::default();
        text.chunks(piece).all(|piece| check.take(piece)) && check.is_whole()
    }

    fn expect(text: &[u8]) {
        let right = serde_json::from_slice::<IgnoredAny>(text).is_ok();
        for piece in [1, 3, 4096] {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(check(text, piece), right, "{shown:?} in pieces of {piece}");
        }
    }

    #[test]
    fn judges_as_the_parser_does() {
        for text in [
            "null",
            "true",
            "false",
            "nul",
            "nulll",
            "tru e",
            "0",
            "-0",
            "01",
            "-",
            "1.",
            "1.5",
            ".5",
            "1e",
            "1e+",
            "1e5",
            "1E-5",
            "1e5.",
            "\"\"",
            "\"a",
            "\"\\n\"",
            "\"\\x\"",
            "\"\\u00e9\"",
            "\"\\u00g0\"",
            "\"\u{1}\"",
            "[]",
            "[1]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":}",
            "{\"a\":1 \"b\":2}",
            "[}",
            "{]",
            "]",
            "}",
            " [ 1 , { \"a\" : [ ] } ] ",
            "1 1",
            "{} {}",
            "",
            " ",
            "[1,2,{\"a\":[null,true]}]x",
            "\u{0}",
            "{cmd:NODE_}",
            "[[",
            "\"é\"",
            "-1e-1]",
        ] {
            expect(text.as_bytes());
        }
    }

    #[test]
    fn levels_have_a_limit() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        let most = usize::try_from(MAX_DEPTH).unwrap();
        assert!(check(nested(most).as_bytes(), 7));
        assert!(!check(nested(most + 1).as_bytes(), 7));
        assert!(!check("{\"a\":".repeat(100_000).as_bytes(), 4096));
        serde_json::from_str::<serde_json::Value>(&nested(most)).unwrap();
        serde_json::from_str::<serde_json::Value>(&nested(most + 1)).unwrap_err();
    }

    proptest! {
        #[test]
        fn judges_random_text_as_the_parser_does(text in "[\\[\\]{}\",:0-9eE.+\\- tfalsn\\\\u]{0,24}") {
            expect(text.as_bytes());
        }

        #[test]
        fn takes_what_the_parser_writes(texts in proptest::collection::vec("\\PC{0,12}", 0..6), number: f64) {
            let value = serde_json::json!({"texts": texts, "number": number, "more": [[texts], null, true]});
            let text = value.to_string();
            prop_assert!(check(text.as_bytes(), 5));
            // Cut anywhere, it is not whole.
            let cut = text.len() / 2;
            prop_assert!(!check(&text.as_bytes()[..cut], 5));
        }
    }
}
