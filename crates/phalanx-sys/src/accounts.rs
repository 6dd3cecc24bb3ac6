//! Users and groups by name, as the system's own databases have them (nsswitch.conf(5)).
#![allow(
    unsafe_code,
    reason = "getpwnam_r(3) and getgrnam_r(3) have no safe wrapper here"
)]

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::raw::c_char;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

/// Entries are a few hundred bytes; a group may list thousands of members.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// Its name.
    pub name: OsString,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Where it is at home.
    pub home: OsString,
}

/// The user of this name; `None` when there is none.
///
/// # Errors
/// `InvalidInput` for a name with a NUL; those of getpwnam(3).
pub fn user_by_name(name: &str) -> io::Result<Option<User>> {
    let name = CString::new(name)?;
    look_up(
        |entry, buffer, length, found| {
            // SAFETY: the name ends with a NUL, the entry and the buffer are valid for writing as much as is said,
            // and all of them outlive the call.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found) }
        },
        user_of,
    )
}

/// The user of this number; `None` when there is none.
///
/// # Errors
/// Those of getpwuid(3).
pub fn user_by_uid(uid: u32) -> io::Result<Option<User>> {
    look_up(
        |entry, buffer, length, found| {
            // SAFETY: the entry and the buffer are valid for writing as much as is said, and outlive the call.
            unsafe { libc::getpwuid_r(uid, entry, buffer, length, found) }
        },
        user_of,
    )
}

/// The number of the group of this name; `None` when there is none.
///
/// # Errors
/// `InvalidInput` for a name with a NUL; those of getgrnam(3).
pub fn group_by_name(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    look_up(
        |entry, buffer, length, found| {
            // SAFETY: the name ends with a NUL, the entry and the buffer are valid for writing as much as is said,
            // and all of them outlive the call.
            unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer, length, found) }
        },
        |entry: &libc::group| entry.gr_gid,
    )
}

/// Asks with ever larger buffers until the answer fits.
fn look_up<E, T>(
    ask: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> libc::c_int,
    read: impl Fn(&E) -> T,
) -> io::Result<Option<T>> {
    let mut buffer: Vec<c_char> = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<E>::uninit();
        let mut found = ptr::null_mut();
        match ask(
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        ) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: success and a result mean that the entry was filled in; what it points to lies in the buffer.
                return Ok(Some(read(unsafe { entry.assume_init_ref() })));
            }
            libc::ERANGE if buffer.len() < BUFFER_BYTES_MAX => buffer.resize(buffer.len() * 4, 0),
            libc::EINTR => {}
            // What the database says of a name that it does not know (getpwnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn user_of(entry: &libc::passwd) -> User {
    User {
        name: text(entry.pw_name),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: text(entry.pw_dir),
    }
}

fn text(at: *const c_char) -> OsString {
    if at.is_null() {
        return OsString::new();
    }
    // SAFETY: the C library fills an entry with texts that end with a NUL, and the buffer holds them.
    let text = unsafe { CStr::from_ptr(at) };
    OsString::from_vec(text.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_number() {
        let root = user_by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user_by_uid(0).unwrap(), Some(root));
        assert_eq!(group_by_name("root").unwrap(), Some(0));
    }

    #[test]
    fn nobody_of_an_unknown_name_is_found() {
        assert_eq!(user_by_name("no such user").unwrap(), None);
        assert_eq!(group_by_name("no such group").unwrap(), None);
        assert!(user_by_name("a\0b").is_err());
    }
}
