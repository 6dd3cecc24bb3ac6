//! Names of apps, and where the control socket of each one lies.
//!
//! INVARIANT: sockets lie only in directories that nobody but their owner can change; so whoever can
//! put a socket there is the user, or root.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use phalanx_sys::identity;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Names a directory for the sockets, instead of the usual places.
const DIRECTORY_VARIABLE: &str = "PHALANX_RUNTIME_DIR";
/// The length of `sun_path` less the final NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
const LONGEST_NAME: usize = 64;
/// What an app is called whose program's name has no usable letter.
const FALLBACK_NAME: &str = "app";

/// The name of an app: 1 to 64 of the letters A-Z and a-z, digits, `.`, `_` and `-`, of which the first is
/// no `.` and no `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name of an app that runs this script or program.
    #[must_use]
    pub fn of_program(program: &OsStr) -> Self {
        let stem = Path::new(program).file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy();
        let name = stem
            .chars()
            .map(|letter| if is_usable(letter) { letter } else { '-' });
        let name: String = name
            .skip_while(|letter| "-.".contains(*letter))
            .take(LONGEST_NAME)
            .collect();
        name.parse()
            .unwrap_or_else(|_| Self(FALLBACK_NAME.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_usable(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "._-".contains(letter)
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = (1..=LONGEST_NAME).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.chars().all(is_usable);
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| {
            format!("a name has 1 to {LONGEST_NAME} letters, digits, '.', '_' or '-', and starts with none of '.-'")
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What decides where sockets lie.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `PHALANX_RUNTIME_DIR`.
    chosen: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    runtime_dir: Option<PathBuf>,
    temp_dir: PathBuf,
    uid: u32,
}

impl Surroundings {
    /// As the environment of this process has it.
    #[must_use]
    pub fn here() -> Self {
        // The base directory specification of freedesktop.org: a relative path is to be ignored.
        let directory = |variable| env::var_os(variable).map(PathBuf::from);
        Self {
            chosen: directory(DIRECTORY_VARIABLE).filter(|path| !path.as_os_str().is_empty()),
            runtime_dir: directory("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()),
            temp_dir: env::temp_dir(),
            uid: identity::effective_uid(),
        }
    }

    /// Where an app that is started now has its socket.
    #[must_use]
    pub fn own_directory(&self) -> PathBuf {
        if let Some(chosen) = &self.chosen {
            chosen.clone()
        } else if let Some(runtime_dir) = &self.runtime_dir {
            runtime_dir.join("phalanx")
        } else if self.uid == 0 {
            PathBuf::from("/run/phalanx")
        } else {
            self.private_temp_directory()
        }
    }

    /// Where the apps of this user may have their sockets, whatever environment they were started in:
    /// root's shell has an `XDG_RUNTIME_DIR`, root's services have none.
    #[must_use]
    pub fn all_directories(&self) -> Vec<PathBuf> {
        let mut all = vec![self.own_directory()];
        if self.chosen.is_none() {
            all.push(PathBuf::from(format!("/run/user/{}/phalanx", self.uid)));
            if self.uid == 0 {
                all.push(PathBuf::from("/run/phalanx"));
            } else {
                all.push(self.private_temp_directory());
            }
        }
        let mut seen: Vec<PathBuf> = Vec::new();
        for directory in all {
            if !seen.contains(&directory) {
                seen.push(directory);
            }
        }
        seen
    }

    fn private_temp_directory(&self) -> PathBuf {
        self.temp_dir.join(format!("phalanx-{}", self.uid))
    }

    /// Makes the directory for an app that is started now, or checks the one that is there.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be made, or is not this user's alone.
    pub fn prepare_directory(&self) -> Outcome<PathBuf> {
        let directory = self.own_directory();
        let cannot = |cause: &dyn fmt::Display| {
            let reason = format!(
                "cannot use {} for the control socket: {cause}",
                directory.display()
            );
            Failure::new(Exit::CannotCreate, reason)
        };
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(cannot(&error));
            }
            Ok(()) | Err(_) => {}
        }
        let found = fs::symlink_metadata(&directory).map_err(|error| cannot(&error))?;
        match fault(&found, self.uid) {
            Some(fault) => Err(cannot(&fault)),
            None => Ok(directory),
        }
    }
}

/// Why this is no directory to trust.
fn fault(found: &Metadata, uid: u32) -> Option<String> {
    if !found.is_dir() {
        return Some("it is no directory".to_owned());
    }
    if found.uid() != uid {
        return Some(format!(
            "it belongs to the user with id {}, not to this one ({uid})",
            found.uid()
        ));
    }
    let mode = found.permissions().mode() & 0o7777;
    (mode & 0o022 != 0)
        .then(|| format!("others may write to it (mode {mode:04o}): chmod go-w would mend that"))
}

/// The path of an app's control socket. A path that does not fit into a socket address is refused.
///
/// # Errors
///
/// Fails if the path is too long.
pub fn socket_path(directory: &Path, name: &Name) -> Outcome<PathBuf> {
    let path = directory.join(format!("{name}.sock"));
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET_PATH {
        return Err(Failure::new(
            Exit::CannotCreate,
            format!(
                "the path of the control socket is too long ({length} bytes, {LONGEST_SOCKET_PATH} fit): {}; \
                 choose a shorter --name, or a directory by {DIRECTORY_VARIABLE}",
                path.display()
            ),
        ));
    }
    Ok(path)
}

/// The path of the file that only a running app of this name has locked.
#[must_use]
pub fn lock_path(directory: &Path, name: &Name) -> PathBuf {
    directory.join(format!("{name}.lock"))
}

/// The app whose control socket has this path.
#[must_use]
pub fn name_of_socket(path: &Path) -> Option<Name> {
    let is_socket = path.extension() == Some(OsStr::new("sock"));
    is_socket
        .then(|| path.file_stem()?.to_str()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_after_its_script() {
        for (program, name) in [
            ("server.js", "server"),
            ("./bin/www", "www"),
            ("/srv/a b/my app.mjs", "my-app"),
            ("../.hidden.js", "hidden"),
            ("", "app"),
            ("…", "app"),
        ] {
            assert_eq!(
                Name::of_program(OsStr::new(program)).as_str(),
                name,
                "{program}"
            );
        }
        let long = "x".repeat(100);
        assert_eq!(
            Name::of_program(OsStr::new(&long)).as_str().len(),
            LONGEST_NAME
        );
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for text in ["", ".", "..", "a/b", "-a", "a b", "ä", &"x".repeat(65)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        for text in ["a", "web-1", "my.app_2", &"x".repeat(64)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    fn surroundings(chosen: Option<&str>, runtime_dir: Option<&str>, uid: u32) -> Surroundings {
        Surroundings {
            chosen: chosen.map(PathBuf::from),
            runtime_dir: runtime_dir.map(PathBuf::from),
            temp_dir: PathBuf::from("/tmp"),
            uid,
        }
    }

    #[test]
    fn the_directory_is_the_users_own() {
        for (chosen, runtime_dir, uid, expected) in [
            (None, Some("/run/user/7"), 7, "/run/user/7/phalanx"),
            (None, None, 0, "/run/phalanx"),
            (None, None, 7, "/tmp/phalanx-7"),
            (Some("/srv/x"), Some("/run/user/7"), 7, "/srv/x"),
        ] {
            let here = surroundings(chosen, runtime_dir, uid);
            assert_eq!(here.own_directory(), Path::new(expected));
        }
    }

    #[test]
    fn apps_are_sought_wherever_this_user_may_have_started_them() {
        let paths = |here: Surroundings| {
            let all = here.all_directories();
            all.iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths(surroundings(None, Some("/run/user/0"), 0)),
            ["/run/user/0/phalanx", "/run/phalanx"]
        );
        assert_eq!(
            paths(surroundings(None, None, 7)),
            ["/tmp/phalanx-7", "/run/user/7/phalanx"]
        );
        assert_eq!(paths(surroundings(Some("/srv/x"), None, 7)), ["/srv/x"]);
    }

    #[test]
    fn a_directory_is_made_private_and_checked() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sockets");
        let mut here = surroundings(path.to_str(), None, identity::effective_uid());
        assert_eq!(here.prepare_directory().unwrap(), path);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(here.prepare_directory().unwrap(), path);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        let failure = here.prepare_directory().unwrap_err();
        assert_eq!(failure.exit, Exit::CannotCreate);
        assert!(failure.reason.contains("others may write"), "{failure}");

        here.uid += 1;
        let failure = here.prepare_directory().unwrap_err();
        assert!(failure.reason.contains("belongs to"), "{failure}");

        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        let here = surroundings(link.to_str(), None, identity::effective_uid());
        let failure = here.prepare_directory().unwrap_err();
        assert!(failure.reason.contains("no directory"), "{failure}");
    }

    #[test]
    fn a_path_that_fits_no_socket_address_is_refused() {
        let name: Name = "app".parse().unwrap();
        let fits = "/".to_owned() + &"d".repeat(LONGEST_SOCKET_PATH - 1 - "/app.sock".len());
        assert!(socket_path(Path::new(&fits), &name).is_ok());
        let failure = socket_path(Path::new(&(fits + "d")), &name).unwrap_err();
        assert!(failure.reason.contains("too long"), "{failure}");
    }

    #[test]
    fn a_socket_tells_the_name_of_its_app() {
        let name = |path| name_of_socket(Path::new(path)).map(|name| name.to_string());
        assert_eq!(name("/run/phalanx/my.app.sock").as_deref(), Some("my.app"));
        assert_eq!(name("/run/phalanx/my.app.lock"), None);
        assert_eq!(name("/run/phalanx/..sock"), None);
    }
}
