//! The place of a running app: its name, taken by a lock, and its control socket.
//!
//! INVARIANT: only the holder of the lock makes or removes the socket, so a socket that is there when
//! the lock is free belongs to nobody and may be replaced.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use phalanx_sys::directory::{Directory, FileId};
use phalanx_sys::lock::FileLock;
use phalanx_sys::socket::{PathOptions, SocketFile, SocketPlace};
use tokio::net::UnixListener;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::names::{self, Name};
use crate::runtime_dirs::RuntimeDirs;

/// Nobody but the user and root.
const MODE: u32 = 0o600;
/// Clients that may wait.
const BACKLOG: u32 = 1024;
/// A pid fits.
const LOCK_BYTES_MAX: u64 = 32;

/// A name that this process holds. Dropping it removes its files, if they are still the ones that it made.
#[derive(Debug)]
pub struct Place {
    socket: SocketFile,
    /// Released last, after the socket is gone.
    _held: Held,
}

impl Place {
    /// Takes the name, and opens the socket. Needs a runtime.
    ///
    /// # Errors
    ///
    /// Fails if the name is taken, or its files cannot be made. What was there before is there still.
    pub fn take(runtime_dirs: &RuntimeDirs, name: &Name) -> Outcome<(Self, UnixListener)> {
        let directory = runtime_dirs.prepare_directory()?;
        let path = names::socket_path(&directory, name)?;
        let held = Held::take(&names::lock_path(&directory, name), name)?;
        let (listener, socket) = listen(&path).map_err(|error| cannot_create(&path, &error))?;
        let place = Self {
            socket,
            _held: held,
        };
        Ok((place, listener))
    }

    /// Where workers that know einhorn acknowledge. The name is this process's, so the path is.
    #[must_use]
    pub fn ack_socket(&self) -> PathBuf {
        self.socket.path().with_extension("ack")
    }

    /// Where a token for the web view may be kept, which is this process's for the same reason.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.socket.path().with_extension("token")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed will be found stale by the next app of this name.
        drop(self.socket.remove());
    }
}

/// The lock on a name, and its file.
#[derive(Debug)]
struct Held {
    directory: Directory,
    name: OsString,
    file: FileId,
    lock: FileLock,
}

impl Held {
    fn take(path: &Path, app: &Name) -> Outcome<Self> {
        let cannot = |error: io::Error| cannot_create(path, &error);
        let (directory, name) = Directory::of(path).map_err(cannot)?;
        let lock = FileLock::try_exclusive_in(&directory, name).map_err(cannot)?;
        let lock = lock.ok_or_else(|| taken(app, &directory, name))?;
        let held = Self {
            file: FileId::of(&lock).map_err(cannot)?,
            name: name.to_owned(),
            directory,
            lock,
        };
        let pid = std::process::id().to_string();
        held.lock.write(pid.as_bytes()).map_err(cannot)?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.directory.remove(&self.name, self.file));
    }
}

/// A socket that is there when the lock is free is nobody's, and is replaced; anything else is not ours to remove.
fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let options = PathOptions {
        mode: Some(MODE),
        backlog: BACKLOG,
        ..PathOptions::default()
    };
    let (socket, file) = SocketPlace::find(path)?.listen(&options)?;
    match UnixListener::from_std(net::UnixListener::from(socket)) {
        Ok(listener) => Ok((listener, file)),
        Err(error) => {
            drop(file.remove());
            Err(error)
        }
    }
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    Failure::caused(
        Exit::CannotCreate,
        &format!("cannot create {}", path.display()),
        error,
    )
}

fn taken(name: &Name, directory: &Directory, lock: &OsStr) -> Failure {
    // The holder writes its pid right after it took the lock; in between there is none to tell.
    let pid = directory
        .read_text(lock, LOCK_BYTES_MAX)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    let reason = format!(
        "an app named {name} is already running ({holder}); choose another name with --name"
    );
    Failure::new(Exit::Taken, reason)
}
