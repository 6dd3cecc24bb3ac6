//! `${VAR}` in the texts of a file.

/// The text with its variables: `${VAR}` is the variable's value, `${VAR:-TEXT}` is TEXT where it is unset or empty, and
/// `$${` stands for `${`. Every other `$` is itself.
///
/// # Errors
///
/// What is wrong, in a sentence: a variable that is not set, a brace that is not closed, a name that is none.
pub fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        let after = &rest[at + 2..];
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let Some(end) = after.find('}') else {
            return Err("${ has no } after it; a ${ that is meant so is written $${".to_owned());
        };
        expanded.push_str(&value(&after[..end], variable)?);
        rest = &after[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(inside: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(format!(
            "${{{inside}}} names no variable; use ${{NAME}} or ${{NAME:-DEFAULT}}"
        ));
    }
    match (variable(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the variable {name} is not set; set it, or write ${{{name}:-DEFAULT}}"
        )),
    }
}

/// Can it be the name of a variable?
#[must_use]
pub(crate) fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.bytes().all(is_letter)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_other_dollars_stay() {
        let variable = |name: &str| match name {
            "PORT" => Some("80".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expanded) in [
            ("plain", "plain"),
            (":${PORT}", ":80"),
            ("${PORT}${PORT:-1}", "8080"),
            ("${NONE:-1}", "1"),
            ("${EMPTY:-x}${EMPTY}", "x"),
            ("a$b $PORT $${PORT}", "a$b $PORT ${PORT}"),
            ("${NONE:-}", ""),
        ] {
            assert_eq!(expand(text, &variable).as_deref(), Ok(expanded), "{text}");
        }
        for text in ["${NONE}", "${PORT", "${}", "${a b}", "${1}"] {
            assert!(expand(text, &variable).is_err(), "{text}");
        }
    }
}
