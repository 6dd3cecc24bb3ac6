//! Commands that say in words that others are to be executed: the first line of a script, `env`, a shell's `-c`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Both sides of the first `separator` in a word.
#[must_use]
pub fn split_once(word: &OsStr, separator: u8) -> Option<(&OsStr, &OsStr)> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((
        OsStr::from_bytes(&bytes[..at]),
        OsStr::from_bytes(&bytes[at + 1..]),
    ))
}

/// A command that is executed with nothing between: variables to be set first, and its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// Names and values.
    pub variables: Vec<(OsString, OsString)>,
    /// The program and its arguments; at least one word.
    pub words: Vec<OsString>,
}

impl Command {
    /// Words that begin with assignments. None if nothing else is there.
    #[must_use]
    pub fn assigned(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut command = Self::default();
        for word in words {
            match assignment(&word).filter(|_| command.words.is_empty()) {
                Some(variable) => command.variables.push(variable),
                None => command.words.push(word),
            }
        }
        (!command.words.is_empty()).then_some(command)
    }
}

/// `NAME=value`.
fn assignment(word: &OsStr) -> Option<(OsString, OsString)> {
    let (name, value) = split_once(word, b'=')?;
    let bytes = name.as_bytes();
    let is_name = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && bytes.first().is_some_and(|byte| !byte.is_ascii_digit());
    is_name.then(|| (name.to_owned(), value.to_owned()))
}

/// The interpreter that the first line of a script names, and the one argument that the kernel gives it (execve(2)). `header` is the
/// beginning of the file.
#[must_use]
pub fn interpreter(header: &[u8]) -> Option<(OsString, Option<OsString>)> {
    let line = header
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = line.trim_ascii();
    let end = line
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .unwrap_or(line.len());
    let (name, argument) = line.split_at(end);
    let argument = argument.trim_ascii();
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    (!name.is_empty()).then(|| (owned(name), (!argument.is_empty()).then(|| owned(argument))))
}

/// What `env` with these arguments executes. None where it changes more than variables, or the words are not understood.
#[must_use]
pub fn of_env(args: &[OsString]) -> Option<Command> {
    let (first, rest) = args.split_first()?;
    let text = first.to_str().unwrap_or_default();
    let joined = text
        .strip_prefix("--split-string=")
        .or_else(|| text.strip_prefix("-S"));
    let Some(joined) = joined else {
        return (!text.starts_with('-'))
            .then(|| Command::assigned(args.iter().cloned()))
            .flatten();
    };
    // `-S words`, in one argument or in two.
    let (joined, rest) = if joined.is_empty() {
        (rest.first()?.to_str()?, rest.get(1..)?)
    } else {
        (joined, rest)
    };
    let words = shell_words(joined)?.into_iter().map(OsString::from);
    Command::assigned(words.chain(rest.iter().cloned()))
}

/// What a shell executes that is told to run this one line (`sh -c LINE`). None unless that is one simple command of plain words: no
/// expansion, no redirection, no second command, nothing that the shell does itself.
#[must_use]
pub fn of_shell(line: &str) -> Option<Command> {
    let words = shell_words(line)?.into_iter().map(OsString::from);
    let mut command = Command::assigned(words)?;
    if command.words.first().is_some_and(|word| word == "exec") {
        command.words.remove(0);
    }
    let first = command.words.first()?;
    let own = [
        ".", ":", "[", "alias", "bg", "break", "case", "cd", "command", "continue", "eval", "exit",
        "export", "fg", "for", "if", "read", "readonly", "return", "set", "shift", "source",
        "test", "time", "times", "trap", "type", "ulimit", "umask", "unset", "until", "wait",
        "while", "!", "{", "exec", "function", "local", "select", "echo", "printf", "true",
        "false", "builtin",
    ];
    (!own.iter().any(|word| first == word) && !first.as_bytes().starts_with(b"-"))
        .then_some(command)
}

/// A line in two: what a shell runs before its last command and only goes on if it succeeds (`build && serve`), and that command.
///
/// The first part may be anything; without one, or where the parts cannot be told apart, the whole line is the last command.
#[must_use]
pub fn last_command(line: &str) -> (Option<&str>, &str) {
    let Some((before, last)) = line.rsplit_once("&&") else {
        return (None, line);
    };
    let is_whole = |text: &str| {
        let count = |letter| text.chars().filter(|one| *one == letter).count();
        ['\'', '"', '`'].iter().all(|quote| count(*quote) % 2 == 0)
            && count('(') == count(')')
            && count('{') == count('}')
            && !text.contains("<<")
    };
    if is_whole(before) && is_whole(last) {
        (Some(before.trim()), last.trim())
    } else {
        (None, line)
    }
}

/// The words of a line with quotes. None where a shell would do more than take it apart.
fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.trim().chars();
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
                        '\\' => match letters.next()? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        '$' | '`' => return None,
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            '$' | '`' | '|' | '&' | ';' | '<' | '>' | '(' | ')' | '*' | '?' | '[' | '\n' | '{' => {
                return None;
            }
            '#' | '~' if word.is_none() => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(command: Option<Command>) -> Option<String> {
        command.map(|command| {
            let variables = command.variables.iter();
            let variables =
                variables.map(|(name, value)| format!("{}={}", name.display(), value.display()));
            let words = command.words.iter().map(|word| word.display().to_string());
            variables.chain(words).collect::<Vec<_>>().join("|")
        })
    }

    #[test]
    fn a_first_line_names_an_interpreter_and_one_argument() {
        let parts = |header: &str| {
            interpreter(header.as_bytes()).map(|(name, argument)| {
                let argument = argument.unwrap_or_default();
                format!("{}|{}", name.display(), argument.display())
            })
        };
        assert_eq!(
            parts("#!/usr/bin/env node\nx"),
            Some("/usr/bin/env|node".into())
        );
        assert_eq!(parts("#! /bin/sh"), Some("/bin/sh|".into()));
        assert_eq!(
            parts("#!/usr/bin/env -S node --x y\n"),
            Some("/usr/bin/env|-S node --x y".into())
        );
        assert_eq!(parts("node"), None);
        assert_eq!(parts("#!\n"), None);
    }

    #[test]
    fn env_sets_variables_and_executes_the_rest() {
        let of = |line: &str| {
            plain(of_env(
                &line.split('|').map(OsString::from).collect::<Vec<_>>(),
            ))
        };
        assert_eq!(of("node|a.js"), Some("node|a.js".into()));
        assert_eq!(of("A=1|B=2|node|C=3"), Some("A=1|B=2|node|C=3".into()));
        assert_eq!(
            of("-S node --x 'a b'|s.js"),
            Some("node|--x|a b|s.js".into())
        );
        assert_eq!(of("-S|node --x|s.js"), Some("node|--x|s.js".into()));
        assert_eq!(of("-i|node"), None);
        assert_eq!(of("A=1"), None);
    }

    #[test]
    fn the_last_of_several_commands_is_told_apart() {
        assert_eq!(last_command("node a.js"), (None, "node a.js"));
        assert_eq!(
            last_command("cd dist && tsc && node a.js"),
            (Some("cd dist && tsc"), "node a.js")
        );
        for line in ["sh -c 'a && b'", "(a && b)"] {
            assert_eq!(last_command(line), (None, line));
        }
    }

    #[test]
    fn a_shell_that_only_executes_is_seen_through() {
        let of = |line| plain(of_shell(line));
        assert_eq!(of("exec node server.js"), Some("node|server.js".into()));
        assert_eq!(of("node server.js"), Some("node|server.js".into()));
        assert_eq!(
            of("A='x y' exec node \"a b.js\" c\\ d"),
            Some("A=x y|node|a b.js|c d".into())
        );
        for line in [
            "node a.js; true",
            "a && node b.js",
            "node $FILE",
            "node a.js > log",
            "cd x",
            "node *.js",
            "node \"$A\"",
            "node 'open",
            "A=1",
            "",
            "~/bin/x",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
