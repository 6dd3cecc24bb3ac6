//! The script that Node workers run before their own (`preload/worker.cjs`), and the option that has it run. It
//! lies in the private directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use phalanx_sys::notify::{self, NotifySocket};

use crate::primary::release::metrics_directory::MetricsDirectory;
use crate::primary::release::private::Places;

const SCRIPT: &str = concat!(
    include_str!("../../preload/load.cjs"),
    include_str!("../../preload/full.cjs"),
    include_str!("../../preload/batch.cjs"),
    include_str!("../../preload/health.cjs"),
    include_str!("../../preload/app-metrics.cjs"),
    include_str!("../../preload/idle.cjs"),
    include_str!("../../preload/shed.cjs"),
    include_str!("../../preload/busy.cjs"),
    include_str!("../../preload/worker.cjs")
);

/// Has Node tell the address of an inspector that is opened at SIGUSR1 to its standard error alone, not to everybody on the machine
/// who asks. The script takes it away, as it does with its own name.
pub(in crate::primary) const PUBLISH: &str = "--inspect-publish-uid=stderr";

/// What goes in front of `NODE_OPTIONS`. The script takes exactly this away again.
pub(in crate::primary) fn option(script: &Path) -> OsString {
    let mut option = OsString::from("--require \"");
    option.push(script);
    option.push("\"");
    option
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
    /// Where the script is. None when there is no place for it: workers run without.
    pub(in crate::primary) fn preload_script(&self) -> Option<PathBuf> {
        self.locked_preload_script().map(|(script, _)| script)
    }

    /// As [`Places::preload_script`], and what keeps it there when this process is killed.
    pub(in crate::primary) fn locked_preload_script(&self) -> Option<(PathBuf, OwnedFd)> {
        match self.with(SCRIPT, |private| {
            Ok((private.script(), private.share_lock()?))
        }) {
            Ok(script) => Some(script),
            Err(error) => {
                static TOLD: OnceLock<()> = OnceLock::new();
                TOLD.get_or_init(|| {
                    tracing::warn!(%error, "no place for the script that lets Node workers drain politely");
                });
                None
            }
        }
    }

    /// A directory for the metrics of a worker that runs as this user and group.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(in crate::primary) fn metrics_directory(
        &self,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<MetricsDirectory> {
        self.with(SCRIPT, |private| private.metrics_directory(uid, gid))
    }

    /// A socket on which a worker that runs as `uid` speaks of itself: in the private directory, if there is one and its
    /// path is short enough.
    ///
    /// # Errors
    /// As bind(2).
    pub(in crate::primary) fn notify_socket(&self, uid: Option<u32>) -> io::Result<NotifySocket> {
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
}
