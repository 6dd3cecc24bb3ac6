//! The place of a running app: its name, taken by a lock, and its control socket.
//!
//! INVARIANT: only the holder of the lock makes or removes the socket, so a socket that is there when
//! the lock is free belongs to nobody and may be replaced.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use phalanx_sys::lock::FileLock;
use tokio::net::UnixListener;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::names::{self, Name, Surroundings};

/// A name that this process holds. Dropping it removes its files.
#[derive(Debug)]
pub struct Place {
    socket: PathBuf,
    lock_path: PathBuf,
    /// Released last, after the files are gone.
    _lock: FileLock,
}

impl Place {
    /// Takes the name, and opens the socket. Needs a runtime.
    ///
    /// # Errors
    ///
    /// Fails if the name is taken, or its files cannot be made.
    pub fn take(surroundings: &Surroundings, name: &Name) -> Outcome<(Self, UnixListener)> {
        let directory = surroundings.prepare_directory()?;
        let socket = names::socket_path(&directory, name)?;
        let lock_path = names::lock_path(&directory, name);
        let lock = FileLock::try_exclusive(&lock_path)
            .map_err(|error| cannot_create(&lock_path, &error))?
            .ok_or_else(|| taken(name, &lock_path))?;
        let place = Self {
            socket,
            lock_path,
            _lock: lock,
        };
        fs::write(&place.lock_path, std::process::id().to_string())
            .map_err(|error| cannot_create(&place.lock_path, &error))?;
        let listener =
            listen(&place.socket).map_err(|error| cannot_create(&place.socket, &error))?;
        Ok((place, listener))
    }
}

impl Place {
    /// Where workers that know einhorn acknowledge. The name is this process's, so the path is.
    #[must_use]
    pub fn ack_socket(&self) -> PathBuf {
        self.socket.with_extension("ack")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed will be found stale by the next app of this name.
        drop(fs::remove_file(&self.socket));
        drop(fs::remove_file(&self.lock_path));
    }
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(socket)?,
        // Anything else is not ours to remove; bind(2) will refuse it.
        Ok(_) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    Failure::caused(
        Exit::CannotCreate,
        &format!("cannot create {}", path.display()),
        error,
    )
}

fn taken(name: &Name, lock_path: &Path) -> Failure {
    // The holder writes its pid right after it took the lock; in between there is none to tell.
    let pid = fs::read_to_string(lock_path)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    let reason = format!(
        "an app named {name} is already running ({holder}); choose another name with --name"
    );
    Failure::new(Exit::Taken, reason)
}
