//! What a new process shall be: its program and everything that it inherits.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::SpawnError;
use super::header;
use crate::signal::Signal;

/// A process to be started by [`spawn`](super::spawn). What is not listed is not inherited,
/// with two exceptions: descriptors 0, 1 and 2, unless `fds` says otherwise, and the umask and the resource
/// limits, of which that of open files is the one that this process was started with.
#[derive(Clone)]
pub struct SpawnPlan {
    /// The file to execute, as found by [`resolve_program`]. A relative path is taken from
    /// `cwd`.
    pub program: PathBuf,
    /// The arguments, the name of the program (`argv[0]`) first.
    pub args: Vec<OsString>,
    /// The complete environment.
    pub env: Vec<(OsString, OsString)>,
    /// Variables that hold the new process's own number, as `LISTEN_PID` does; beside those of `env`.
    pub own_pid_env: Vec<OsString>,
    /// The working directory; that of this process when `None`.
    pub cwd: Option<PathBuf>,
    /// The descriptors that it has. All others from 3 on are closed.
    pub fds: Vec<FdMapping>,
    /// The user to become. Supplementary groups are dropped when this process is root.
    pub uid: Option<u32>,
    /// The group to become. Give it together with `uid`: a user without it keeps this
    /// process's group.
    pub gid: Option<u32>,
    /// Whether it leads a process group of its own, which
    /// [`Process::signal_group`](super::Process::signal_group) reaches, and which a terminal's
    /// Ctrl-C does not.
    pub new_process_group: bool,
    /// The signal that it gets when this process ends, in whatever way.
    pub die_with_parent: Option<Signal>,
    /// An open file to execute instead of the one at `program`, which is then only a name.
    pub executable: Option<Arc<OwnedFd>>,
    /// The directory of the control group that it begins in, with whatever it starts. Where the kernel refuses
    /// (before Linux 5.7, or for want of a right) it begins in that of this process.
    pub cgroup: Option<Arc<OwnedFd>>,
    /// Whether it and all its descendants ask this process before they bind and listen:
    /// [`Process::take_interception`](super::Process::take_interception) receives the calls. Without
    /// `CAP_SYS_ADMIN` they cannot gain privileges any more, as by setuid programs.
    pub intercept: bool,
    /// With [`intercept`](Self::intercept): hear of what it does to Unix paths too, by bind and by unlink.
    pub intercept_paths: bool,
}

/// A descriptor for a new process.
#[derive(Clone, Debug)]
pub struct FdMapping {
    /// Where it comes from.
    pub source: FdSource,
    /// Its number in the new process. May be the number of any descriptor of this process.
    pub target: i32,
}

/// Where the descriptor of a new process comes from.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a plan says exactly what is inherited"
)]
pub enum FdSource {
    /// A descriptor of this process. When the plan holds the last reference, as for the
    /// worker's end of a channel, it is closed here at the end of the spawn.
    Shared(Arc<OwnedFd>),
    /// The descriptor with this number, which this process inherited itself.
    Inherit(i32),
    /// `/dev/null`, for reading and writing.
    Null,
}

impl SpawnPlan {
    /// A plan for `program` with its own path as `argv[0]` and with nothing else: no arguments,
    /// an empty environment, this process's working directory, user and process group.
    #[must_use]
    pub fn new(program: PathBuf) -> SpawnPlan {
        SpawnPlan {
            args: vec![program.clone().into_os_string()],
            program,
            env: Vec::new(),
            own_pid_env: Vec::new(),
            cwd: None,
            fds: Vec::new(),
            uid: None,
            gid: None,
            new_process_group: false,
            die_with_parent: None,
            executable: None,
            cgroup: None,
            intercept: false,
            intercept_paths: false,
        }
    }
}

/// Leaves the environment out, which is full of secrets.
impl fmt::Debug for SpawnPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnPlan")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env_count", &self.env.len())
            .field("own_pid_env", &self.own_pid_env)
            .field("cwd", &self.cwd)
            .field("fds", &self.fds)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .field("new_process_group", &self.new_process_group)
            .field("die_with_parent", &self.die_with_parent)
            .field("executable", &self.executable)
            .field("cgroup", &self.cgroup)
            .field("intercept", &self.intercept)
            .field("intercept_paths", &self.intercept_paths)
            .finish()
    }
}

impl FdMapping {
    /// Gives `fd` away: it becomes `target` in the new process and is closed here.
    #[must_use]
    pub fn owned(fd: OwnedFd, target: i32) -> FdMapping {
        FdMapping::shared(Arc::new(fd), target)
    }

    /// Gives a duplicate of `fd`, which becomes `target` in the new process.
    #[must_use]
    pub fn shared(fd: Arc<OwnedFd>, target: i32) -> FdMapping {
        FdMapping {
            source: FdSource::Shared(fd),
            target,
        }
    }

    /// Gives a duplicate of this process's descriptor `number`, which it inherited itself.
    #[must_use]
    pub fn inherit(number: i32, target: i32) -> FdMapping {
        FdMapping {
            source: FdSource::Inherit(number),
            target,
        }
    }

    /// Gives `/dev/null`.
    #[must_use]
    pub fn null(target: i32) -> FdMapping {
        FdMapping {
            source: FdSource::Null,
            target,
        }
    }
}

/// Where execvp(3) searches when there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds the file that `name` stands for, as execvp(3) does: a name with a `/` is a path, taken
/// from `cwd`; any other is searched in the directories of `path_var` (empty ones and relative
/// ones taken from `cwd`). The answer is absolute when `cwd` is.
///
/// Permission is judged for the real user of this process, not for one that the new process
/// might become.
///
/// # Errors
///
/// [`SpawnError::NotFound`]; [`SpawnError::NotExecutable`] when only files of that name were
/// found that cannot be executed.
pub fn resolve_program(
    name: &OsStr,
    path_var: Option<&OsStr>,
    cwd: &Path,
) -> Result<PathBuf, SpawnError> {
    let not_found = || SpawnError::NotFound {
        program: name.to_owned(),
    };
    if name.is_empty() {
        return Err(not_found());
    }
    if name.as_bytes().contains(&b'/') {
        let path = cwd.join(name);
        return match check_executable(&path) {
            Ok(()) => Ok(path),
            Err(source) if is_missing(&source) => Err(not_found()),
            Err(source) => Err(SpawnError::NotExecutable { path, source }),
        };
    }
    let mut refused = None;
    let path_var = path_var.unwrap_or(OsStr::new(DEFAULT_PATH));
    for directory in path_var.as_bytes().split(|byte| *byte == b':') {
        let directory = OsString::from_vec(directory.to_vec());
        let path = cwd.join(directory).join(name);
        match check_executable(&path) {
            Ok(()) => return Ok(path),
            Err(source) if is_missing(&source) => {}
            Err(source) => {
                refused.get_or_insert(SpawnError::NotExecutable { path, source });
            }
        }
    }
    Err(refused.unwrap_or_else(not_found))
}

fn check_executable(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !metadata.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    access(path, Access::EXEC_OK)?;
    header::check(path)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory `a` with a file `tool` that cannot be executed and one `b` with one that can.
    fn two_directories() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("a", 0o644), ("b", 0o755)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            let tool = dir.path().join(name).join("tool");
            fs::write(&tool, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&tool, fs::Permissions::from_mode(mode)).unwrap();
        }
        dir
    }

    fn resolve(name: &str, path_var: &str, cwd: &Path) -> Result<PathBuf, SpawnError> {
        resolve_program(OsStr::new(name), Some(OsStr::new(path_var)), cwd)
    }

    #[test]
    fn a_file_that_cannot_be_executed_is_passed_over() {
        let dir = two_directories();
        let found = resolve("tool", "nowhere:a:b", dir.path()).unwrap();
        assert_eq!(found, dir.path().join("b/tool"));
        let error = resolve("tool", "nowhere:a", dir.path()).unwrap_err();
        let SpawnError::NotExecutable { path, source } = error else {
            panic!("{error}");
        };
        assert_eq!(path, dir.path().join("a/tool"));
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_name_with_a_slash_is_taken_from_the_working_directory() {
        let dir = two_directories();
        let found = resolve("./tool", "/nowhere", &dir.path().join("b")).unwrap();
        assert_eq!(found, dir.path().join("b/./tool"));
        let error = resolve("b/missing", "b", dir.path()).unwrap_err();
        assert!(matches!(error, SpawnError::NotFound { .. }), "{error}");
        let error = resolve("./b", "b", dir.path()).unwrap_err();
        assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
    }

    #[test]
    fn an_empty_directory_of_path_is_the_working_directory() {
        let dir = two_directories();
        let found = resolve("tool", "/nowhere:", &dir.path().join("b")).unwrap();
        assert_eq!(found, dir.path().join("b/tool"));
    }

    #[test]
    fn without_path_the_usual_places_are_searched() {
        let found = resolve_program(OsStr::new("sh"), None, Path::new("/")).unwrap();
        assert!(found.ends_with("bin/sh"), "{}", found.display());
        let error = resolve_program(OsStr::new(""), None, Path::new("/")).unwrap_err();
        assert!(matches!(error, SpawnError::NotFound { .. }), "{error}");
    }

    #[test]
    fn a_plan_does_not_show_its_environment() {
        let mut plan = SpawnPlan::new(PathBuf::from("/bin/sh"));
        plan.env.push(("TOKEN".into(), "hunter2".into()));
        let shown = format!("{plan:?}");
        assert!(shown.contains("env_count: 1"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
