//! Launchers: commands that start another. Package managers of Node name a script of the package or one of its executables; other
//! launchers execute what follows their own words, and leave descriptors and variables as they are.

use std::ffi::{OsStr, OsString};

use super::node::is_node_name;
use super::words;

/// What a launcher starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launch {
    /// The script of this name of the nearest package, with more arguments.
    Script {
        /// Its name in `scripts`.
        name: OsString,
        /// What is added to it.
        args: Vec<OsString>,
        /// An executable of this name will do where there is no such script.
        or_executable: bool,
    },
    /// The executable of this name that a package brings (`node_modules/.bin`), with arguments.
    Executable {
        /// Its file name.
        name: OsString,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// Node, whose name is this many words behind the launcher's own.
    Node {
        /// How many words are before it, the launcher's name among them.
        words: usize,
    },
    /// Variables and a command.
    Command(words::Command),
    /// Something that the words do not tell.
    Unknown,
}

/// Executables of packages that start another Node, which gets no channel from them.
const OPAQUE: [&str; 24] = [
    "concurrently",
    "cross-env-shell",
    "dotenv",
    "dotenvx",
    "env-cmd",
    "foreman",
    "forever",
    "lerna",
    "nf",
    "nodemon",
    "npm-run-all",
    "npm-run-all2",
    "nx",
    "pm2",
    "pm2-runtime",
    "run-p",
    "run-s",
    "supervisor",
    "ts-node-dev",
    "tsnd",
    "tsx",
    "turbo",
    "wait-on",
    "wireit",
];

/// Launchers that execute the rest of their words, or pass on what they were given: descriptors above all.
const PASSING: [&str; 18] = [
    "bundle",
    "chrt",
    "direnv",
    "dumb-init",
    "gosu",
    "ionice",
    "nice",
    "nohup",
    "pipenv",
    "poetry",
    "rye",
    "setsid",
    "stdbuf",
    "su-exec",
    "taskset",
    "tini",
    "uv",
    "catatonit",
];

/// What the launcher of this file name starts. None if it is no launcher.
#[must_use]
pub fn of(name: &OsStr, args: &[OsString]) -> Option<Launch> {
    let name = name.to_str()?;
    let stem = name.rsplit_once('.').map_or(name, |(stem, end)| {
        if matches!(end, "js" | "cjs" | "mjs") {
            stem
        } else {
            name
        }
    });
    match stem {
        "npm" | "npm-cli" => Some(of_npm(args)),
        "yarn" | "yarnpkg" => Some(of_yarn(args)),
        "pnpm" => Some(of_pnpm(args)),
        "npx" | "npx-cli" | "pnpx" => Some(of_npx(args)),
        "corepack" => {
            let (manager, args) = args.split_first()?;
            Some(of(manager, args).unwrap_or(Launch::Unknown))
        }
        "cross-env" => {
            let command = words::Command::assigned(args.iter().cloned());
            Some(command.map_or(Launch::Unknown, Launch::Command))
        }
        _ if OPAQUE.contains(&stem) => Some(Launch::Unknown),
        _ if PASSING.contains(&name) => {
            let at = args.iter().position(|word| is_node(word))?;
            Some(Launch::Node { words: at + 1 })
        }
        _ => None,
    }
}

fn is_node(word: &OsStr) -> bool {
    std::path::Path::new(word)
        .file_name()
        .is_some_and(is_node_name)
}

fn script(name: &OsStr, args: &[OsString]) -> Launch {
    Launch::Script {
        name: name.to_owned(),
        args: args.to_vec(),
        or_executable: false,
    }
}

fn executable(words: &[OsString]) -> Launch {
    match words.split_first() {
        Some((name, args)) if is_plain(name) => Launch::Executable {
            name: name.clone(),
            args: args.to_vec(),
        },
        Some(_) | None => Launch::Unknown,
    }
}

/// A name rather than an option or a package with a version or a place.
fn is_plain(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    !bytes.starts_with(b"-") && !bytes.iter().any(|byte| matches!(byte, b'@' | b'/' | b':'))
}

/// Without options that change only how much is said.
fn without_quiet(words: &[OsString]) -> &[OsString] {
    let is_quiet = |word: &&OsString| {
        ["-s", "--silent", "-q", "--quiet"]
            .iter()
            .any(|quiet| word == quiet)
    };
    let quiet = words.iter().take_while(is_quiet).count();
    &words[quiet..]
}

/// npm passes on what is no option of its own, and everything behind `--`.
fn npm_args(words: &[OsString]) -> Option<Vec<OsString>> {
    let words = without_quiet(words);
    let end = words.iter().position(|word| word == "--");
    let (own, behind) = words.split_at(end.unwrap_or(words.len()));
    let has_options = own
        .iter()
        .any(|word| word.as_encoded_bytes().starts_with(b"-"));
    let args = own.iter().chain(behind.iter().skip(1));
    (!has_options).then(|| args.cloned().collect())
}

fn of_npm(args: &[OsString]) -> Launch {
    let Some((verb, rest)) = without_quiet(args).split_first() else {
        return Launch::Unknown;
    };
    let named = match verb.to_str() {
        Some("start" | "restart" | "test") => Some((verb, rest)),
        Some("run" | "run-script" | "rum" | "urn") => without_quiet(rest).split_first(),
        Some("exec" | "x") => {
            let Some((name, args)) = rest.split_first() else {
                return Launch::Unknown;
            };
            if name == "--" {
                return executable(args);
            }
            return match npm_args(args) {
                Some(args) => executable(&[vec![name.clone()], args].concat()),
                None => Launch::Unknown,
            };
        }
        Some(_) | None => None,
    };
    named
        .filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"-"))
        .and_then(|(name, rest)| Some(script(name, &npm_args(rest)?)))
        .unwrap_or(Launch::Unknown)
}

fn of_yarn(args: &[OsString]) -> Launch {
    let args = without_quiet(args);
    let words = match args.split_first() {
        Some((verb, rest)) if verb == "run" || verb == "exec" => without_quiet(rest),
        Some(_) | None => args,
    };
    match words.split_first() {
        Some((name, args)) if name == "node" => Launch::Command(words::Command {
            variables: Vec::new(),
            words: [name.clone()]
                .into_iter()
                .chain(args.iter().cloned())
                .collect(),
        }),
        Some((name, args)) if !name.as_encoded_bytes().starts_with(b"-") => Launch::Script {
            name: name.clone(),
            args: args.to_vec(),
            or_executable: true,
        },
        Some(_) | None => Launch::Unknown,
    }
}

fn of_pnpm(args: &[OsString]) -> Launch {
    let args = without_quiet(args);
    match args.split_first() {
        Some((verb, rest)) if verb == "exec" => executable(rest),
        Some((verb, rest)) if verb == "run" || verb == "run-script" => {
            match without_quiet(rest).split_first() {
                Some((name, args)) if !name.as_encoded_bytes().starts_with(b"-") => {
                    script(name, args)
                }
                Some(_) | None => Launch::Unknown,
            }
        }
        Some((name, args)) if !name.as_encoded_bytes().starts_with(b"-") => Launch::Script {
            name: name.clone(),
            args: args.to_vec(),
            or_executable: true,
        },
        Some(_) | None => Launch::Unknown,
    }
}

fn of_npx(args: &[OsString]) -> Launch {
    let is_harmless = |word: &&OsString| {
        ["-y", "--yes", "--no", "--no-install", "-q", "--quiet", "--"]
            .iter()
            .any(|option| word == option)
    };
    let options = args.iter().take_while(is_harmless).count();
    executable(&args[options..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let shown = |args: &[OsString]| {
            let args = args.iter().map(|word| word.display().to_string());
            args.collect::<Vec<_>>().join(" ")
        };
        match of(&words[0], &words[1..]) {
            None => "none".to_owned(),
            Some(Launch::Unknown) => "unknown".to_owned(),
            Some(Launch::Node { words }) => format!("node behind {words}"),
            Some(Launch::Command(command)) => format!("command {}", shown(&command.words)),
            Some(Launch::Executable { name, args }) => {
                format!("bin {} {}", name.display(), shown(&args))
            }
            Some(Launch::Script { name, args, .. }) => {
                format!("script {} {}", name.display(), shown(&args))
            }
        }
        .trim_end()
        .to_owned()
    }

    #[test]
    fn launchers_say_what_they_start() {
        for (line, wanted) in [
            ("npm start", "script start"),
            ("npm -s start", "script start"),
            ("npm run web -- --port 3", "script web --port 3"),
            ("npm run web a", "script web a"),
            ("npm start --if-present", "unknown"),
            ("npm --prefix x start", "unknown"),
            ("npm install", "unknown"),
            ("npm", "unknown"),
            ("npm exec www", "bin www"),
            ("npm exec -- www -p 1", "bin www -p 1"),
            ("npm-cli.js start", "script start"),
            ("yarn start -p 1", "script start -p 1"),
            ("yarn run start", "script start"),
            ("yarn node a.js", "command node a.js"),
            ("yarn", "unknown"),
            ("pnpm start", "script start"),
            ("pnpm run start x", "script start x"),
            ("pnpm exec www", "bin www"),
            ("npx www -p 1", "bin www -p 1"),
            ("npx --no-install www", "bin www"),
            ("npx www@2", "unknown"),
            ("npx -p a b", "unknown"),
            ("corepack pnpm start", "script start"),
            ("cross-env A=1 node a.js", "command node a.js"),
            ("nodemon a.js", "unknown"),
            ("uv run node a.js", "node behind 2"),
            ("bundle exec puma", "none"),
            ("nice -n 5 /usr/bin/node a.js", "node behind 3"),
            ("node a.js", "none"),
            ("gunicorn app:app", "none"),
        ] {
            assert_eq!(told(line), wanted, "{line}");
        }
    }
}
