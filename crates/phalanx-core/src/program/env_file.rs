//! What a file of `--env-file` says of `NODE_OPTIONS`.

/// The last value of `NODE_OPTIONS` in the text of such a file, by Node's rules: `KEY=value` a line, `export ` before it, quotes of
/// three kinds around it, `#` begins a comment outside of them.
///
/// A value of several lines is not read: options have no use for one.
#[must_use]
pub fn node_options(text: &str) -> Option<String> {
    text.lines().rev().find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = line.split_once('=')?;
        (key.trim() == "NODE_OPTIONS").then(|| unquoted(value.trim()).to_owned())
    })
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\'', '`'] {
        if let Some((inner, _)) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.split_once(quote))
        {
            return inner;
        }
    }
    value.split('#').next().unwrap_or(value).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_sets_it_counts() {
        for (text, options) in [
            ("A=1\nNODE_OPTIONS=--inspect # on\n", Some("--inspect")),
            ("export NODE_OPTIONS = '--a --b=#1' # x", Some("--a --b=#1")),
            ("NODE_OPTIONS=a\nNODE_OPTIONS=\"b\"\n", Some("b")),
            ("# NODE_OPTIONS=a\nMY_NODE_OPTIONS=b", None),
            ("NODE_OPTIONS=", Some("")),
        ] {
            assert_eq!(node_options(text).as_deref(), options, "{text}");
        }
    }
}
