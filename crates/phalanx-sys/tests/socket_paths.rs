//! Unix listeners with a path: what becomes of their files when others have a hand in the directory.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use phalanx_sys::identity;
use phalanx_sys::socket::{
    Address, PathOptions, SocketFile, SocketPlace, UnixName, bind_unix, local_address,
};

const NOBODY: u32 = 65534;

fn listen(path: &Path, options: &PathOptions) -> io::Result<(OwnedFd, SocketFile)> {
    SocketPlace::find(path)?.listen(options)
}

fn plain(path: &Path) -> io::Result<(OwnedFd, SocketFile)> {
    listen(path, &PathOptions::default())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// A directory, and a path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("app.sock");
    (place, path)
}

#[test]
fn a_listener_is_found_by_its_path_and_leaves_nothing_behind() {
    let (place, path) = place();
    let (socket, file) = plain(&path).unwrap();
    let Address::Unix(UnixName::Path(shown)) = local_address(socket.as_fd()).unwrap() else {
        panic!("a socket with a path");
    };
    assert_eq!(shown, path);
    UnixStream::connect(&path).unwrap();
    assert!(file.is_found());
    assert!(file.remove().unwrap());
    assert!(!file.is_found() && !file.remove().unwrap());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn mode_owner_and_group_are_as_they_are_wanted() {
    let (_place, path) = place();
    let wanted = PathOptions {
        mode: Some(0o640),
        more_mode: 0o022,
        owner: identity::is_root().then_some(NOBODY),
        group: identity::is_root().then_some(NOBODY),
        ..PathOptions::default()
    };
    let (_socket, _file) = listen(&path, &wanted).unwrap();
    assert_eq!(mode(&path), 0o662);
    if identity::is_root() {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY));
    }
}

#[test]
fn a_directory_that_becomes_a_link_takes_no_other_file_along() {
    let (place, _) = place();
    let (inner, other) = (place.path().join("inner"), place.path().join("other"));
    for directory in [&inner, &other] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(other.join("app.sock"), "precious").unwrap();
    let (_socket, file) = plain(&inner.join("app.sock")).unwrap();
    fs::rename(&inner, place.path().join("moved")).unwrap();
    symlink(&other, &inner).unwrap();
    assert!(!file.is_found());
    assert!(file.remove().unwrap());
    assert!(other.join("app.sock").exists());
    assert!(!place.path().join("moved/app.sock").exists());
}

#[test]
fn a_way_that_others_can_move_is_walked_once() {
    let (place, _) = place();
    let inner = place.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = inner.join("app.sock");
    let found = SocketPlace::find(&path).unwrap();
    // Between the look and the bind.
    fs::rename(&inner, place.path().join("moved")).unwrap();
    symlink("/", &inner).unwrap();
    let options = PathOptions {
        more_mode: 0o222,
        ..PathOptions::default()
    };
    let (_socket, file) = found.listen(&options).unwrap();
    let made = place.path().join("moved/app.sock");
    assert_eq!(mode(&made) & 0o222, 0o222);
    UnixStream::connect(&made).unwrap();
    assert!(!file.is_found() && file.remove().unwrap());
    assert!(!made.exists());
}

#[test]
fn a_socket_that_nobody_serves_is_taken_over() {
    let (place, path) = place();
    drop(bind_unix(&UnixName::Path(path.clone())).unwrap());
    let (_socket, file) = plain(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    assert!(file.is_found());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn what_is_served_or_no_listener_is_left_alone() {
    let (place, path) = place();
    let check = |path: &Path| {
        let before = fs::symlink_metadata(path).unwrap().ino();
        assert_eq!(errno(&plain(path).unwrap_err()), libc::EADDRINUSE);
        assert_eq!(fs::symlink_metadata(path).unwrap().ino(), before);
    };
    let served = UnixListener::bind(&path).unwrap();
    check(&path);
    drop(served);
    let others = ["file", "link", "loose", "datagram"].map(|name| place.path().join(name));
    fs::write(&others[0], "precious").unwrap();
    symlink(&path, &others[1]).unwrap();
    symlink("nowhere", &others[2]).unwrap();
    let _datagram = UnixDatagram::bind(&others[3]).unwrap();
    for other in &others {
        check(other);
    }
    assert_eq!(fs::read_to_string(&others[0]).unwrap(), "precious");
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    if !identity::is_root() {
        phalanx_testkit::missing!("root");
        return;
    }
    let (_place, path) = place();
    drop(bind_unix(&UnixName::Path(path.clone())).unwrap());
    std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    assert_eq!(errno(&plain(&path).unwrap_err()), libc::EADDRINUSE);
    // The owner that it is to have is as good as this user.
    let options = PathOptions {
        owner: Some(NOBODY),
        ..PathOptions::default()
    };
    let (_socket, _file) = listen(&path, &options).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn who_is_between_bind_and_listen_is_not_taken_for_dead() {
    let (place, path) = place();
    let lock = place.path().join(".app.sock.lock");
    let held = phalanx_sys::lock::FileLock::try_exclusive(&lock).unwrap();
    drop(bind_unix(&UnixName::Path(path.clone())).unwrap());
    assert_eq!(errno(&plain(&path).unwrap_err()), libc::EADDRINUSE);
    drop(held);
    let (_socket, _file) = plain(&path).unwrap();
    assert!(!lock.exists());
}

#[test]
fn a_path_that_is_too_long_for_an_address_is_bound_from_its_directory() {
    let (place, _) = place();
    let deep = place.path().join("d".repeat(100));
    fs::create_dir(&deep).unwrap();
    let (_socket, file) = plain(&deep.join("app.sock")).unwrap();
    assert!(file.is_found());
    let error = plain(&place.path().join("n".repeat(120))).unwrap_err();
    assert_eq!(errno(&error), libc::ENAMETOOLONG);
}
