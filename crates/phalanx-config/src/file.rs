//! A file, read and put together.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::app::App;
use crate::keys::{Key, Keys};
use crate::problem::Problems;
use crate::read;

/// What a file is read by.
#[expect(
    clippy::exhaustive_structs,
    reason = "whoever reads a file has to say all of it"
)]
pub struct Context<'a> {
    /// The keys that an app may have.
    pub keys: &'a Keys,
    /// The profile, whose keys come before those of the apps.
    pub profile: Option<&'a str>,
    /// The variables of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file with variables.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Whether a value may stand at a key; if not, why.
    pub accepts: &'a dyn Fn(&Key, &str) -> Result<(), String>,
    /// Whether an app may have this name; if not, why.
    pub accepts_name: &'a dyn Fn(&str) -> Result<(), String>,
    /// Whose variables and files with variables have to be there. Of other apps they are not looked up.
    pub wants: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// A file in which nothing is wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// The apps, in the order of their names.
    pub apps: Vec<App>,
}

impl File {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, in the order of the text.
    pub fn read(path: &Path, text: &str, context: &Context<'_>) -> Result<Self, Problems> {
        let apps = read::read(path, text, context)?;
        Ok(Self {
            path: path.to_owned(),
            apps,
        })
    }

    /// The app of that name.
    #[must_use]
    pub fn app(&self, name: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.name == name)
    }

    /// The directory that relative paths in the file start from.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Whether the text speaks of an app of that name, as far as can be told of one in which something is wrong.
    #[must_use]
    pub fn speaks_of(text: &str, name: &str) -> bool {
        read::names(text).contains(name)
    }

    /// The names of all apps that the text speaks of, in itself and in its profiles.
    #[must_use]
    pub fn names(text: &str) -> BTreeSet<String> {
        read::names(text)
    }
}
