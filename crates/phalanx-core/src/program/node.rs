//! Which executables are Node.

use std::ffi::OsStr;

/// Whether an executable of this file name is Node: `node`, `nodejs`, and both with a version (`node24`, `node-20`, `node22.4`).
#[must_use]
pub fn is_node_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let name = name.strip_suffix(".exe").unwrap_or(name);
    let Some(rest) = name.strip_prefix("node") else {
        return false;
    };
    let rest = rest.strip_prefix("js").unwrap_or(rest);
    let version = rest.strip_prefix(['-', '_']).unwrap_or(rest);
    let version = version.strip_prefix('v').unwrap_or(version);
    if version.is_empty() {
        return rest.is_empty();
    }
    version.starts_with(|letter: char| letter.is_ascii_digit())
        && version
            .chars()
            .all(|letter| letter.is_ascii_digit() || letter == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_has_several_names() {
        for name in [
            "node",
            "nodejs",
            "node24",
            "node-20",
            "node22.4.1",
            "nodejs-v18",
        ] {
            assert!(is_node_name(OsStr::new(name)), "{name}");
        }
        for name in [
            "", "nodemon", "node-gyp", "node-", "nod", "deno", "node.sh", "bnode",
        ] {
            assert!(!is_node_name(OsStr::new(name)), "{name}");
        }
    }
}
