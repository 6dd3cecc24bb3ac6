//! Command lines of files that are read by a shell elsewhere.

/// The words of a command line, if it needs no shell: quotation marks are understood, variables stay `$NAME` or `${NAME}`
/// and become `${NAME}`. None if it needs one.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => word.push(letters.next()?),
                        '$' => variable(&mut letters, word)?,
                        '`' => return None,
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            '$' => variable(&mut letters, word.get_or_insert_default())?,
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' | '*' | '?' | '#' | '~' | '{' | '}'
            | '\n' => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    // `NAME=value command` sets a variable.
    let is_assignment = words.first().is_some_and(|first| first.contains('='));
    (!is_assignment && !words.is_empty()).then_some(words)
}

/// After a `$`: a name, with or without braces. Anything else needs a shell.
fn variable(
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Option<()> {
    let is_braced = letters.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(letter) = letters.next_if(|one| one.is_ascii_alphanumeric() || *one == '_') {
        name.push(letter);
    }
    let mut default = String::new();
    if is_braced {
        loop {
            match letters.next()? {
                '}' => break,
                other => default.push(other),
            }
        }
    }
    let is_plain = default.is_empty() || default.starts_with(":-");
    if !crate::expand::is_name(&name) || !is_plain {
        return None;
    }
    word.push_str("${");
    word.push_str(&name);
    word.push_str(&default);
    word.push('}');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_command_lines_are_words_and_others_need_a_shell() {
        let some = |line: &str| words(line).unwrap();
        assert_eq!(
            some("node server.js --port $PORT"),
            ["node", "server.js", "--port", "${PORT}"]
        );
        assert_eq!(
            some(r#"a 'b c' "d $E" f\ g ${H:-1}"#),
            ["a", "b c", "d ${E}", "f g", "${H:-1}"]
        );
        for line in [
            "a && b", "a > b", "A=1 b", "a 'b", "a $(b)", "", "a ${B#c}", "a *.js",
        ] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
