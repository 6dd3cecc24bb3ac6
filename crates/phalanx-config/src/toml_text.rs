//! Writing the file.

use std::fmt::Write;

/// A text as TOML writes it.
#[must_use]
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A list of texts as TOML writes it.
#[must_use]
pub fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// A name, quoted where it has to be.
#[must_use]
pub fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// Lines of comment.
#[must_use]
pub fn comment(text: &str) -> String {
    let mut comment = String::new();
    for line in text.lines() {
        // Writing to a text cannot fail. Control characters may not stand in a comment.
        let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
        writeln!(comment, "# {line}").unwrap_or_default();
    }
    comment
}
