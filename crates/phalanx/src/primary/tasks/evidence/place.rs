//! Where it is kept: a private directory that outlives the primary, with the last [`KEPT`] files.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use phalanx_core::ids::WorkerId;
use phalanx_sys::directory::Directory;

use crate::primary::release::private;

/// So many files are kept, those of all primaries of this user together.
const KEPT: usize = 32;
/// The most of each, in bytes.
const BYTES_MAX: usize = 256 << 10;

/// Keeps a text in a new file, and removes the oldest ones. Returns the file's path.
///
/// # Errors
/// The last of the reasons why no place would do.
pub(super) fn keep(worker: WorkerId, text: &str) -> io::Result<PathBuf> {
    let mut fault = io::Error::from(io::ErrorKind::NotFound);
    for base in private::bases() {
        match keep_in(&base, worker, text) {
            Ok(path) => return Ok(path),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

fn keep_in(base: &Path, worker: WorkerId, text: &str) -> io::Result<PathBuf> {
    let held = Directory::open(base)?;
    if let Some(exposed) = held.exposed() {
        let reason = exposed.to_string();
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let own = phalanx_sys::identity::effective_uid();
    let place = OsString::from(format!("phalanx-evidence-{own}"));
    let directory = match held.make(&place, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => held.enter(&place)?,
        made => made?,
    };
    // Whoever has made it sees what is in it.
    if directory.owner()? != own || directory.exposed().is_some() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    directory.set_mode(0o700)?;
    let millis = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let name = OsString::from(format!(
        "{millis:016}-{}-worker-{worker}.txt",
        std::process::id()
    ));
    let mut file = directory.create(&name, 0o600)?;
    let mut end = text.len().min(BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    file.write_all(&text.as_bytes()[..end])?;
    thin(&directory);
    Ok(held.real_path()?.join(&place).join(&name))
}

/// Removes the oldest: names begin with their times.
fn thin(directory: &Directory) {
    let mut names = directory.names().unwrap_or_default();
    names.sort_unstable();
    let surplus = names.len().saturating_sub(KEPT);
    for name in names.iter().take(surplus) {
        remove(directory, name);
    }
}

fn remove(directory: &Directory, name: &OsStr) {
    if let Ok(file) = directory.pin(name) {
        // What somebody else has removed need not be.
        drop(directory.remove(name, file.id()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_last_files_are_kept_for_this_user_alone() {
        let base = tempfile::tempdir().unwrap();
        let first = keep_in(base.path(), WorkerId(1), "first").unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "first");
        for id in 2..100 {
            keep_in(base.path(), WorkerId(id), &"é".repeat(BYTES_MAX)).unwrap();
        }
        let place = first.parent().unwrap();
        assert_eq!(
            fs::metadata(place).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let files: Vec<_> = fs::read_dir(place).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), KEPT);
        assert!(!first.exists());
        let most = u64::try_from(BYTES_MAX).unwrap();
        assert!(
            files
                .iter()
                .all(|file| file.metadata().unwrap().len() <= most)
        );
    }

    #[test]
    fn a_place_that_others_can_move_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let inner = base.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert!(keep_in(&inner, WorkerId(1), "").is_err());
    }
}
