//! Who a worker is for OpenTelemetry: `service.instance.id` in `OTEL_RESOURCE_ATTRIBUTES`, by position, so that a successor goes on
//! with its predecessor's series. What the user has set stays, and comes first.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use phalanx_core::ids::Position;

const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const ATTRIBUTE: &str = "service.instance.id";

/// The variable of a worker of this app; nothing where the user names the instance, or the worker has no position yet.
pub(super) fn variable(
    app: &str,
    position: Position,
    set: &[(OsString, OsString)],
) -> Option<(OsString, OsString)> {
    if position.is_spare() {
        return None;
    }
    let mut of_app = set.iter().rev();
    let of_app = of_app.find(|(name, _)| name == VARIABLE);
    let user = of_app.map(|(_, value)| value.clone());
    let user = user.or_else(|| std::env::var_os(VARIABLE));
    let value = attributes(user.as_deref(), host(), app, position)?;
    Some((VARIABLE.into(), value))
}

fn attributes(user: Option<&OsStr>, host: &str, app: &str, position: Position) -> Option<OsString> {
    let mut value = OsString::new();
    if let Some(user) = user.filter(|user| !user.is_empty()) {
        let text = user.to_string_lossy();
        let mut names = text.split(',').map(|pair| pair.split('=').next());
        if names.any(|name| name.map(str::trim) == Some(ATTRIBUTE)) {
            return None;
        }
        value.push(user);
        value.push(",");
    }
    value.push(format!(
        "{ATTRIBUTE}={}:{}:{position}",
        plain(host),
        plain(app)
    ));
    Some(value)
}

/// Nothing that has a meaning in the variable.
fn plain(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    text.chars()
        .map(|letter| if is_plain(letter) { letter } else { '_' })
        .collect()
}

fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
        name.map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_follows_what_the_user_has_set_and_replaces_nothing() {
        let of = |user: Option<&str>| {
            let value = attributes(user.map(OsStr::new), "h", "a b", Position(3));
            value.map(|value| value.into_string().unwrap())
        };
        assert_eq!(of(None).unwrap(), "service.instance.id=h:a_b:3");
        assert_eq!(of(Some("")).unwrap(), "service.instance.id=h:a_b:3");
        assert_eq!(
            of(Some("deployment.environment=x")).unwrap(),
            "deployment.environment=x,service.instance.id=h:a_b:3"
        );
        assert_eq!(of(Some("k=v, service.instance.id=mine")), None);
    }
}
