//! The word that opens the web view to who is not on this machine.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use phalanx_sys::directory::{Directory, FileId};
use phalanx_sys::random;
use subtle::ConstantTimeEq;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;
/// No token is longer.
const LONGEST: u64 = 4096;
/// Nobody but the user and root.
const MODE: u32 = 0o600;

/// A token. It is never shown.
#[derive(Clone)]
pub struct Token(Box<str>);

impl Token {
    /// Reads the token that is the first line of a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or has no token that is long enough.
    pub fn read(path: &Path) -> Outcome<Self> {
        let what = format!("cannot read the token of {}", path.display());
        let file = File::open(path);
        let file = file.map_err(|error| Failure::caused(Exit::Usage, &what, &error))?;
        let mut text = String::new();
        let read = file.take(LONGEST).read_to_string(&mut text);
        read.map_err(|error| Failure::caused(Exit::Usage, &what, &error))?;
        Self::of(text.lines().next().unwrap_or_default())
            .map_err(|reason| Failure::new(Exit::Usage, format!("{}: {reason}", path.display())))
    }

    fn of(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token consists of ASCII letters, digits and signs".to_owned());
        }
        if text.len() < SHORTEST {
            return Err(format!(
                "a token has at least {SHORTEST} characters, in the first line"
            ));
        }
        Ok(Self(text.into()))
    }

    /// Whether that is the token. How long it takes depends on the length of `text` alone.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token that was made up, in a file that only this user and root can read. It is removed when this is dropped.
#[derive(Debug)]
pub struct TokenFile {
    directory: Directory,
    name: OsString,
    file: FileId,
    path: PathBuf,
}

impl TokenFile {
    /// Makes a token up and writes it to this path, which is this process's: what is there was left behind.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be made.
    pub fn create(path: &Path) -> Outcome<(Self, Token)> {
        Self::try_create(path).map_err(|error| {
            let what = format!("cannot create {}", path.display());
            Failure::caused(Exit::CannotCreate, &what, &error)
        })
    }

    fn try_create(path: &Path) -> io::Result<(Self, Token)> {
        let text = format!("{}{}", random::name()?, random::name()?);
        let (directory, name) = Directory::of(path)?;
        if let Ok(stale) = directory.pin(name) {
            directory.remove(name, stale.id())?;
        }
        let mut file = directory.create(name, MODE)?;
        let made = Self {
            file: FileId::of(&file)?,
            name: name.to_owned(),
            directory,
            path: path.to_owned(),
        };
        writeln!(file, "{text}")?;
        Ok((made, Token(text.into())))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next app of this name.
        drop(self.directory.remove(&self.name, self.file));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_the_first_line_and_not_too_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "0123456789abcdef\nmore\n").unwrap();
        let token = Token::read(&path).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [
            "",
            "0123456789abcdeF",
            "0123456789abcdef0",
            "0123456789abcde",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
        for bad in ["", "short\n", "with blanks in the middle of it\n"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Token::read(&path).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert_eq!(
            Token::read(Path::new("/no/such")).unwrap_err().exit,
            Exit::Usage
        );
    }

    #[test]
    fn a_token_that_was_made_up_is_the_users_alone_and_goes_with_the_app() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.token");
        std::fs::write(&path, "stale").unwrap();
        let (file, token) = TokenFile::create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.trim().len() == 64 && token.is(text.trim().as_bytes()));
        drop(file);
        assert!(!path.exists());
    }
}
