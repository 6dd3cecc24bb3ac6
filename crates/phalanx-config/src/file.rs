//! A file, read and put together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::app::App;
use crate::problem::Problems;
use crate::read;
pub use crate::read::Context;

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
