//! Walks a way link by link, and sees who else could move a part of it.

use std::collections::VecDeque;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::{Directory, Exposed, FOR_OTHERS_TO_WRITE};
use crate::identity;

/// As many as the kernel follows (`path_resolution(7)`).
const LINKS_MAX: u32 = 40;
const STICKY: u32 = 0o1000;

/// One step of a way.
enum Step {
    Root,
    Up,
    Into(OsString),
}

/// A way that is being walked.
pub(super) struct Walk {
    at: OwnedFd,
    /// The same as a path, to be shown.
    shown: PathBuf,
    steps: VecDeque<Step>,
    links: u32,
    pub(super) exposed: Option<Exposed>,
}

impl Walk {
    pub(super) fn start(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = retry_on_intr(|| fs::openat(CWD, c".", flags, Mode::empty()))?;
        let mut walk = Self::from(at, PathBuf::new());
        walk.put_first(path);
        Ok(walk)
    }

    pub(super) fn from(at: OwnedFd, shown: PathBuf) -> Self {
        Self {
            at,
            shown,
            steps: VecDeque::new(),
            links: 0,
            exposed: None,
        }
    }

    fn put_first(&mut self, path: &Path) {
        for component in path.components().rev() {
            let step = match component {
                Component::Prefix(_) | Component::CurDir => continue,
                Component::RootDir => Step::Root,
                Component::ParentDir => Step::Up,
                Component::Normal(name) => Step::Into(name.to_owned()),
            };
            self.steps.push_front(step);
        }
    }

    pub(super) fn finish(mut self) -> io::Result<Directory> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Root => self.go(c"/", "/".into())?,
                Step::Up => self.go(c"..", self.shown.join(".."))?,
                Step::Into(name) => self.go_into(&name)?,
            }
        }
        Ok(Directory {
            fd: self.at,
            exposed: self.exposed,
        })
    }

    fn go(&mut self, name: &CStr, shown: PathBuf) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.at = retry_on_intr(|| fs::openat(&self.at, name, flags, Mode::empty()))?;
        self.shown = shown;
        Ok(())
    }

    fn go_into(&mut self, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = retry_on_intr(|| fs::openat(&self.at, name, flags, Mode::empty()))?;
        let stat = fs::fstat(&found)?;
        self.look_at_entry(name, &stat)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            self.at = found;
            self.shown.push(name);
            return Ok(());
        }
        if kind != FileType::Symlink {
            return Err(Errno::NOTDIR.into());
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = fs::readlinkat(&found, c"", Vec::new())?;
        self.put_first(Path::new(OsStr::from_bytes(target.to_bytes())));
        Ok(())
    }

    /// Can somebody else move what was found under `name`?
    pub(super) fn look_at_entry(&mut self, name: &OsStr, entry: &Stat) -> io::Result<()> {
        if self.exposed.is_some() {
            return Ok(());
        }
        let directory = fs::fstat(&self.at)?;
        let is_open = directory.st_mode & FOR_OTHERS_TO_WRITE != 0;
        let is_sticky = directory.st_mode & STICKY != 0;
        if !identity::is_trusted(directory.st_uid) || (is_open && !is_sticky) {
            self.exposed = Some(Exposed::new(self.shown.clone(), &directory));
        } else if is_open && !identity::is_trusted(entry.st_uid) {
            // In a sticky directory each owner moves his own.
            self.exposed = Some(Exposed::new(self.shown.join(name), entry));
        }
        Ok(())
    }
}
