//! V8's serialization, which Node calls `advanced`: a length (four bytes, big endian) and a value.
//!
//! Read is what JSON can say, and nothing else: whatever else a message holds (a `Map`, bytes, a reference to what
//! stood before) is left to those who exchange it. The bytes are the same for Node 18 to 26; the format is that of
//! V8's `value-serializer.cc`, version 13 and later.

use serde_json::{Map, Number, Value};

use super::WireError;
use super::json::MAX_DEPTH;

/// How many bytes of length stand before each value.
pub const LENGTH_BYTES: usize = 4;
/// The first byte of a header, and the version that is written.
const VERSION_TAG: u8 = 0xff;
const VERSION: u8 = 0x0f;

/// A value with its length before it.
#[must_use]
pub fn write(value: &Value) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.extend([VERSION_TAG, VERSION]);
    put(&mut bytes, value);
    // INVARIANT: what is written comes from messages of bounded size, far below 4 GiB.
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn put(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(b'0'),
        Value::Bool(true) => bytes.push(b'T'),
        Value::Bool(false) => bytes.push(b'F'),
        Value::Number(number) => put_number(bytes, number),
        Value::String(text) => put_text(bytes, text),
        Value::Array(items) => {
            bytes.push(b'A');
            put_count(bytes, items.len());
            for item in items {
                put(bytes, item);
            }
            bytes.extend([b'$', 0]);
            put_count(bytes, items.len());
        }
        Value::Object(fields) => {
            bytes.push(b'o');
            for (name, field) in fields {
                put_name(bytes, name);
                put(bytes, field);
            }
            bytes.push(b'{');
            put_count(bytes, fields.len());
        }
    }
}

/// V8 keeps names that are array indices as numbers, and reads such texts as well.
fn put_name(bytes: &mut Vec<u8>, name: &str) {
    put_text(bytes, name);
}

fn put_number(bytes: &mut Vec<u8>, number: &Number) {
    let small = number
        .as_i64()
        .and_then(|number| i32::try_from(number).ok());
    if let Some(small) = small {
        bytes.push(b'I');
        let zigzag = (small << 1) ^ (small >> 31);
        put_varint(bytes, zigzag.cast_unsigned());
    } else {
        bytes.push(b'N');
        bytes.extend(number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    if let Some(latin) = text
        .chars()
        .map(|one| u8::try_from(one).ok())
        .collect::<Option<Vec<u8>>>()
    {
        bytes.push(b'"');
        put_count(bytes, latin.len());
        bytes.extend(latin);
        return;
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    let length = units.len() * 2;
    // The units are aligned to two bytes, counted from the header; the length's own bytes stand before them.
    let behind = bytes.len() - LENGTH_BYTES + 1 + varint_bytes(length);
    if behind % 2 == 1 {
        bytes.push(0);
    }
    bytes.push(b'c');
    put_count(bytes, length);
    bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
}

fn varint_bytes(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    put_varint(bytes, u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// The command of an internal message, its length taken off: it is the first field of all of Node's.
pub(super) fn command(bytes: &[u8]) -> Option<&[u8]> {
    let fields = bytes.get(2..)?.strip_prefix(b"o\"\x03cmd\"")?;
    // Node has none whose length takes a second byte.
    let (&length, rest) = fields.split_first()?;
    let command = rest.get(..usize::from(length))?;
    command.starts_with(b"NODE_").then_some(command)
}

/// Reads a value, its length taken off.
///
/// # Errors
/// [`WireError::Advanced`] when the bytes are damaged, or hold what JSON cannot say.
pub fn read(bytes: &[u8]) -> Result<Value, WireError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        left: MOST_VALUES,
    };
    if reader.byte()? != VERSION_TAG {
        return Err(WireError::Advanced("has no header"));
    }
    reader.varint()?;
    let value = reader.value(0)?;
    Ok(value.unwrap_or(Value::Null))
}

/// A value takes many times its bytes when it is read: a message of more values stays unread.
const MOST_VALUES: u32 = 1 << 17;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many more values there may be.
    left: u32,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, WireError> {
        let byte = self
            .bytes
            .get(self.at)
            .copied()
            .ok_or(WireError::Advanced("ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(WireError::Advanced("ends too early"))?;
        self.at += count;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u32, WireError> {
        let mut number = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(WireError::Advanced("has a number that is too long"))
    }

    fn count(&mut self) -> Result<usize, WireError> {
        usize::try_from(self.varint()?).map_err(|_| WireError::Advanced("is too long"))
    }

    fn tag(&mut self) -> Result<u8, WireError> {
        loop {
            let tag = self.byte()?;
            if tag != 0 {
                return Ok(tag);
            }
        }
    }

    /// A value; nothing for `undefined`.
    fn value(&mut self, depth: u32) -> Result<Option<Value>, WireError> {
        let tag = self.tag()?;
        self.tagged(tag, depth)
    }

    fn tagged(&mut self, tag: u8, depth: u32) -> Result<Option<Value>, WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::Deep);
        }
        let left = self.left.checked_sub(1);
        self.left = left.ok_or(WireError::Advanced("holds too many values"))?;
        Ok(Some(match tag {
            b'_' => return Ok(None),
            b'0' => Value::Null,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'I' => {
                let zigzag = self.varint()?;
                let number = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
                Value::from(number)
            }
            b'U' => Value::from(self.varint()?),
            b'N' => double(self.take(8)?),
            b'"' | b'c' | b'S' => Value::String(self.text(tag)?),
            b'o' => self.object(depth)?,
            b'A' => self.array(depth)?,
            b'a' => self.sparse_array(depth)?,
            _ => return Err(WireError::Advanced("holds what JSON cannot say")),
        }))
    }

    fn text(&mut self, tag: u8) -> Result<String, WireError> {
        let length = self.count()?;
        let bytes = self.take(length)?;
        match tag {
            b'"' => Ok(bytes.iter().copied().map(char::from).collect()),
            b'S' => std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(WireError::Text),
            _ => {
                let units = bytes
                    .chunks_exact(2)
                    .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                let text = char::decode_utf16(units).collect::<Result<String, _>>();
                text.map_err(|_| WireError::Advanced("has a text that is no UTF-16"))
            }
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value, WireError> {
        let mut fields = Map::new();
        loop {
            let tag = self.tag()?;
            if tag == b'{' {
                self.varint()?;
                return Ok(Value::Object(fields));
            }
            let name = match self.tagged(tag, depth)? {
                Some(Value::String(name)) => name,
                Some(Value::Number(index)) => index.to_string(),
                _ => return Err(WireError::Advanced("has a name that is no text")),
            };
            // As in JSON, what is undefined is not there.
            if let Some(value) = self.value(depth + 1)? {
                fields.insert(name, value);
            }
        }
    }

    fn array(&mut self, depth: u32) -> Result<Value, WireError> {
        let length = self.count()?;
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(self.value(depth + 1)?.unwrap_or(Value::Null));
        }
        if self.tag()? != b'$' || self.varint()? != 0 {
            return Err(WireError::Advanced("holds what JSON cannot say"));
        }
        self.varint()?;
        Ok(Value::Array(items))
    }
}

impl Reader<'_> {
    /// An array as V8 writes one that it has read itself: its items with their places. Holes are null, as in JSON.
    fn sparse_array(&mut self, depth: u32) -> Result<Value, WireError> {
        let length = self.varint()?;
        let left = self.left.checked_sub(length);
        self.left = left.ok_or(WireError::Advanced("holds too many values"))?;
        let mut items = vec![Value::Null; usize::try_from(length).unwrap_or(usize::MAX)];
        loop {
            let tag = self.tag()?;
            if tag == b'@' {
                self.varint()?;
                self.varint()?;
                return Ok(Value::Array(items));
            }
            let place = self.tagged(tag, depth)?;
            let place = place.as_ref().and_then(Value::as_u64);
            let place = place.and_then(|place| usize::try_from(place).ok());
            let item = place.and_then(|place| items.get_mut(place));
            let item = item.ok_or(WireError::Advanced("holds what JSON cannot say"))?;
            *item = self.value(depth + 1)?.unwrap_or(Value::Null);
        }
    }
}

/// A double; an integer where it is one, as JSON has it.
fn double(bytes: &[u8]) -> Value {
    /// Beyond it, not every integer is a double (`Number.MAX_SAFE_INTEGER`).
    const SAFE: f64 = 9_007_199_254_740_991.0;
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    let number = f64::from_le_bytes(eight);
    if number.fract() == 0.0 && number.abs() <= SAFE {
        // Exact: the text of such a number has neither point nor exponent.
        if let Ok(integer) = format!("{number:.0}").parse::<i64>() {
            return Value::from(integer);
        }
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests;
