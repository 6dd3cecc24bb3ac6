//! The directory in which the processes of a worker keep their metrics (`PROMETHEUS_MULTIPROC_DIR`), inside the private directory.
//!
//! It belongs to the user that the worker runs as, who alone sees and changes what is in it. A program that root starts may become
//! anybody, so there all may write; but the name cannot be guessed, and nobody else can list the directory that it lies in.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use phalanx_sys::directory::Directory;
use phalanx_sys::{identity, random};

/// Such a directory. Dropping it removes it with its files.
#[derive(Debug)]
pub(crate) struct MetricsDirectory {
    base: Directory,
    directory: Directory,
    name: OsString,
    path: PathBuf,
}

impl MetricsDirectory {
    pub(super) fn make(
        base: &Directory,
        base_path: &Path,
        (uid, gid): (Option<u32>, Option<u32>),
    ) -> io::Result<Self> {
        let name = OsString::from(format!("metrics-{}", random::name()?));
        let made = Self {
            base: base.try_clone()?,
            directory: base.make(&name, 0o700)?,
            path: base_path.join(&name),
            name,
        };
        made.directory.give_to(uid, gid)?;
        if uid.is_none() && identity::is_root() {
            made.directory.set_mode(0o1777)?;
        }
        Ok(made)
    }

    /// Its path, for the worker.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its files.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.directory.names().unwrap_or_default().into_iter();
        names.filter_map(|name| name.into_string().ok()).collect()
    }

    /// Opens a file of it for reading; no link, and nothing that one would wait for.
    ///
    /// # Errors
    /// As [`Directory::read`].
    pub(crate) fn read(&self, name: &str) -> io::Result<File> {
        self.directory.read(name.as_ref())
    }

    /// Removes a file of it.
    pub(crate) fn remove(&self, name: &str) {
        if let Ok(file) = self.directory.pin(name.as_ref()) {
            drop(self.directory.remove(name.as_ref(), file.id()));
        }
    }
}

impl Drop for MetricsDirectory {
    fn drop(&mut self) {
        clear_files(&self.directory);
        drop(self.base.remove_directory(&self.name));
    }
}

/// Removes all files of it.
pub(super) fn clear_files(directory: &Directory) {
    for name in directory.names().into_iter().flatten() {
        if let Ok(file) = directory.pin(&name) {
            drop(directory.remove(&name, file.id()));
        }
    }
}
