//! The values of options and arguments, from text to what they mean.

use std::ffi::OsString;
use std::fmt;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use phalanx::fleet::{Amount, AmountError};
use phalanx::{Bind, PolicyName, Readiness, Serialization, Signal};
pub(crate) use phalanx_control::values::{
    WorkerCount, duration, positive_duration, scale_text, scale_to,
};

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

/// Reads a size in bytes: `64K`, `1.5G`, `0`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let unknown = || "use a size with its unit, such as 512K, 100M or 1.5G".to_owned();
    if text == "0" {
        return Ok(0);
    }
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(at.ok_or_else(unknown)?);
    let unit = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "K" => 1_u64 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(unknown()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| unknown())?;
    let thousandths: u64 = match part.len() {
        0 if number.ends_with('.') => return Err(unknown()),
        0 => 0,
        1..=3 => format!("{part:0<3}").parse().map_err(|_| unknown())?,
        _ => return Err("use three digits after the point at most".to_owned()),
    };
    let bytes = whole.checked_mul(unit);
    let bytes = bytes.and_then(|bytes| bytes.checked_add(thousandths * unit / 1_000));
    bytes.ok_or_else(|| "that is more than there can be".to_owned())
}

/// Reads how much output is kept in memory.
pub(crate) fn log_memory(text: &str) -> Result<usize, String> {
    const MOST: u64 = 1 << 30;
    let bytes = size(text)?;
    if bytes > MOST {
        return Err("1G is the most that is kept in memory".to_owned());
    }
    usize::try_from(bytes).map_err(|error| error.to_string())
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
        "message" | "notify" => Ok(Readiness::Notify),
        "exec" => Ok(Readiness::Exec),
        _ => match text.strip_prefix("http:") {
            Some(path) if is_path(path) => Ok(Readiness::Http(path.to_owned())),
            Some(_) | None => Err("use auto, listen, message, exec or http:/PATH".to_owned()),
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

/// The channel's serialization, as Node names it.
pub(crate) fn serialization(text: &str) -> Result<Serialization, String> {
    let named = Serialization::from_name(text).filter(|_| !text.is_empty());
    named.ok_or_else(|| "use json or advanced".to_owned())
}

/// `USER[:GROUP]`, as `User=` and `Group=` of systemd take them (`systemd.exec(5)`): names of the system or numbers.
pub(crate) fn account_name(text: &str) -> Result<String, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    let is_name = |name: &str| {
        let is_good = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
        !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(is_good)
    };
    if is_name(user) && is_name(group) {
        Ok(text.to_owned())
    } else {
        Err("use USER or USER:GROUP".to_owned())
    }
}

/// An address for systemd to listen on (`ListenStream=` of `systemd.socket(5)`).
pub(crate) fn listen_stream(text: &str) -> Result<String, String> {
    let is_port = text.parse::<u16>().is_ok_and(|port| port > 0);
    let is_address = text.parse::<std::net::SocketAddr>().is_ok();
    let is_path = text.starts_with('/') || (text.starts_with('@') && text.len() > 1);
    if (is_port || is_address || is_path) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("use a port, ADDRESS:PORT, a path or @NAME".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("512K", 512 << 10),
            ("100MB", 100 << 20),
            ("1.5GiB", 3 << 29),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "100",
            "M",
            "-1M",
            "1.M",
            "1.2345M",
            "1X",
            "99999999999T",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(log_memory("2G").is_err());
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
