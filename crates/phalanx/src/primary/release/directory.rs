//! The directory that the primary was started in, by the name that it had then.
//!
//! A deploy moves a link (`current`), and who was started in there stands in what the link led to then. The shell's `$PWD` has the name
//! with the link: what is started later goes where that name leads by then. It counts only if it led here when it was first asked.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A name for the working directory.
struct Named {
    name: PathBuf,
    real: PathBuf,
}

/// The directory that the program was started in, by the name of the shell's if it has one that leads there: so with links in it, which
/// are followed anew by whoever uses it. Otherwise the real one; also when the program has gone elsewhere since.
///
/// # Errors
/// When the working directory is gone and had no name.
pub fn working_directory() -> io::Result<PathBuf> {
    static NAMED: OnceLock<Option<Named>> = OnceLock::new();
    let named = NAMED.get_or_init(|| {
        let name = PathBuf::from(std::env::var_os("PWD")?);
        let real = std::env::current_dir().ok()?;
        let (there, here) = (fs::metadata(&name).ok()?, fs::metadata(&real).ok()?);
        let is_here = (there.dev(), there.ino()) == (here.dev(), here.ino());
        (name.is_absolute() && is_here).then_some(Named { name, real })
    });
    match (named, std::env::current_dir()) {
        (Some(named), Ok(here)) if here != named.real => Ok(here),
        (Some(named), _) => Ok(named.name.clone()),
        (None, here) => here,
    }
}
