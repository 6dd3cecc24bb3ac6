//! What a walk sees, and that a directory stays the same when its path is turned into a link.

use std::fs as files;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn set_mode(path: &Path, mode: u32) {
    files::set_permissions(path, files::Permissions::from_mode(mode)).unwrap();
}

/// A directory in one in which nobody but this user can move anything.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let inner = place.path().join("inner");
    files::create_dir(&inner).unwrap();
    (place, inner)
}

#[test]
fn a_way_of_this_user_and_root_is_not_exposed() {
    let (place, inner) = place();
    assert_eq!(Directory::open(&inner).unwrap().exposed(), None);
    let link = place.path().join("link");
    symlink("inner", &link).unwrap();
    let through = Directory::open(&link).unwrap();
    assert_eq!(through.exposed(), None);
    assert_eq!(through.real_path().unwrap(), inner);
}

#[test]
fn a_directory_on_the_way_that_others_can_change_is_named() {
    let (place, inner) = place();
    set_mode(place.path(), 0o777);
    let exposed = Directory::open(&inner).unwrap().exposed().cloned().unwrap();
    assert_eq!(
        (exposed.path.as_path(), exposed.mode),
        (place.path(), 0o777)
    );
    // As in /tmp: what is mine nobody else moves.
    set_mode(place.path(), 0o1777);
    assert_eq!(Directory::open(&inner).unwrap().exposed(), None);
}

#[test]
fn the_last_directory_may_be_changeable_and_the_way_to_it_not() {
    let (_place, inner) = place();
    let directory = Directory::open(&inner).unwrap();
    assert_eq!(directory.changeable().unwrap(), None);
    set_mode(&inner, 0o777);
    assert!(directory.changeable().unwrap().is_some());
    assert_eq!(directory.exposed(), None);
}

#[test]
fn what_belongs_to_somebody_else_can_be_moved_by_him() {
    if !identity::is_root() {
        return;
    }
    let (place, inner) = place();
    let deeper = inner.join("deeper");
    files::create_dir(&deeper).unwrap();
    std::os::unix::fs::chown(&inner, Some(65534), None).unwrap();
    // The way to it is root's; what lies in it is not.
    assert_eq!(Directory::open(&inner).unwrap().exposed(), None);
    let exposed = Directory::open(&deeper)
        .unwrap()
        .exposed()
        .cloned()
        .unwrap();
    assert_eq!((exposed.path, exposed.uid), (inner.clone(), 65534));
    set_mode(place.path(), 0o1777);
    assert!(Directory::open(&inner).unwrap().exposed().is_some());
}

#[test]
fn an_open_directory_stays_itself_when_its_path_becomes_a_link() {
    let (place, inner) = place();
    let other = place.path().join("other");
    files::create_dir(&other).unwrap();
    files::write(other.join("precious"), "precious").unwrap();
    let directory = Directory::open(&inner).unwrap();
    let name = OsStr::new("precious");
    drop(directory.create(name, 0o600).unwrap());
    let mine = directory.pin(name).unwrap().id();
    files::rename(&inner, place.path().join("moved")).unwrap();
    symlink(&other, &inner).unwrap();
    assert!(directory.holds(name, mine));
    assert!(directory.remove(name, mine).unwrap());
    assert!(!directory.remove(name, mine).unwrap());
    assert!(other.join("precious").exists());
}

#[test]
fn nothing_is_created_or_read_through_a_link() {
    let (place, inner) = place();
    files::write(place.path().join("precious"), "precious").unwrap();
    symlink("../precious", inner.join("link")).unwrap();
    let directory = Directory::open(&inner).unwrap();
    let link = OsStr::new("link");
    let kind = |error: io::Error| error.raw_os_error();
    assert_eq!(
        kind(directory.create(link, 0o600).unwrap_err()),
        Some(libc::EEXIST)
    );
    assert_eq!(kind(directory.read(link).unwrap_err()), Some(libc::ELOOP));
    assert_eq!(
        kind(directory.enter(link).unwrap_err()),
        Some(libc::ENOTDIR)
    );
    let precious = Directory::open(place.path())
        .unwrap()
        .pin(OsStr::new("precious"))
        .unwrap();
    assert!(!directory.remove(link, precious.id()).unwrap());
}

#[test]
fn a_circle_of_links_ends() {
    let (place, _inner) = place();
    symlink("b", place.path().join("a")).unwrap();
    symlink("a", place.path().join("b")).unwrap();
    let error = Directory::open(&place.path().join("a")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}
