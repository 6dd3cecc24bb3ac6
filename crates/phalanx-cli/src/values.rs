//! The values of options and arguments, from text to what they mean.

use std::ffi::OsString;
use std::fmt;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use phalanx::fleet::{Amount, AmountError, MAX_WORKERS, ScaleTo};
use phalanx::{Bind, PolicyName, Readiness, Signal};

/// How many workers to start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerCount {
    /// One for each processor that this process may use.
    Auto,
    /// So many.
    Exactly(u32),
}

impl FromStr for WorkerCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count @ 1..=MAX_WORKERS) => Ok(Self::Exactly(count)),
            Ok(_) | Err(_) => Err(format!("use a number from 1 to {MAX_WORKERS}, or auto")),
        }
    }
}

/// A variable of the environment. Its value is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) key: OsString,
    pub(crate) value: OsString,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Reads `KEY=VALUE`, in whatever encoding.
pub(crate) fn variable() -> impl TypedValueParser<Value = Variable> {
    OsStringValueParser::new().try_map(|text| {
        let bytes = text.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            None | Some(0) => Err("use KEY=VALUE".to_owned()),
            Some(at) => Ok(Variable {
                key: OsString::from_vec(bytes[..at].to_vec()),
                value: OsString::from_vec(bytes[at + 1..].to_vec()),
            }),
        }
    })
}

/// Reads the name or the alias of a policy, and lists all in help and completions.
pub(crate) fn policy() -> impl TypedValueParser<Value = PolicyName> {
    let value = |policy: PolicyName| PossibleValue::new(policy.as_str()).alias(policy.alias());
    let values: Vec<_> = PolicyName::ALL.into_iter().map(value).collect();
    PossibleValuesParser::new(values).try_map(|text| text.parse::<PolicyName>())
}

/// Reads `500ms`, `30s`, `2m` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unknown = || "use a number and a unit: 500ms, 30s, 2m, 1h".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| unknown())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(unknown()),
    };
    let year = 366 * 24 * 3_600_000;
    let millis = millis.filter(|millis| *millis <= year);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "that is longer than a year".to_owned())
}

/// As [`duration`], but not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err("it must be more than zero".to_owned());
    }
    Ok(duration)
}

/// Reads `N` or `N%`, but not nought.
pub(crate) fn some_workers(text: &str) -> Result<Amount, String> {
    let amount: Amount = text
        .parse()
        .map_err(|error: AmountError| error.to_string())?;
    if amount.is_zero() {
        return Err("it must be more than zero".to_owned());
    }
    Ok(amount)
}

/// Reads `N`, `+N` or `-N`.
pub(crate) fn scale_to(text: &str) -> Result<ScaleTo, String> {
    let (wanted, digits): (fn(u32) -> ScaleTo, &str) = match text.as_bytes().first() {
        Some(b'+') => (ScaleTo::Up, &text[1..]),
        Some(b'-') => (ScaleTo::Down, &text[1..]),
        Some(_) | None => (ScaleTo::Exactly, text),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(count @ 0..=MAX_WORKERS) if is_number => Ok(wanted(count)),
        Ok(_) | Err(_) => Err(format!(
            "use the number of workers, from 0 to {MAX_WORKERS}, or how many more or fewer: 4, +1, -1"
        )),
    }
}

/// Writes what [`scale_to`] reads.
pub(crate) fn scale_text(to: ScaleTo) -> String {
    match to {
        ScaleTo::Exactly(count) => count.to_string(),
        ScaleTo::Up(count) => format!("+{count}"),
        ScaleTo::Down(count) => format!("-{count}"),
    }
}

/// So many workers, in words.
pub(crate) fn counted(workers: impl Into<u64>) -> String {
    let workers = workers.into();
    let plural = if workers == 1 { "" } else { "s" };
    format!("{workers} worker{plural}")
}

/// Reads a signal that a program can act on: those that end or stop it without a word are none.
pub(crate) fn signal(text: &str) -> Result<Signal, String> {
    match text.parse::<Signal>() {
        Ok(Signal::KILL | Signal::STOP) => {
            Err("a program cannot act on it: use a signal such as TERM, QUIT or INT".to_owned())
        }
        Ok(signal) => Ok(signal),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a listener. A host's name is looked up; the first address counts.
pub(crate) fn bind(text: &str) -> Result<Bind, String> {
    let refused = |error: &dyn fmt::Display| error.to_string();
    let error = match text.parse::<Bind>() {
        Ok(bind) => return Ok(bind),
        Err(error) => error,
    };
    let (name, host) = text.split_once('=').unwrap_or(("", text));
    let found = host.to_socket_addrs().ok().and_then(|mut all| all.next());
    let found = found.filter(|_| host.starts_with(|first: char| first.is_ascii_alphabetic()));
    let address = found.ok_or_else(|| refused(&error))?;
    let name = if name.is_empty() {
        ""
    } else {
        &text[..=name.len()]
    };
    format!("{name}{address}")
        .parse()
        .map_err(|error| refused(&error))
}

/// Reads what proves readiness.
pub(crate) fn readiness(text: &str) -> Result<Readiness, String> {
    match text {
        "auto" => Ok(Readiness::Auto),
        "listen" => Ok(Readiness::Listen),
        "notify" => Ok(Readiness::Notify),
        "exec" => Ok(Readiness::Exec),
        _ => match text.strip_prefix("http:") {
            Some(path) if is_path(path) => Ok(Readiness::Http(path.to_owned())),
            Some(_) | None => Err("use auto, listen, notify, exec or http:/PATH".to_owned()),
        },
    }
}

/// Can it stand in the first line of a request?
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads a JSON value.
pub(crate) fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("not JSON ({error}); quote it for the shell: '{{\"greet\":\"all\"}}'")
    })
}

/// The channel's serialization: `json`. Node's `advanced` is V8's own format, of which there is no
/// stable description.
pub(crate) fn serialization(text: &str) -> Result<String, String> {
    match text {
        "json" => Ok(text.to_owned()),
        "advanced" => Err(ADVANCED_REFUSED.to_owned()),
        _ => Err("use json".to_owned()),
    }
}

/// Why `advanced` is refused.
pub(crate) const ADVANCED_REFUSED: &str =
    "phalanx speaks JSON with its workers: serialization 'advanced' is not supported";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "3d",
            "99999999999999999999s",
            "9999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0ms").is_err());
    }

    #[test]
    fn scales_are_absolute_or_relative() {
        assert_eq!(scale_to("4"), Ok(ScaleTo::Exactly(4)));
        assert_eq!(scale_to("+2"), Ok(ScaleTo::Up(2)));
        assert_eq!(scale_to("-1"), Ok(ScaleTo::Down(1)));
        for text in ["", "+", "-", "++1", "1.5", "4097", "many", "+-1"] {
            assert!(scale_to(text).is_err(), "{text}");
        }
        for text in ["4", "+2", "-1"] {
            assert_eq!(scale_text(scale_to(text).unwrap()), text);
        }
    }

    #[test]
    fn worker_counts_are_positive_or_auto() {
        assert_eq!("auto".parse(), Ok(WorkerCount::Auto));
        assert_eq!("12".parse(), Ok(WorkerCount::Exactly(12)));
        for text in ["0", "-1", "4097", "max", ""] {
            assert!(text.parse::<WorkerCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_does_not_show_its_value() {
        let variable = Variable {
            key: "TOKEN".into(),
            value: "hunter2".into(),
        };
        let shown = format!("{variable:?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
