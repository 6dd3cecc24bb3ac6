//! Where a release runs Node: how its workers load the script of ours, and on which port each is inspected.
//!
//! What the words and variables mean is decided by `phalanx_core::program::node_options`; this reads the files that they name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use phalanx_core::program::node_options::{
    Inspector, NodeLine, env_files, inspector, split_variable,
};
use phalanx_core::program::{env_file, node};

use crate::settings::InspectPort;

const DEFAULT_INSPECT_PORT: u16 = 9229;

/// Options of Node under which a file of ours cannot be loaded, or has no business.
const EXCLUDING: [&str; 5] = [
    "--permission",
    "--experimental-permission",
    "--experimental-policy",
    "--snapshot-blob",
    "--build-snapshot",
];

/// How Node is told to load the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreloadBy {
    /// By `NODE_OPTIONS`.
    Variable,
    /// By its own words: a variable would hide what a file of `--env-file` says of `NODE_OPTIONS`.
    Words,
}

/// What is known of a release that runs Node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRelease {
    /// None where it cannot be loaded.
    pub(crate) preload: Option<PreloadBy>,
    inspector: Option<Inspector>,
}

impl NodeRelease {
    /// `words` are Node's, without its name; `variable` is `NODE_OPTIONS`.
    pub(crate) fn of(words: &[OsString], variable: Option<&OsStr>, directory: &Path) -> Self {
        let line = NodeLine::parse(words);
        let mut files = env_files(words).peekable();
        let has_files = files.peek().is_some();
        let variable = match variable {
            Some(text) => Some(text.to_string_lossy().into_owned()),
            // Of several files the last that sets it counts.
            None => files
                .filter_map(|file| fs::read_to_string(directory.join(file)).ok())
                .filter_map(|text| env_file::node_options(&text))
                .last(),
        };
        let by = if has_files {
            PreloadBy::Words
        } else {
            PreloadBy::Variable
        };
        let of_variable = split_variable(variable.as_deref().unwrap_or_default());
        let of_variable = NodeLine::parse(&of_variable);
        let is_loadable = !line.has(&EXCLUDING) && !of_variable.has(&EXCLUDING);
        let of_variable = inspector(&of_variable);
        let mut inspector = inspector(&line);
        if let Some(found) = &mut inspector {
            found.port = found.port.or(of_variable.and_then(|other| other.port));
        } else if let Some(mut found) = of_variable {
            found.behind = 0;
            inspector = Some(found);
        }
        Self {
            preload: is_loadable.then_some(by),
            inspector,
        }
    }

    /// The port of the worker with this number, if it is to be inspected; 0 for any. The primary of Node counts them too.
    pub(in crate::primary) fn port(&self, choice: InspectPort, number: u16) -> Option<u16> {
        let base = self.inspector?.port.unwrap_or(DEFAULT_INSPECT_PORT);
        Some(match choice {
            InspectPort::Fixed(port) => port,
            // Each worker finds a free one by itself.
            InspectPort::Counting if base == 0 => 0,
            InspectPort::Counting => base.checked_add(number).unwrap_or(1024 + number),
        })
    }

    /// The word that names the port, and behind how many of Node's words it is to stand: of several, Node obeys the last.
    pub(in crate::primary) fn inspect_word(
        &self,
        choice: InspectPort,
        number: u16,
    ) -> Option<(usize, OsString)> {
        let behind = self.inspector?.behind;
        let port = self.port(choice, number)?;
        Some((behind, format!("--inspect-port={port}").into()))
    }
}

/// Whether this executable is Node: by its name, or by that of the file to which it leads.
pub(in crate::primary) fn is_node(path: &Path) -> bool {
    let is_named = |path: &Path| path.file_name().is_some_and(node::is_node_name);
    is_named(path) || fs::canonicalize(path).is_ok_and(|real| is_named(&real))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str, variable: Option<&str>, directory: &Path) -> NodeRelease {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        NodeRelease::of(&words, variable.map(OsStr::new), directory)
    }

    #[test]
    fn a_node_that_may_not_read_the_script_is_left_alone() {
        let preload = |words, variable| of(words, variable, Path::new("/")).preload;
        assert_eq!(
            preload("--inspect s.js", Some("--no-warnings")),
            Some(PreloadBy::Variable)
        );
        assert_eq!(preload("--permission s.js", None), None);
        assert_eq!(
            preload(
                "-C x --experimental-permission --allow-fs-read * s.js",
                None
            ),
            None
        );
        assert_eq!(preload("s.js", Some("--snapshot-blob=a")), None);
        assert_eq!(
            preload("s.js --permission", None),
            Some(PreloadBy::Variable)
        );
    }

    #[test]
    fn what_a_file_of_variables_says_counts_where_nothing_else_does() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("a"), "NODE_OPTIONS=--permission\n").unwrap();
        fs::write(place.path().join("b"), "NODE_OPTIONS='--inspect=9300'\n").unwrap();
        let found = of("--env-file a --env-file=b s.js", None, place.path());
        assert_eq!(found.preload, Some(PreloadBy::Words));
        assert_eq!(found.port(InspectPort::Counting, 1), Some(9301));
        assert_eq!(of("--env-file=a s.js", None, place.path()).preload, None);
        let found = of("--env-file=a s.js", Some(""), place.path());
        assert_eq!(found.preload, Some(PreloadBy::Words));
    }

    #[test]
    fn each_worker_is_inspected_on_a_port_of_its_own() {
        let word = |words, variable| {
            let found = of(words, variable, Path::new("/"));
            let word = found.inspect_word(InspectPort::Counting, 2)?;
            Some(format!("{} {}", word.0, word.1.display()))
        };
        assert_eq!(word("s.js", None), None);
        assert_eq!(
            word("--inspect s.js", None).unwrap(),
            "1 --inspect-port=9231"
        );
        assert_eq!(
            word("--inspect=0 s.js", None).unwrap(),
            "1 --inspect-port=0"
        );
        assert_eq!(
            word("-r x --inspect-port 9400 --inspect s.js", None).unwrap(),
            "5 --inspect-port=9402"
        );
        assert_eq!(
            word("s.js", Some("--inspect=9500")).unwrap(),
            "0 --inspect-port=9502"
        );
        assert_eq!(
            word("--inspect s.js", Some("--inspect-port=9600")).unwrap(),
            "1 --inspect-port=9602"
        );
    }
}
