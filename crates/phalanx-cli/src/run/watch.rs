//! `--watch`: a reload when files change.
//!
//! Directories are watched one by one rather than as trees, so that those which are passed over (`node_modules`) cost no watch of the
//! kernel's, of which a user has few (`fs.inotify.max_user_watches`, inotify(7)).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use phalanx::supervisor::Control;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::controls::tell_answer;
use crate::args::WatchArgs;
use crate::log::{Level, Log};

/// As many directories are watched; a project that has more is told to name those that matter.
const MOST_DIRECTORIES: usize = 10_000;
/// Changes that wait to be looked at. While it is full the kernel keeps them, and says so when it cannot.
const WAITING: usize = 1024;
/// Whatever goes on changing is reloaded after this time all the same.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Names that are shown of the files that changed.
const SHOWN: usize = 3;

/// What is passed over unless it is named.
const IGNORED: [&str; 9] = [
    ".*",
    "node_modules",
    "target",
    "__pycache__",
    "*.log",
    "*.pid",
    "*.sock",
    "*.swp",
    "*~",
];

/// What is watched.
pub(super) struct Watched {
    /// Where the workers run.
    directory: PathBuf,
    roots: Vec<PathBuf>,
    ignored: Vec<String>,
    delay: Duration,
}

impl Watched {
    /// What the options say, for workers in this directory; nothing without `--watch`.
    pub(super) fn of(args: &WatchArgs, cwd: Option<&Path>) -> Option<Self> {
        let here = || env::current_dir().unwrap_or_default();
        let directory = cwd.map_or_else(here, Path::to_owned);
        let roots = if args.watch_path.is_empty() {
            vec![directory.clone()]
        } else {
            args.watch_path
                .iter()
                .map(|path| directory.join(path))
                .collect()
        };
        args.watch.then(|| Self {
            directory,
            roots,
            ignored: args.watch_ignore.clone(),
            delay: args.watch_delay,
        })
    }

    /// Reloads after each change, until nothing can be watched any more.
    pub(super) async fn reload_on_changes(self, control: &Control, log: &Log) {
        let failed = |error: &notify::Error| {
            let text = format!("changes are not watched any more: {}", reason(error));
            log.tell(Level::Error, "watch", &text, json!({}));
        };
        let (sender, mut events) = mpsc::channel(WAITING);
        let watcher = notify::recommended_watcher(move |change| {
            // The end of the app needs no changes.
            drop(sender.blocking_send(change));
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => return failed(&error),
        };
        let mut directories = BTreeSet::new();
        for root in &self.roots {
            if let Err(error) = self.watch(root, &mut watcher, &mut directories) {
                return failed(&error);
            }
        }
        let text = format!("watching {} for changes", counted(directories.len()));
        log.tell(
            Level::Info,
            "watch",
            &text,
            json!({"directories": directories.len()}),
        );
        while let Some(change) = events.recv().await {
            let mut changed = BTreeSet::new();
            let latest = Instant::now() + LONGEST_DELAY;
            let mut next = Some(change);
            while let Some(change) = next {
                match change {
                    Ok(event) => {
                        self.look_at(&event, &mut watcher, &mut directories, &mut changed);
                    }
                    Err(error) => return failed(&error),
                }
                let quiet = (Instant::now() + self.delay).min(latest);
                next = timeout_at(quiet, events.recv()).await.ok().flatten();
            }
            if changed.is_empty() {
                continue;
            }
            let text = format!("{} changed: reloading", self.names(&changed));
            log.tell(
                Level::Info,
                "watch",
                &text,
                json!({"changed": changed.len()}),
            );
            tell_answer("reload", log, control.reload().await);
        }
    }

    /// Notes which files the event is about, and watches directories that are new.
    fn look_at(
        &self,
        event: &Event,
        watcher: &mut RecommendedWatcher,
        directories: &mut BTreeSet<PathBuf>,
        changed: &mut BTreeSet<PathBuf>,
    ) {
        if event.need_rescan() {
            // The kernel had no room for what happened: anything may have.
            changed.insert(self.directory.clone());
        }
        if !is_change(event.kind) {
            return;
        }
        for path in event.paths.iter().filter(|path| self.is_watched(path)) {
            if path.is_dir() {
                // What cannot be watched (it may be gone again) is told of when it is all that there is.
                if self.watch(path, watcher, directories).is_err() {
                    tracing::debug!(path = %path.display(), "a new directory cannot be watched");
                }
            } else {
                directories.remove(path);
            }
            changed.insert(path.clone());
        }
    }

    /// Watches a file, by its directory, as editors replace files; or a directory and those below it.
    fn watch(
        &self,
        path: &Path,
        watcher: &mut RecommendedWatcher,
        directories: &mut BTreeSet<PathBuf>,
    ) -> notify::Result<()> {
        if !path.is_dir() {
            let parent = path.parent().unwrap_or(Path::new("/"));
            fs::symlink_metadata(path)
                .map_err(|error| notify::Error::io(error).add_path(path.into()))?;
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
            directories.insert(parent.to_owned());
            return Ok(());
        }
        let mut waiting = vec![path.to_owned()];
        while let Some(directory) = waiting.pop() {
            if directories.len() == MOST_DIRECTORIES {
                tracing::warn!(
                    "more than {MOST_DIRECTORIES} directories: only so many are watched; name what matters by --watch-path"
                );
                return Ok(());
            }
            if directories.insert(directory.clone()) {
                watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            }
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below = below.map(|entry| entry.path());
            waiting.extend(below.filter(|path| self.is_watched(path)));
        }
        Ok(())
    }

    /// Whether the path lies in what is watched and no part of it below that is passed over.
    fn is_watched(&self, path: &Path) -> bool {
        let ignored = || {
            IGNORED
                .into_iter()
                .chain(self.ignored.iter().map(String::as_str))
        };
        self.roots.iter().any(|root| {
            let below = path.strip_prefix(root);
            below.is_ok_and(|below| {
                let mut names = below.iter();
                names.all(|name| !ignored().any(|pattern| matches(pattern, name)))
            })
        })
    }

    fn names(&self, changed: &BTreeSet<PathBuf>) -> String {
        let shown = |path: &PathBuf| {
            let path = path.strip_prefix(&self.directory).unwrap_or(path);
            if path.as_os_str().is_empty() {
                ".".to_owned()
            } else {
                path.display().to_string()
            }
        };
        let names: Vec<_> = changed.iter().take(SHOWN).map(shown).collect();
        match changed.len().saturating_sub(SHOWN) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}

fn counted(directories: usize) -> String {
    if directories == 1 {
        "1 directory".to_owned()
    } else {
        format!("{directories} directories")
    }
}

/// Reading a file changes nothing, nor does another mode or owner. `touch` counts: it closes a file that it has opened for writing.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(how) => !matches!(how, ModifyKind::Metadata(_)),
        EventKind::Access(how) => how == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Other => false,
    }
}

/// Whether the name is the pattern, whose `*` at an end stands for anything.
fn matches(pattern: &str, name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (None, None) => name == pattern,
    }
}

fn reason(error: &notify::Error) -> String {
    let paths: Vec<_> = error
        .paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let text = match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the kernel has no watches left: raise fs.inotify.max_user_watches, or name what matters by --watch-path".to_owned()
        }
        ErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::Io(error) => error.to_string(),
        ErrorKind::PathNotFound => "there is no such file".to_owned(),
        ErrorKind::Generic(_) | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
            error.to_string()
        }
    };
    if paths.is_empty() {
        text
    } else {
        format!("{}: {text}", paths.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(roots: &[&str], ignored: &[&str]) -> Watched {
        Watched {
            directory: "/srv/app".into(),
            roots: roots.iter().map(PathBuf::from).collect(),
            ignored: ignored.iter().map(|&name| name.to_owned()).collect(),
            delay: Duration::ZERO,
        }
    }

    #[test]
    fn what_is_no_source_is_passed_over_and_what_lies_elsewhere_too() {
        let watched = watched(&["/srv/app"], &["uploads", "*.sqlite"]);
        for (path, is_watched) in [
            ("/srv/app/server.js", true),
            ("/srv/app/lib/db.js", true),
            ("/srv/app/node_modules/x/index.js", false),
            ("/srv/app/.git/index", false),
            ("/srv/app/lib/.server.js.swp", false),
            ("/srv/app/server.js~", false),
            ("/srv/app/logs/today.log", false),
            ("/srv/app/uploads/a.png", false),
            ("/srv/app/data.sqlite", false),
            ("/srv/other/server.js", false),
        ] {
            assert_eq!(watched.is_watched(Path::new(path)), is_watched, "{path}");
        }
    }

    #[test]
    fn a_root_may_have_a_name_that_is_passed_over_elsewhere() {
        let watched = watched(&["/srv/app/.config/app.json", "/srv/app/target"], &[]);
        assert!(watched.is_watched(Path::new("/srv/app/.config/app.json")));
        assert!(watched.is_watched(Path::new("/srv/app/target/release/app")));
        assert!(!watched.is_watched(Path::new("/srv/app/.config/other.json")));
    }

    #[test]
    fn only_some_of_many_names_are_shown() {
        let watched = watched(&["/srv/app"], &[]);
        let all = |paths: &[&str]| watched.names(&paths.iter().map(PathBuf::from).collect());
        assert_eq!(all(&["/srv/app/b.js", "/srv/app/a.js"]), "a.js, b.js");
        assert_eq!(
            all(&[
                "/srv/app/a",
                "/srv/app/b",
                "/srv/app/c",
                "/srv/app/d",
                "/srv/app/e"
            ]),
            "a, b, c and 2 more"
        );
    }
}
