//! Where control sockets lie, and whether a place is to be trusted.
//!
//! INVARIANT: sockets lie only in directories that nobody but their owner can change, on ways that nobody but the
//! user and root can move; so whoever can put a socket there is the directory's owner, or root. Both sides check it:
//! the primary before it makes its socket, the client before it talks to one.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use phalanx_sys::directory::{Directory, Exposed};
use phalanx_sys::identity;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Names a directory for the sockets, instead of the usual places.
pub(crate) const DIRECTORY_VARIABLE: &str = "PHALANX_RUNTIME_DIR";
/// What systemd tells a service with `RuntimeDirectory=` (systemd.exec(5)).
const SERVICE_VARIABLE: &str = "RUNTIME_DIRECTORY";
/// Where those of services lie.
const SERVICES: &str = "/run";
/// Within a directory that is not phalanx's alone.
const SUBDIRECTORY: &str = "phalanx";

/// What decides where sockets lie.
#[derive(Clone, Debug, Default)]
pub struct RuntimeDirs {
    /// `PHALANX_RUNTIME_DIR`.
    chosen: Option<PathBuf>,
    /// The first of `RUNTIME_DIRECTORY`.
    service_dir: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    runtime_dir: Option<PathBuf>,
    temp_dir: PathBuf,
    /// The directory that holds those of services.
    services: PathBuf,
    uid: u32,
}

/// A directory in which apps may have their sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    /// Root looks into it even if it belongs to somebody else: who made it was root, or root has named it.
    is_for_others: bool,
}

impl RuntimeDirs {
    /// As the environment of this process has it.
    #[must_use]
    pub fn here() -> Self {
        // The base directory specification of freedesktop.org: a relative path is to be ignored.
        let directory = |variable| env::var_os(variable).map(PathBuf::from);
        let service_dir = env::var_os(SERVICE_VARIABLE);
        Self {
            chosen: directory(DIRECTORY_VARIABLE).filter(|path| !path.as_os_str().is_empty()),
            service_dir: service_dir.as_deref().and_then(first_of),
            runtime_dir: directory("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()),
            temp_dir: env::temp_dir(),
            services: PathBuf::from(SERVICES),
            uid: identity::effective_uid(),
        }
    }

    /// Where an app that is started now has its socket.
    #[must_use]
    pub fn own_directory(&self) -> PathBuf {
        if let Some(chosen) = &self.chosen {
            chosen.clone()
        } else if let Some(service_dir) = &self.service_dir {
            within(service_dir)
        } else if let Some(runtime_dir) = &self.runtime_dir {
            runtime_dir.join(SUBDIRECTORY)
        } else if self.uid == 0 {
            self.services.join(SUBDIRECTORY)
        } else {
            self.private_temp_directory()
        }
    }

    /// Where the apps of this user may have their sockets, whatever environment they were started in:
    /// root's shell has an `XDG_RUNTIME_DIR`, root's services have none. For root, also where those of
    /// service users have theirs.
    pub(crate) fn all_directories(&self) -> Vec<Candidate> {
        let mut all = vec![Candidate {
            path: self.own_directory(),
            is_for_others: self.chosen.is_some(),
        }];
        if self.chosen.is_none() {
            let own = |path| Candidate {
                path,
                is_for_others: false,
            };
            if let Some(runtime_dir) = &self.runtime_dir {
                all.push(own(runtime_dir.join(SUBDIRECTORY)));
            }
            all.push(own(format!("/run/user/{}/phalanx", self.uid).into()));
            if self.uid == 0 {
                all.push(Candidate {
                    path: self.services.join(SUBDIRECTORY),
                    is_for_others: true,
                });
            } else {
                all.push(own(self.private_temp_directory()));
            }
            all.extend(self.of_services());
        }
        let mut seen: Vec<Candidate> = Vec::new();
        for candidate in all {
            match seen.iter_mut().find(|one| one.path == candidate.path) {
                Some(one) => one.is_for_others |= candidate.is_for_others,
                None => seen.push(candidate),
            }
        }
        seen
    }

    /// The directories of services that have one. Only root can make an entry there.
    fn of_services(&self) -> Vec<Candidate> {
        let mut parents = vec![self.services.clone()];
        parents.extend(self.runtime_dir.clone());
        let mut found = Vec::new();
        for parent in parents {
            let entries = fs::read_dir(&parent).into_iter().flatten().flatten();
            let paths = entries.map(|entry| entry.path().join(SUBDIRECTORY));
            let present =
                paths.filter(|path| fs::symlink_metadata(path).is_ok_and(|it| it.is_dir()));
            found.extend(present.map(|path| Candidate {
                path,
                is_for_others: parent == self.services,
            }));
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }

    fn private_temp_directory(&self) -> PathBuf {
        self.temp_dir.join(format!("phalanx-{}", self.uid))
    }

    /// The owner of a directory in which this user looks for apps; why it is not looked into otherwise. `None`
    /// when it is not there.
    pub(crate) fn trusted_owner(&self, candidate: &Candidate) -> Option<Result<u32, String>> {
        match look_at(&candidate.path) {
            Err(error) if is_not_there(&error) => None,
            Err(error) => Some(Err(error.to_string())),
            Ok(found) if self.uid == 0 && candidate.is_for_others => {
                Some(found.fault(None).map_or(Ok(found.owner), Err))
            }
            Ok(found) => Some(found.fault(Some(self.uid)).map_or(Ok(found.owner), Err)),
        }
    }

    /// Makes the directory for an app that is started now, or checks the one that is there.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be made, or is not this user's alone.
    pub fn prepare_directory(&self) -> Outcome<PathBuf> {
        let path = self.own_directory();
        let cannot = |cause: &dyn fmt::Display| {
            let reason = format!(
                "cannot use {} for the control socket: {cause}",
                path.display()
            );
            Failure::new(Exit::CannotCreate, reason)
        };
        match make(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(cannot(&error));
            }
            Ok(()) | Err(_) => {}
        }
        let found = look_at(&path).map_err(|error| cannot(&error))?;
        match found.fault(Some(self.uid)) {
            Some(fault) => Err(cannot(&fault)),
            None => Ok(path),
        }
    }
}

/// `RuntimeDirectory=phalanx` is phalanx's alone.
fn within(service_dir: &Path) -> PathBuf {
    if service_dir.ends_with(SUBDIRECTORY) {
        service_dir.to_owned()
    } else {
        service_dir.join(SUBDIRECTORY)
    }
}

/// The first of the paths that systemd joins by colons.
fn first_of(paths: &OsStr) -> Option<PathBuf> {
    env::split_paths(paths)
        .next()
        .filter(|path| path.is_absolute())
}

fn make(path: &Path) -> io::Result<()> {
    let (parent, name) = Directory::of(path)?;
    parent.make(name, 0o700).map(drop)
}

fn is_not_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

/// What a directory and the way to it are like.
#[derive(Debug)]
struct Found {
    owner: u32,
    mode: u32,
    is_directory: bool,
    /// Who else could move it.
    exposed: Option<Exposed>,
}

fn look_at(path: &Path) -> io::Result<Found> {
    let (parent, name) = Directory::of(path)?;
    let found = parent.pin(name)?;
    let exposed = if found.is_directory() {
        let entered = parent.enter(name)?;
        entered.exposed().cloned()
    } else {
        None
    };
    Ok(Found {
        owner: found.uid(),
        mode: found.mode(),
        is_directory: found.is_directory(),
        exposed,
    })
}

impl Found {
    /// Why this is no directory to trust, for a user or, without one, for root who looks for others' apps.
    fn fault(&self, uid: Option<u32>) -> Option<String> {
        if !self.is_directory {
            return Some("it is no directory".to_owned());
        }
        if let Some(uid) = uid.filter(|uid| *uid != self.owner) {
            return Some(format!(
                "it belongs to the user with id {}, not to this one ({uid})",
                self.owner
            ));
        }
        if self.mode & 0o022 != 0 {
            let mode = self.mode;
            return Some(format!(
                "others may write to it (mode {mode:04o}): run chmod go-w on it"
            ));
        }
        let exposed = self.exposed.as_ref()?;
        // The parent of a service's directory may be the service's own.
        let is_its_own = exposed.uid == self.owner && exposed.mode & 0o022 == 0;
        (uid.is_some() || !is_its_own).then(|| exposed.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn runtime_dirs(chosen: Option<&str>, runtime_dir: Option<&str>, uid: u32) -> RuntimeDirs {
        RuntimeDirs {
            chosen: chosen.map(PathBuf::from),
            service_dir: None,
            runtime_dir: runtime_dir.map(PathBuf::from),
            temp_dir: PathBuf::from("/tmp"),
            services: PathBuf::from("/run"),
            uid,
        }
    }

    #[test]
    fn the_directory_is_the_users_own() {
        for (chosen, runtime_dir, uid, expected) in [
            (None, Some("/run/user/7"), 7, "/run/user/7/phalanx"),
            (None, None, 0, "/run/phalanx"),
            (None, None, 7, "/tmp/phalanx-7"),
            (Some("/srv/x"), Some("/run/user/7"), 7, "/srv/x"),
        ] {
            let here = runtime_dirs(chosen, runtime_dir, uid);
            assert_eq!(here.own_directory(), Path::new(expected));
        }
        let mut service = runtime_dirs(None, None, 7);
        service.service_dir = first_of(OsStr::new("/run/shop:/run/other"));
        assert_eq!(service.own_directory(), Path::new("/run/shop/phalanx"));
        service.service_dir = first_of(OsStr::new("/run/phalanx"));
        assert_eq!(service.own_directory(), Path::new("/run/phalanx"));
        assert_eq!(first_of(OsStr::new("shop")), None);
    }

    #[test]
    fn apps_are_sought_wherever_this_user_may_have_started_them() {
        let nowhere = tempfile::tempdir().unwrap();
        let paths = |mut here: RuntimeDirs| {
            here.services = nowhere.path().to_owned();
            let all = here.all_directories();
            let paths = all.into_iter().map(|one| one.path);
            paths.collect::<Vec<_>>()
        };
        assert_eq!(
            paths(runtime_dirs(None, Some("/nowhere/0"), 0)),
            [
                PathBuf::from("/nowhere/0/phalanx"),
                "/run/user/0/phalanx".into(),
                nowhere.path().join("phalanx")
            ]
        );
        let own = ["/tmp/phalanx-7", "/run/user/7/phalanx"].map(PathBuf::from);
        assert_eq!(paths(runtime_dirs(None, None, 7)), own);
        let chosen = runtime_dirs(Some("/srv/x"), None, 7);
        assert_eq!(paths(chosen), [PathBuf::from("/srv/x")]);
    }

    #[test]
    fn the_apps_of_services_are_sought_too() {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir_all(run.path().join("shop/phalanx")).unwrap();
        fs::create_dir(run.path().join("other")).unwrap();
        let mut here = runtime_dirs(None, None, 0);
        here.services = run.path().to_owned();
        let all = here.all_directories();
        let for_others = all.iter().filter(|one| one.is_for_others);
        let found: Vec<_> = for_others.map(|one| one.path.clone()).collect();
        assert_eq!(
            found,
            ["phalanx", "shop/phalanx"].map(|path| run.path().join(path))
        );
    }

    #[test]
    fn a_directory_is_made_private_and_checked() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sockets");
        let mut here = runtime_dirs(path.to_str(), None, identity::effective_uid());
        assert_eq!(here.prepare_directory().unwrap(), path);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(here.prepare_directory().unwrap(), path);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        let failure = here.prepare_directory().unwrap_err();
        assert_eq!(failure.exit, Exit::CannotCreate);
        assert!(failure.reason.contains("others may write"), "{failure}");

        here.uid += 1;
        let failure = here.prepare_directory().unwrap_err();
        assert!(failure.reason.contains("belongs to"), "{failure}");

        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        let here = runtime_dirs(link.to_str(), None, identity::effective_uid());
        let failure = here.prepare_directory().unwrap_err();
        assert!(failure.reason.contains("no directory"), "{failure}");
    }

    #[test]
    fn a_way_that_others_can_move_is_not_trusted() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("inner/sockets");
        fs::create_dir(parent.path().join("inner")).unwrap();
        let here = runtime_dirs(path.to_str(), None, identity::effective_uid());
        assert!(here.prepare_directory().is_ok());
        let candidate = &here.all_directories()[0];
        assert!(here.trusted_owner(candidate).unwrap().is_ok());
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let failure = here.prepare_directory().unwrap_err();
        assert!(failure.reason.contains("others can move"), "{failure}");
        let stranger = RuntimeDirs {
            uid: here.uid + 4711,
            ..here.clone()
        };
        assert!(stranger.trusted_owner(candidate).unwrap().is_err());
    }
}
