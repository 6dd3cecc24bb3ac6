//! The script that Node workers run before their own (`preload/worker.cjs`), as a file that they can read.
//!
//! It lies in a directory of its own, which only this user can write to and everybody can read: a worker
//! may run as another user. The directory is removed when the cluster ends. Until then the script is locked:
//! what nobody has locked was left by a primary that was killed. Its pid would not tell: a primary in another
//! container may share the place, and does not see this one's processes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use phalanx_sys::lock::FileLock;

use super::hub::Hub;

const SCRIPT: &str = concat!(
    include_str!("../preload/load.cjs"),
    include_str!("../preload/batch.cjs"),
    include_str!("../preload/health.cjs"),
    include_str!("../preload/worker.cjs")
);
const NAME: &str = "worker.cjs";

/// Options of Node under which a file of ours cannot be loaded, or has no business.
const EXCLUDING: [&str; 5] = [
    "--permission",
    "--experimental-permission",
    "--experimental-policy",
    "--snapshot-blob",
    "--build-snapshot",
];

/// The script in its place.
#[derive(Debug)]
pub(super) struct Preload {
    directory: PathBuf,
    lock: Option<FileLock>,
}

impl Preload {
    fn place() -> io::Result<Self> {
        let mut fault = io::Error::from(io::ErrorKind::NotFound);
        for base in bases() {
            match Self::place_in(&base) {
                Ok(placed) => return Ok(placed),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    fn place_in(base: &Path) -> io::Result<Self> {
        static PLACED: AtomicU32 = AtomicU32::new(0);
        // Node names the script by its real path; what it is started with must be the same.
        let base = fs::canonicalize(base)?;
        let mut bytes = base.as_os_str().as_encoded_bytes().iter().copied();
        if bytes.any(needs_quotes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sweep(&base);
        let number = PLACED.fetch_add(1, Ordering::Relaxed);
        let started = fs::metadata("/proc/self")?;
        let stamp = started.ctime_nsec();
        let name = format!("phalanx-{}-{number}-{stamp}", std::process::id());
        let directory = base.join(&name);
        // Nobody sweeps it under its first name, before it is locked.
        let unlocked = base.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&unlocked)?;
        let mut placed = Self {
            directory: unlocked,
            lock: None,
        };
        placed.lock = FileLock::try_exclusive(&placed.path())?;
        placed.write()?;
        fs::set_permissions(&placed.directory, Permissions::from_mode(0o711))?;
        fs::rename(&placed.directory, &directory)?;
        placed.directory = directory;
        Ok(placed)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    fn write(&self) -> io::Result<()> {
        fs::write(self.path(), SCRIPT)?;
        fs::set_permissions(self.path(), Permissions::from_mode(0o644))
    }

    /// What goes in front of `NODE_OPTIONS`. The script takes exactly this away again.
    fn option(&self) -> OsString {
        let mut option = OsString::from("--require \"");
        option.push(self.path());
        option.push("\"");
        option
    }

    /// Directories for temporary files are swept, on some machines.
    fn is_there(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|found| found.len() == SCRIPT.len() as u64)
    }
}

impl Drop for Preload {
    fn drop(&mut self) {
        // What is swept already need not be removed.
        drop(fs::remove_file(self.path()));
        drop(fs::remove_dir(&self.directory));
    }
}

/// Removes what primaries of this user have left behind that were killed.
fn sweep(base: &Path) {
    let own = phalanx_sys::identity::effective_uid();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_named_so = entry.file_name().to_str().is_some_and(is_name);
        let is_ours = || {
            let found = entry.metadata();
            found.is_ok_and(|found| found.is_dir() && found.uid() == own)
        };
        if !is_named_so || !is_ours() {
            continue;
        }
        let script = entry.path().join(NAME);
        if let Ok(Some(_lock)) = FileLock::try_exclusive(&script) {
            drop(fs::remove_file(script));
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// Whether such a directory is called so: `phalanx-PID-NUMBER-STAMP`.
fn is_name(name: &str) -> bool {
    let Some(numbers) = name.strip_prefix("phalanx-") else {
        return false;
    };
    let numbers: Option<Vec<u32>> = numbers
        .split('-')
        .map(|number| number.parse().ok())
        .collect();
    numbers.is_some_and(|numbers| numbers.len() == 3)
}

fn needs_quotes(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\') || byte.is_ascii_control() || !byte.is_ascii()
}

/// Where to put it, the better places first: those that are not swept.
fn bases() -> impl Iterator<Item = PathBuf> {
    let is_root = phalanx_sys::identity::is_root();
    let system = is_root.then(|| PathBuf::from("/run"));
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // Root's own directory is closed to the user that root's workers run as.
    let own = own.filter(|path| path.is_absolute() && !is_root);
    own.into_iter().chain(system).chain([std::env::temp_dir()])
}

/// Whether Node with these options and variables can load it.
pub(super) fn is_loadable<'a>(
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

/// `NODE_OPTIONS` with the script in front of what the user has set.
pub(super) fn node_options(option: &OsStr, own: Option<&OsStr>) -> OsString {
    let mut options = option.to_owned();
    if let Some(own) = own {
        options.push(" ");
        options.push(own);
    }
    options
}

impl Hub {
    /// The option that loads the script. None when there is no place for it: workers run without.
    pub(super) fn preload_option(&mut self) -> Option<OsString> {
        if self
            .preload
            .as_ref()
            .is_none_or(|placed| !placed.is_there())
        {
            self.preload = match Preload::place() {
                Ok(placed) => Some(placed),
                Err(error) => {
                    static TOLD: OnceLock<()> = OnceLock::new();
                    TOLD.get_or_init(|| {
                        tracing::warn!(%error, "no place for the script that lets Node workers drain politely");
                    });
                    None
                }
            };
        }
        self.preload.as_ref().map(Preload::option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_readable_for_everybody_and_gone_at_the_end() {
        let base = tempfile::tempdir().unwrap();
        let placed = Preload::place_in(base.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&placed.directory), 0o711);
        assert_eq!(mode(&placed.path()), 0o644);
        assert!(placed.is_there());
        drop(placed);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_primary_left_is_swept_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let left = directory("phalanx-1-0-77");
        fs::write(left.join(NAME), "").unwrap();
        // No process has this number here, as if its primary were in another container.
        let locked = directory("phalanx-4194999-0-77");
        let lock = FileLock::try_exclusive(&locked.join(NAME)).unwrap();
        assert!(lock.is_some());
        let others = ["phalanx-4194999", "phalanx-1-0-7-7", "phalanx-1-a-7"].map(directory);
        let placed = Preload::place_in(base.path()).unwrap();
        sweep(base.path());
        assert!(!left.exists() && locked.exists() && placed.is_there());
        assert!(others.iter().all(|path| path.exists()));
        drop(lock);
        sweep(base.path());
        assert!(!locked.exists() && placed.is_there());
    }

    #[test]
    fn what_the_user_has_set_stays_behind_the_script() {
        let options = node_options(
            OsStr::new("--require \"/x\""),
            Some(OsStr::new("--no-warnings")),
        );
        assert_eq!(options, "--require \"/x\" --no-warnings");
        assert_eq!(node_options(OsStr::new("a"), None), "a");
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
