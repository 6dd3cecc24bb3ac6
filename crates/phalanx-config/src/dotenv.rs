//! Files with environment variables: one `KEY=VALUE` a line, as `docker --env-file`, systemd's `EnvironmentFile=` and the
//! dotenv libraries have in common.

use std::path::Path;

use crate::expand::is_name;
use crate::problem::{Place, Problem};

/// The variables of a text, in its order. Empty lines and lines that start with `#` are passed over, and so is `export` in
/// front of a name. A value in quotation marks is what they enclose; `\n`, `\"` and `\\` mean something between double ones.
/// A value without them ends before ` #`.
///
/// # Errors
///
/// All lines that are none of that.
pub fn parse(file: &Path, text: &str) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        match variable(words) {
            Ok(variable) => variables.push(variable),
            Err(reason) => {
                let place = Place {
                    line: number + 1,
                    column: 1,
                };
                problems.push(Problem::new(file, place, reason));
            }
        }
    }
    if problems.is_empty() {
        Ok(variables)
    } else {
        Err(problems)
    }
}

/// What the line says is never told: it may be a secret.
fn variable(line: &str) -> Result<(String, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("this is no KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    if !is_name(key) {
        return Err("the name of the variable has other signs than letters, digits and _");
    }
    Ok((key.to_owned(), unquoted(value)?))
}

fn unquoted(value: &str) -> Result<String, &'static str> {
    let unclosed = "the quotation mark is not closed";
    if let Some(rest) = value.strip_prefix('\'') {
        let (inside, _) = rest.split_once('\'').ok_or(unclosed)?;
        return Ok(inside.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        let end = value.find(" #").unwrap_or(value.len());
        return Ok(value[..end].trim_end().to_owned());
    };
    let mut inside = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next().ok_or(unclosed)? {
            '"' => return Ok(inside),
            '\\' => match letters.next().ok_or(unclosed)? {
                'n' => inside.push('\n'),
                other @ ('"' | '\\' | '$') => inside.push(other),
                other => inside.extend(['\\', other]),
            },
            other => inside.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_variables() {
        let text = "# comment\nA=1\n\nexport B = two words # said\nC='a # b'\nD=\"x\\ny \\\"z\\\"\"\nE=\nF=a#b\n";
        let variables = parse(Path::new("x.env"), text).unwrap();
        let variables: Vec<_> = variables
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            variables,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "a # b"),
                ("D", "x\ny \"z\""),
                ("E", ""),
                ("F", "a#b")
            ]
        );
    }

    #[test]
    fn wrong_lines_are_told_all_at_once_and_never_quoted() {
        let problems = parse(
            Path::new("x.env"),
            "A=1\nhunter2\nB-C=hunter2\nD=\"hunter2\n",
        );
        let problems = problems.unwrap_err();
        let lines: Vec<_> = problems.iter().map(|problem| problem.place.line).collect();
        assert_eq!(lines, [2, 3, 4]);
        assert!(problems.iter().all(|one| !one.text.contains("hunter2")));
    }
}
