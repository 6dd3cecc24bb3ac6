//! Values that configuration written in Python or Ruby has in the common form. Nothing is executed.

/// A value that can be read without running anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Number(String),
    Yes(bool),
    None,
    List(Vec<String>),
    /// A variable of the environment, with its default.
    Variable(String, Option<String>),
    /// As many as there are processors, more or less.
    Processors,
}

impl Literal {
    /// The literal that is written so; None: it is something else, that would have to be run.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.contains("cpu_count")
            || text.contains("nprocessors")
            || text.contains("processor_count")
        {
            return Some(Self::Processors);
        }
        match text {
            "True" | "true" => return Some(Self::Yes(true)),
            "False" | "false" => return Some(Self::Yes(false)),
            "None" | "nil" => return Some(Self::None),
            ":auto" => return Some(Self::Processors),
            _ => {}
        }
        if let Some(inside) = enclosed(text, '[', ']').or_else(|| enclosed(text, '(', ')')) {
            let parts = inside
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            let texts = parts.map(|part| match Self::parse(part) {
                Some(Self::Text(text) | Self::Number(text)) => Some(text),
                _ => None,
            });
            return texts.collect::<Option<Vec<_>>>().map(Self::List);
        }
        if let Some(text) = quoted(text) {
            return Some(Self::Text(text.to_owned()));
        }
        let is_number = !text.is_empty()
            && text
                .chars()
                .all(|one| one.is_ascii_digit() || "._".contains(one));
        if is_number {
            return Some(Self::Number(text.replace('_', "")));
        }
        let symbol = text
            .strip_prefix(':')
            .filter(|name| crate::expand::is_name(name));
        symbol
            .map(|name| Self::Text(name.to_owned()))
            .or_else(|| variable(text))
    }

    /// As a text of our file; None: it is no single value.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(super::literally(text)),
            Self::Number(number) => Some(number.clone()),
            Self::Variable(name, None) => Some(format!("${{{name}}}")),
            Self::Variable(name, Some(default)) => Some(format!("${{{name}:-{default}}}")),
            Self::Yes(_) | Self::None | Self::List(_) | Self::Processors => None,
        }
    }

    /// As texts of our file.
    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            Self::List(texts) => texts.iter().map(|text| super::literally(text)).collect(),
            Self::Text(_)
            | Self::Number(_)
            | Self::Yes(_)
            | Self::None
            | Self::Variable(..)
            | Self::Processors => self.text().into_iter().collect(),
        }
    }
}

fn enclosed(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}

fn quoted(text: &str) -> Option<&str> {
    for mark in ['"', '\''] {
        let inside = text
            .strip_prefix(mark)
            .and_then(|rest| rest.strip_suffix(mark));
        if let Some(inside) = inside.filter(|inside| !inside.contains([mark, '\\', '#'])) {
            return Some(inside);
        }
    }
    None
}

/// `os.environ.get("A", "b")`, `os.getenv("A")`, `os.environ["A"]`, `ENV["A"]`, `ENV.fetch("A") { b }`, `ENV.fetch("A", b)`,
/// and any of them within `int(…)`, `str(…)` or `Integer(…)`.
fn variable(text: &str) -> Option<Literal> {
    for wrapper in ["int(", "str(", "Integer("] {
        if let Some(inside) = text
            .strip_prefix(wrapper)
            .and_then(|rest| rest.strip_suffix(')'))
        {
            return variable(inside.trim());
        }
    }
    let text = text.strip_suffix(".to_i").unwrap_or(text);
    let heads = [
        "os.environ.get(",
        "os.getenv(",
        "os.environ[",
        "ENV.fetch(",
        "ENV[",
    ];
    let rest = heads.iter().find_map(|head| text.strip_prefix(head))?;
    let (inside, after) = rest.split_once([')', ']'])?;
    let mut parts = inside.splitn(2, ',').map(str::trim);
    let name = quoted(parts.next()?)?;
    let after = after.trim().trim_start_matches("||").trim();
    let default = parts
        .next()
        .or_else(|| enclosed(after, '{', '}').map(str::trim));
    let default = default.or(Some(after).filter(|after| !after.is_empty()));
    let default = match default.map(Literal::parse) {
        None => None,
        Some(Some(Literal::Text(text) | Literal::Number(text))) if !text.contains('}') => {
            Some(text)
        }
        Some(_) => return None,
    };
    crate::expand::is_name(name).then(|| Literal::Variable(name.to_owned(), default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_everything_else_is_left_alone() {
        let variable = |name: &str, default: Option<&str>| {
            Some(Literal::Variable(
                name.to_owned(),
                default.map(str::to_owned),
            ))
        };
        for (text, literal) in [
            ("\"a:b\"", Some(Literal::Text("a:b".to_owned()))),
            ("'x'", Some(Literal::Text("x".to_owned()))),
            ("30", Some(Literal::Number("30".to_owned()))),
            ("True", Some(Literal::Yes(true))),
            (
                "['a', \"b\"]",
                Some(Literal::List(vec!["a".to_owned(), "b".to_owned()])),
            ),
            (
                "multiprocessing.cpu_count() * 2 + 1",
                Some(Literal::Processors),
            ),
            (
                "os.environ.get(\"PORT\", \"8000\")",
                variable("PORT", Some("8000")),
            ),
            ("int(os.getenv('N', 2))", variable("N", Some("2"))),
            (
                "ENV.fetch(\"WEB_CONCURRENCY\") { 2 }",
                variable("WEB_CONCURRENCY", Some("2")),
            ),
            ("ENV['PORT'] || 3000", variable("PORT", Some("3000"))),
            ("ENV['PORT']", variable("PORT", None)),
            ("compute()", None),
            ("f\"{x}\"", None),
            ("", None),
        ] {
            assert_eq!(Literal::parse(text), literal, "{text}");
        }
    }
}
