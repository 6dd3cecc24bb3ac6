//! Where the file is.

use std::path::{Path, PathBuf};

/// What the file is called.
pub const FILE_NAME: &str = "phalanx.toml";

/// The file in this directory, or in the nearest above it that has one.
#[must_use]
pub fn find(directory: &Path) -> Option<PathBuf> {
    let files = directory.ancestors().map(|one| one.join(FILE_NAME));
    files.into_iter().find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_file_counts() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let upper = top.path().join(FILE_NAME);
        std::fs::write(&upper, "").unwrap();
        assert_eq!(find(&deep), Some(upper));
        let nearer = top.path().join("a").join(FILE_NAME);
        std::fs::write(&nearer, "").unwrap();
        assert_eq!(find(&deep), Some(nearer));
    }
}
