//! The word that opens the web view to who is not on this machine.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use phalanx_sys::directory::{Directory, FileId};
use phalanx_sys::{clock, random};
use subtle::ConstantTimeEq;
use tokio::task::spawn_blocking;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;
/// No token is longer.
const LONGEST: u64 = 4096;
/// Between two looks at the file.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Nobody but the user and root.
const MODE: u32 = 0o600;

/// A token. It is never shown.
#[derive(Clone)]
pub struct Token {
    text: Box<str>,
    /// The file that it was read from, if it was.
    source: Option<PathBuf>,
}

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
        let token = Self::of(text.lines().next().unwrap_or_default());
        let token = token
            .map_err(|reason| Failure::new(Exit::Usage, format!("{}: {reason}", path.display())))?;
        Ok(Self {
            source: Some(path.to_owned()),
            ..token
        })
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
        Ok(Self {
            text: text.into(),
            source: None,
        })
    }

    /// Whether that is the token. How long it takes depends on the length of `text` alone.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.text.as_bytes().ct_eq(text).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token in force. One of a file is read again while it is asked for, so that it can be changed without a stop.
#[derive(Debug)]
pub(super) struct Kept {
    token: RwLock<Token>,
    /// When the file was looked at last, and whether it could be used.
    looked: Mutex<(Option<Instant>, bool)>,
}

impl Kept {
    pub(super) fn new(token: Token) -> Self {
        Self {
            token: RwLock::new(token),
            looked: Mutex::new((None, true)),
        }
    }

    /// Whether that is the token in force.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.token
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is(text)
    }

    fn looked(&self) -> MutexGuard<'_, (Option<Instant>, bool)> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file to be looked at now, if it is time.
    fn due(&self) -> Option<PathBuf> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let source = token.source.clone()?;
        let now = clock::now();
        let mut looked = self.looked();
        if looked.0.is_some_and(|last| now - last < LOOK_AGAIN) {
            return None;
        }
        looked.0 = Some(now);
        Some(source)
    }

    /// Reads the file again, if it is time. What cannot be used changes nothing.
    pub(super) async fn renew(&self) {
        let Some(source) = self.due() else { return };
        let Ok(read) = spawn_blocking(move || Token::read(&source)).await else {
            return;
        };
        let was_usable = std::mem::replace(&mut self.looked().1, read.is_ok());
        match read {
            Ok(token) => *self.token.write().unwrap_or_else(PoisonError::into_inner) = token,
            Err(failure) if was_usable => {
                tracing::warn!(reason = failure.reason, "the token before stays in force");
            }
            Err(_) => {}
        }
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
        let token = Token {
            text: text.into(),
            source: None,
        };
        Ok((made, token))
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
