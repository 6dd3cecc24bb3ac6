//! After which of its words an app is called.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::node::is_node_name;
use super::node_options::NodeLine;

/// Names of files that every other app has too: such an app is called after its package or directory.
const POOR: [&str; 6] = ["__main__", "index", "main", "start", "wsgi", "www"];

/// Whether a file's name says nothing of the app.
#[must_use]
pub fn is_poor(file: &OsStr) -> bool {
    let stem = Path::new(file).file_stem().and_then(OsStr::to_str);
    stem.is_none_or(|stem| POOR.contains(&stem))
}

/// The word after which the app of this command is called: an interpreter's script or module, what a launcher starts, else the program.
#[must_use]
pub fn telling<'a>(program: &'a OsStr, args: &'a [OsString]) -> &'a OsStr {
    let name = Path::new(program).file_name().unwrap_or(program);
    let Some(text) = name.to_str() else {
        return program;
    };
    let family = text.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let plain = |args: &'a [OsString]| {
        let word = args
            .iter()
            .find(|word| !word.as_encoded_bytes().starts_with(b"-"));
        word.map(OsString::as_os_str)
    };
    let found = match family {
        _ if is_node_name(name) => NodeLine::parse(args).script.map(|at| args[at].as_os_str()),
        "python" | "pypy" => match args.iter().position(|word| word == "-m") {
            Some(at) if !args[..at].iter().any(|word| is_file(word)) => {
                args.get(at + 1).map(OsString::as_os_str)
            }
            Some(_) | None => args
                .iter()
                .find(|word| is_file(word))
                .map(OsString::as_os_str),
        },
        "ruby" | "perl" | "php" | "lua" | "sh" | "bash" | "dash" | "zsh" => args
            .iter()
            .find(|word| is_file(word))
            .map(OsString::as_os_str),
        "deno" | "bun" | "java" | "tsx" => args
            .iter()
            .find(|word| is_file(word))
            .map(OsString::as_os_str),
        "bundle" | "poetry" | "uv" | "pipenv" | "rye" => match args.split_first() {
            Some((verb, rest)) if verb == "exec" || verb == "run" => {
                let at = rest
                    .iter()
                    .position(|word| !word.as_encoded_bytes().starts_with(b"-"));
                return at.map_or(program, |at| telling(&rest[at], &rest[at + 1..]));
            }
            Some(_) | None => None,
        },
        "npx" | "pnpx" | "nodemon" => plain(args),
        _ => None,
    };
    found.unwrap_or(program)
}

/// A word that looks like a script or an archive of an interpreter.
fn is_file(word: &OsStr) -> bool {
    let known = [
        "py", "pyz", "rb", "ru", "pl", "php", "lua", "sh", "js", "mjs", "cjs", "ts", "mts", "cts",
        "tsx", "jar",
    ];
    let extension = Path::new(word).extension().and_then(OsStr::to_str);
    !word.as_encoded_bytes().starts_with(b"-") && extension.is_some_and(|end| known.contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_called_after_what_tells_it_from_others() {
        for (line, wanted) in [
            ("node -r ./early.js srv.js", "srv.js"),
            ("/usr/bin/node24 --title x.js web.js", "web.js"),
            ("python3 app.py 8000", "app.py"),
            ("python3.12 -u -m uvicorn main:app", "uvicorn"),
            ("python3 app.py -m x", "app.py"),
            ("python3 -c pass", "python3"),
            ("uv run --frozen app.py", "app.py"),
            ("poetry run gunicorn app:app", "gunicorn"),
            ("bundle exec puma -p 1", "puma"),
            ("java -Xmx1g -jar shop.jar", "shop.jar"),
            ("php -S 0:80 router.php", "router.php"),
            ("npx www", "www"),
            ("gunicorn app:app", "gunicorn"),
            ("./server", "./server"),
        ] {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            assert_eq!(telling(&words[0], &words[1..]), wanted, "{line}");
        }
        assert!(is_poor(OsStr::new("dist/index.js")));
        assert!(!is_poor(OsStr::new("server.js")));
    }
}
