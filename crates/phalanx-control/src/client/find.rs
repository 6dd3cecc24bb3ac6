//! Finds the running apps by their sockets.

use std::io;
use std::path::{Path, PathBuf};

use phalanx_sys::identity;

use super::{App, is_full};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::names::{self, Name};
use crate::runtime_dirs::RuntimeDirs;

impl App {
    /// The app of that name or, without a name, the only one that runs.
    ///
    /// # Errors
    ///
    /// Fails if there is no such app, or several are running, or its primary refuses this user.
    pub async fn find(name: Option<&Name>) -> Outcome<Self> {
        let runtime_dirs = RuntimeDirs::here();
        let Some(name) = name else {
            return only_one(Self::find_all().await, &runtime_dirs);
        };
        let (directories, refused) = trusted(&runtime_dirs);
        for (directory, owner) in directories {
            let app = Self {
                name: name.clone(),
                socket: names::socket_path(&directory, name)?,
                owner,
            };
            match app.reach().await {
                Ok(_) => return Ok(app),
                // It is there, and will be told to be silent.
                Err(error) if is_full(&error) => return Ok(app),
                Err(error) if is_nobody_there(&error) => {}
                Err(error) => return Err(cannot_connect(name, &error)),
            }
        }
        let looked_in = looked_in(&runtime_dirs, &refused);
        let reason = format!("no app named {name} is running{looked_in}");
        Err(Failure::new(Exit::NoApp, reason))
    }

    /// The app of that name whose socket lies in this directory of this user, whether it runs or not.
    ///
    /// # Errors
    ///
    /// Fails if the path of the socket is too long.
    pub fn at(name: Name, directory: &Path) -> Outcome<Self> {
        let socket = names::socket_path(directory, &name)?;
        let owner = identity::effective_uid();
        Ok(Self {
            name,
            socket,
            owner,
        })
    }

    /// All apps of this user, by name. For root, those of service users too.
    pub async fn find_all() -> Vec<Self> {
        let mut found = Vec::new();
        for (directory, owner) in trusted(&RuntimeDirs::here()).0 {
            for (name, socket) in sockets_in(&directory) {
                let app = Self {
                    name,
                    socket,
                    owner,
                };
                let reached = app.reach().await;
                if reached.is_ok() || reached.is_err_and(|error| is_full(&error)) {
                    found.push(app);
                }
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }
}

fn sockets_in(directory: &Path) -> Vec<(Name, PathBuf)> {
    // A directory that is not there, or not ours to read, holds none of our apps.
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sockets = entries.filter_map(|entry| {
        let path = entry.path();
        Some((names::name_of_socket(&path)?, path))
    });
    sockets.collect()
}

fn only_one(mut all: Vec<App>, runtime_dirs: &RuntimeDirs) -> Outcome<App> {
    if all.len() > 1 {
        let names: Vec<_> = all.iter().map(|app| app.name.as_str()).collect();
        let reason = format!(
            "several apps are running: {}; choose one with --name",
            names.join(", ")
        );
        return Err(Failure::new(Exit::NoApp, reason));
    }
    let none = || {
        Failure::new(
            Exit::NoApp,
            format!(
                "no app is running{}",
                looked_in(runtime_dirs, &trusted(runtime_dirs).1)
            ),
        )
    };
    all.pop().ok_or_else(none)
}

/// The directories that may be looked into, with their owners; and why others may not.
fn trusted(runtime_dirs: &RuntimeDirs) -> (Vec<(PathBuf, u32)>, Vec<String>) {
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for candidate in runtime_dirs.all_directories() {
        match runtime_dirs.trusted_owner(&candidate) {
            Some(Ok(owner)) => good.push((candidate.path, owner)),
            Some(Err(fault)) => refused.push(format!("{}: {fault}", candidate.path.display())),
            None => {}
        }
    }
    (good, refused)
}

fn looked_in(runtime_dirs: &RuntimeDirs, refused: &[String]) -> String {
    let directories = runtime_dirs.all_directories();
    let directories: Vec<_> = directories
        .iter()
        .map(|one| one.path.display().to_string())
        .collect();
    let mut text = format!(" (looked in {})", directories.join(", "));
    for fault in refused {
        text.push_str("; refused to look into ");
        text.push_str(fault);
    }
    text
}

/// No socket, or one that nobody listens on any more.
fn is_nobody_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

pub(super) fn cannot_connect(name: &Name, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::PermissionDenied {
        Exit::Refused
    } else if is_nobody_there(error) {
        Exit::NoApp
    } else {
        Exit::Failed
    };
    Failure::caused(
        exit,
        &format!("cannot talk to the primary of {name}"),
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_app_is_meant_must_be_clear() {
        let here = RuntimeDirs::default();
        let app = |name: &str| App {
            name: name.parse().unwrap(),
            socket: PathBuf::new(),
            owner: 0,
        };
        let failure = only_one(vec![], &here).unwrap_err();
        assert!(
            failure.exit == Exit::NoApp && failure.reason.contains("no app"),
            "{failure}"
        );
        assert_eq!(only_one(vec![app("a")], &here).unwrap().name.as_str(), "a");
        let failure = only_one(vec![app("a"), app("b")], &here).unwrap_err();
        assert!(failure.reason.contains("a, b"), "{failure}");
    }
}
