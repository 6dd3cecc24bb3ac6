//! The script that Node workers run before their own (`preload/worker.cjs`), and the option that has it run. It
//! lies in the private directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use phalanx_sys::notify::{self, NotifySocket};

use super::private::Places;

const SCRIPT: &str = concat!(
    include_str!("../preload/load.cjs"),
    include_str!("../preload/batch.cjs"),
    include_str!("../preload/health.cjs"),
    include_str!("../preload/idle.cjs"),
    include_str!("../preload/worker.cjs")
);

/// Options of Node under which a file of ours cannot be loaded, or has no business.
const EXCLUDING: [&str; 5] = [
    "--permission",
    "--experimental-permission",
    "--experimental-policy",
    "--snapshot-blob",
    "--build-snapshot",
];

/// Has Node tell the address of an inspector that is opened at SIGUSR1 to its standard error alone, not to everybody on the machine
/// who asks. The script takes it away, as it does with its own name.
pub(super) const PUBLISH: &str = "--inspect-publish-uid=stderr";

/// What goes in front of `NODE_OPTIONS`. The script takes exactly this away again.
fn option(script: &Path) -> OsString {
    let mut option = OsString::from("--require \"");
    option.push(script);
    option.push("\"");
    option
}

/// Whether Node with these options and variables can load it.
pub(crate) fn is_loadable<'a>(
    mut options: impl Iterator<Item = &'a OsStr>,
    node_options: Option<&OsStr>,
) -> bool {
    let excludes = |option: &str| {
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        EXCLUDING.contains(&name)
    };
    let in_variable = node_options.is_some_and(|text| {
        let text = text.to_string_lossy();
        text.split_whitespace().any(excludes)
    });
    !in_variable && !options.any(|option| option.to_str().is_some_and(excludes))
}

/// `NODE_OPTIONS` with the script in front of what the user has set, and [`PUBLISH`] in front of it.
pub(crate) fn node_options(option: &OsStr, own: Option<&OsStr>, publish: bool) -> OsString {
    let mut options = OsString::new();
    if publish {
        options.push(PUBLISH);
        options.push(" ");
    }
    options.push(option);
    if let Some(own) = own {
        options.push(" ");
        options.push(own);
    }
    options
}

impl Places {
    /// The option that loads the script. None when there is no place for it: workers run without.
    pub(super) fn preload_option(&self) -> Option<OsString> {
        match self.with(SCRIPT, |private| Ok(option(&private.script()))) {
            Ok(option) => Some(option),
            Err(error) => {
                static TOLD: OnceLock<()> = OnceLock::new();
                TOLD.get_or_init(|| {
                    tracing::warn!(%error, "no place for the script that lets Node workers drain politely");
                });
                None
            }
        }
    }

    /// A socket on which a worker that runs as `uid` speaks of itself: in the private directory, if there is one and its
    /// path is short enough.
    ///
    /// # Errors
    /// As bind(2).
    pub(super) fn notify_socket(&self, uid: Option<u32>) -> io::Result<NotifySocket> {
        let placed = self.with(SCRIPT, |private| private.notify_socket(uid));
        placed.or_else(|error| {
            tracing::debug!(%error, "a notify socket has no place among files");
            notify::bind()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_has_set_stays_behind_the_script() {
        let options = node_options(
            OsStr::new("--require \"/x\""),
            Some(OsStr::new("--no-warnings")),
            false,
        );
        assert_eq!(options, "--require \"/x\" --no-warnings");
        let options = node_options(OsStr::new("a"), None, true);
        assert_eq!(options, format!("{PUBLISH} a").as_str());
    }

    #[test]
    fn a_node_that_may_not_read_it_is_left_alone() {
        let loadable = |options: &[&str], variable: Option<&str>| {
            is_loadable(options.iter().map(OsStr::new), variable.map(OsStr::new))
        };
        assert!(loadable(&["--inspect"], Some("--no-warnings")));
        assert!(!loadable(&["--permission"], None));
        assert!(!loadable(&[], Some("--snapshot-blob=a")));
    }
}
