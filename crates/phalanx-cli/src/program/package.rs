//! Packages of Node: what `package.json` says of scripts, entry and name, and how npm runs a script.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::values::Variable;

/// What a package says of itself.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) directory: PathBuf,
    json: Value,
}

impl Package {
    /// The package of exactly this directory.
    pub(super) fn at(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join("package.json")).ok()?;
        let json = serde_json::from_slice(&text).ok()?;
        Some(Self {
            directory: directory.to_owned(),
            json,
        })
    }

    /// The package that this directory belongs to.
    pub(super) fn around(directory: &Path) -> Option<Self> {
        directory.ancestors().find_map(Self::at)
    }

    pub(super) fn name(&self) -> Option<&str> {
        let name = self.json["name"].as_str()?;
        Some(name.rsplit('/').next().unwrap_or(name))
    }

    /// What this script is, as npm has it: one named `start` is `node server.js` if there is such a file and nothing else is said.
    pub(super) fn script(&self, name: &str) -> Option<String> {
        let named = self.json["scripts"][name].as_str().map(str::to_owned);
        let is_default = name == "start" && self.directory.join("server.js").is_file();
        named.or_else(|| is_default.then(|| "node server.js".to_owned()))
    }

    /// The file that Node would run for this directory: what `main` or `exports` name, else `index.js`.
    pub(super) fn entry(&self) -> Option<PathBuf> {
        let main = self.json["main"].as_str();
        let exported = exported(&self.json["exports"]);
        let named = [main, exported].into_iter().flatten();
        named
            .chain(["index.js"])
            .find_map(|file| file_of(&self.directory, Path::new(file)))
    }

    /// The variables that npm sets for a script of this package, of which those are here that servers use.
    pub(super) fn variables(
        &self,
        script: &str,
        line: &str,
        path: Option<&OsStr>,
    ) -> Vec<Variable> {
        let text = |key: &str| self.json[key].as_str().unwrap_or_default().to_owned();
        let own = self.directory.join("package.json").into_os_string();
        let mut variables: Vec<(&str, OsString)> = vec![
            ("PATH", path_with_executables(&self.directory, path)),
            ("npm_lifecycle_event", script.into()),
            ("npm_lifecycle_script", line.into()),
            ("npm_package_json", own),
            ("npm_package_name", text("name").into()),
            ("npm_package_version", text("version").into()),
        ];
        if let Some(config) = self.json["config"].as_object() {
            let config = config.iter();
            let config = config.filter_map(|(key, value)| Some((key, value.as_str()?)));
            let named = config.map(|(key, value)| Variable {
                key: format!("npm_package_config_{key}").into(),
                value: value.into(),
            });
            let rest: Vec<_> = named.collect();
            return as_variables(variables.drain(..)).chain(rest).collect();
        }
        as_variables(variables.into_iter()).collect()
    }
}

fn as_variables<'a>(
    named: impl Iterator<Item = (&'a str, OsString)>,
) -> impl Iterator<Item = Variable> {
    named.map(|(key, value)| Variable {
        key: key.into(),
        value,
    })
}

/// What the package itself is in `exports`, for who requires or imports it.
fn exported(exports: &Value) -> Option<&str> {
    let of_map = || {
        [".", "node", "import", "require", "default"]
            .iter()
            .find_map(|key| exported(exports.get(*key)?))
    };
    exports.as_str().or_else(of_map)
}

/// The file that is meant by `name`, as Node completes it.
fn file_of(directory: &Path, name: &Path) -> Option<PathBuf> {
    let path = directory.join(name);
    let mut with_js = path.clone().into_os_string();
    with_js.push(".js");
    let candidates = [path.clone(), with_js.into(), path.join("index.js")];
    let found = candidates.into_iter().find(|path| path.is_file())?;
    let found = found.strip_prefix(directory).unwrap_or(&found);
    Some(found.components().collect())
}

/// `PATH` with the executables of the packages from this directory upwards in front.
pub(super) fn path_with_executables(directory: &Path, path: Option<&OsStr>) -> OsString {
    let own = directory
        .ancestors()
        .map(|place| place.join("node_modules/.bin"))
        .filter(|place| place.is_dir());
    let path = path.map(std::env::split_paths).into_iter().flatten();
    std::env::join_paths(own.chain(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(json: &str, files: &[&str]) -> (tempfile::TempDir, Package) {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("package.json"), json).unwrap();
        for file in files {
            fs::create_dir_all(place.path().join(file).parent().unwrap()).unwrap();
            fs::write(place.path().join(file), "").unwrap();
        }
        let package = Package::at(place.path()).unwrap();
        (place, package)
    }

    #[test]
    fn the_entry_is_the_file_that_node_would_run() {
        for (json, files, entry) in [
            (
                r#"{"main": "app.js"}"#,
                &["app.js", "index.js"][..],
                Some("app.js"),
            ),
            (
                r#"{"main": "./lib"}"#,
                &["lib/index.js"],
                Some("lib/index.js"),
            ),
            (
                r#"{"main": "dist/app"}"#,
                &["dist/app.js"],
                Some("dist/app.js"),
            ),
            (r#"{"main": "gone.js"}"#, &["index.js"], Some("index.js")),
            (
                r#"{"exports": {".": {"import": "./a.mjs"}}}"#,
                &["a.mjs"],
                Some("a.mjs"),
            ),
            (r#"{"exports": "./b.js"}"#, &["b.js"], Some("b.js")),
            ("{}", &["server.js"], None),
        ] {
            let (_place, package) = package(json, files);
            assert_eq!(package.entry().as_deref(), entry.map(Path::new), "{json}");
        }
    }

    #[test]
    fn a_package_starts_as_npm_starts_it() {
        let (_place, named) = package(
            r#"{"name": "@a/web", "scripts": {"start": "node x.js"}}"#,
            &["server.js"],
        );
        assert_eq!(
            (named.name(), named.script("start").as_deref()),
            (Some("web"), Some("node x.js"))
        );
        let (_place, default) = package("{}", &["server.js"]);
        assert_eq!(default.script("start").as_deref(), Some("node server.js"));
        assert_eq!(default.script("web"), None);
    }
}
