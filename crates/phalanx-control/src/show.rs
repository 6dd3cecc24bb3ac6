//! Makes what other processes chose fit to be shown: control characters, which could steer a terminal or
//! begin a line of their own, are escaped.

use std::borrow::Cow;

/// The text in one line, without control characters: `\\u{1b}`, `\\n`.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        push(&mut shown, letter);
    }
    Cow::Owned(shown)
}

/// The same for text of several lines; each is a line that was meant.
#[must_use]
pub fn lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// As [`plain`], but colours and tabs stay, and end with the text.
#[must_use]
pub fn with_colours(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut is_coloured = false;
    while let Some(letter) = rest.chars().next() {
        if let Some(length) = colour(rest) {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            is_coloured = true;
            continue;
        }
        if letter == '\t' {
            shown.push(letter);
        } else {
            push(&mut shown, letter);
        }
        rest = &rest[letter.len_utf8()..];
    }
    if is_coloured {
        shown.push_str("\u{1b}[0m");
    }
    Cow::Owned(shown)
}

/// C0, DEL and C1, and what turns the direction of text around.
fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn push(shown: &mut String, letter: char) {
    match letter {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        letter if is_harmful(letter) => {
            shown.extend(letter.escape_unicode());
        }
        letter => shown.push(letter),
    }
}

/// The length of a sequence that sets colours (SGR, ECMA-48) at the beginning of the text.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let count = parameters
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
        .count();
    (parameters.as_bytes().get(count) == Some(&b'm')).then_some(count + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_instead() {
        assert_eq!(plain("grüße, 日本"), "grüße, 日本");
        assert_eq!(
            plain("a\u{1b}]0;x\u{7}\nb\r\t"),
            "a\\u{1b}]0;x\\u{7}\\nb\\r\\t"
        );
        assert_eq!(plain("\u{9b}2J\u{202e}"), "\\u{9b}2J\\u{202e}");
        assert_eq!(lines("a\u{7}\nb"), "a\\u{7}\nb");
    }

    #[test]
    fn colours_stay_where_they_may_and_end_with_the_text() {
        assert_eq!(with_colours("plain\ttext"), "plain\ttext");
        assert_eq!(
            with_colours("\u{1b}[1;31mred\u{1b}]0;x\u{7}\u{1b}[2J"),
            "\u{1b}[1;31mred\\u{1b}]0;x\\u{7}\\u{1b}[2J\u{1b}[0m"
        );
    }
}
