//! Where this process may make control groups: in its own, if that was left to it.
//!
//! "Left to it" is more than being able to. Where systemd manages the groups, it says by a mark on the directory
//! whether a unit may do so (`Delegate=`, systemd.resource-control(5)). Elsewhere whoever can write may, but not where
//! it could be noticed: a program that looks for its limit of memory or processors in its own group would not find
//! that of its container in one below, and where controllers are at work a group is a party of its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, getxattr, open};

use super::read_file;
use crate::process::Pid;

/// There while systemd is the service manager (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";
/// What systemd marks a unit's group with that may be divided.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Why no control group is made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoCgroup {
    /// No hierarchy of version 2 shows this process.
    #[error("no cgroup v2 that this process is in is mounted here")]
    NotMounted,
    /// systemd has not left it to this process.
    #[error("systemd has not delegated {}: set Delegate=yes", unit.display())]
    NotDelegated {
        /// The unit.
        unit: PathBuf,
    },
    /// A limit is set there, which workers may want to read.
    #[error("{} is set, and workers may look for it in their own cgroup", file.display())]
    Limited {
        /// The file.
        file: PathBuf,
    },
    /// Controllers are at work below it.
    #[error("controllers are enabled in {}", path.display())]
    Controlled {
        /// The group of this process.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Make {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The group that this process is in.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) path: PathBuf,
}

/// This process's own group, if it may be divided.
pub(super) fn own() -> Result<Place, NoCgroup> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"));
    let group = group.ok_or(NoCgroup::NotMounted)?;
    let mut found = places(group, &mounts);
    let place = found.find_map(|path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty()).ok()?;
        is_own(directory.as_fd()).then_some(Place { directory, path })
    });
    let place = place.ok_or(NoCgroup::NotMounted)?;
    if Path::new(SYSTEMD).exists() {
        require_delegation(&place.path)?;
    } else {
        require_unlimited(&place)?;
    }
    let is_empty = |text: io::Result<String>| text.is_ok_and(|text| text.trim().is_empty());
    if !is_empty(read_file(place.directory.as_fd(), "cgroup.subtree_control")) {
        return Err(NoCgroup::Controlled { path: place.path });
    }
    // Whoever makes a group may put a process into it only with this right, too.
    let file = (&place.directory, "cgroup.procs");
    match accessat(file.0, file.1, Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(place),
        Err(errno) => Err(NoCgroup::Make {
            path: place.path,
            source: errno.into(),
        }),
    }
}

fn is_own(directory: BorrowedFd<'_>) -> bool {
    let members = read_file(directory, "cgroup.procs").unwrap_or_default();
    let own = Pid::current().to_string();
    members.lines().any(|line| line == own)
}

/// Where the group can be seen, given the text of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
fn places(group: &str, mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(move |line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(if below.as_os_str().is_empty() {
            PathBuf::from(point)
        } else {
            Path::new(&point).join(below)
        })
    })
}

/// Blanks and the like are written as octal numbers there.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let character = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(character) = character {
            text.push(char::from(character));
            text.push_str(part.get(3..).unwrap_or_default());
        } else {
            text.push('\\');
            text.push_str(part);
        }
    }
    text
}

/// The nearest unit on the way up has to be marked: what a unit has made itself below (`DelegateSubgroup=`) is its own.
fn require_delegation(path: &Path) -> Result<(), NoCgroup> {
    let unit = path.ancestors().find(|path| is_unit(path)).unwrap_or(path);
    let is_marked = |mark: &str| {
        let mut value = [0; 1];
        getxattr(unit, mark, &mut value).is_ok_and(|length| value[..length] == *b"1")
    };
    if MARKS.into_iter().any(is_marked) {
        Ok(())
    } else {
        let unit = unit.file_name().unwrap_or(unit.as_os_str());
        Err(NoCgroup::NotDelegated { unit: unit.into() })
    }
}

fn is_unit(path: &Path) -> bool {
    let kind = path.extension().and_then(|kind| kind.to_str());
    matches!(kind, Some("service" | "scope" | "slice"))
}

fn require_unlimited(place: &Place) -> Result<(), NoCgroup> {
    let is_set = |name: &&str| {
        let value = read_file(place.directory.as_fd(), name);
        value.is_ok_and(|value| !value.starts_with("max"))
    };
    match ["memory.max", "cpu.max"].into_iter().find(is_set) {
        Some(name) => Err(NoCgroup::Limited {
            file: place.path.join(name),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(group: &str, mounts: &str) -> Vec<PathBuf> {
        places(group, mounts).collect()
    }

    #[test]
    fn the_own_group_is_found_in_every_kind_of_mount() {
        let whole =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let unit = "/system.slice/shop.service";
        let expected = PathBuf::from("/sys/fs/cgroup/system.slice/shop.service");
        assert_eq!(paths(unit, whole), [expected]);
        assert_eq!(paths("/", whole), [PathBuf::from("/sys/fs/cgroup")]);
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(
            paths("/", hybrid),
            [PathBuf::from("/sys/fs/cgroup/unified")]
        );
        // A container that sees its own part only, under the host's name.
        let part = "30 23 0:26 /docker/0123 /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw";
        assert_eq!(
            paths("/docker/0123", part),
            [PathBuf::from("/sys/fs/my groups")]
        );
        let inside = PathBuf::from("/sys/fs/my groups/a");
        assert_eq!(paths("/docker/0123/a", part), [inside]);
        assert!(paths("/docker/01234", part).is_empty());
        assert!(paths("/../elsewhere", part).is_empty());
    }

    #[test]
    fn what_is_no_number_stays_as_it_is() {
        assert_eq!(unescape("a\\134b\\011c"), "a\\b\tc");
        assert_eq!(unescape("a\\9b"), "a\\9b");
    }

    #[test]
    fn the_nearest_unit_is_the_one_that_has_to_be_marked() {
        assert!(is_unit(Path::new(
            "/sys/fs/cgroup/user.slice/user@1000.service"
        )));
        assert!(!is_unit(Path::new(
            "/sys/fs/cgroup/system.slice/shop.service/main"
        )));
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("shop.service/main");
        fs::create_dir_all(&own).unwrap();
        let error = require_delegation(&own).unwrap_err();
        assert!(
            matches!(error, NoCgroup::NotDelegated { unit } if unit == Path::new("shop.service"))
        );
    }
}
