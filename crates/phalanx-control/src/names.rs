//! Names of apps, and what the files of each one are called.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::runtime_dirs::DIRECTORY_VARIABLE;

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
        Self::of_text(&stem.to_string_lossy())
    }

    /// The name of an app that others call so: a package, a directory.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let name = text
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
