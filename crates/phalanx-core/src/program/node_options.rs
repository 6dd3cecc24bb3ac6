//! Node's command line: which words are its options, which are their values, and where the script is.
//!
//! The one parser for it. The options that take a value are Node's own list, of all versions that are supported; a test
//! compares it with what each Node says of itself (`crates/phalanx-cli/tests/node_options.rs`).

use std::borrow::Cow;
use std::ffi::OsStr;

use super::words::split_once;

/// Options whose value may be the next word: those that some Node from 18 to 26 lists so, and their other names.
/// Options of V8 take a value only behind `=`.
const WITH_VALUE: [&str; 97] = [
    "--allow-fs-read",
    "--allow-fs-write",
    "--bench-isolation",
    "--bench-name-pattern",
    "--bench-reporter",
    "--bench-reporter-destination",
    "--bench-samples",
    "--bench-warmup",
    "--build-sea",
    "--build-snapshot-config",
    "--conditions",
    "--cpu-prof-dir",
    "--cpu-prof-interval",
    "--cpu-prof-name",
    "--diagnostic-dir",
    "--disable-proto",
    "--disable-warning",
    "--dns-result-order",
    "--env-file",
    "--env-file-if-exists",
    "--es-module-specifier-resolution",
    "--eval",
    "--experimental-config-file",
    "--experimental-default-type",
    "--experimental-loader",
    "--experimental-package-map",
    "--experimental-policy",
    "--experimental-sea-config",
    "--experimental-specifier-resolution",
    "--experimental-test-isolation",
    "--experimental-test-tag-filter",
    "--heap-prof-dir",
    "--heap-prof-interval",
    "--heap-prof-name",
    "--heapsnapshot-near-heap-limit",
    "--heapsnapshot-signal",
    "--icu-data-dir",
    "--import",
    "--input-type",
    "--inspect-port",
    "--inspect-publish-uid",
    "--loader",
    "--localstorage-file",
    "--max-http-header-size",
    "--max-old-space-size-percentage",
    "--network-family-autoselection-attempt-timeout",
    "--openssl-config",
    "--policy-integrity",
    "--redirect-warnings",
    "--report-dir",
    "--report-directory",
    "--report-filename",
    "--report-signal",
    "--require",
    "--run",
    "--secure-heap",
    "--secure-heap-min",
    "--security-revert",
    "--security-reverts",
    "--snapshot-blob",
    "--stack-trace-limit",
    "--test-concurrency",
    "--test-coverage-branches",
    "--test-coverage-exclude",
    "--test-coverage-functions",
    "--test-coverage-include",
    "--test-coverage-lines",
    "--test-global-setup",
    "--test-isolation",
    "--test-name-pattern",
    "--test-random-seed",
    "--test-reporter",
    "--test-reporter-destination",
    "--test-rerun-failures",
    "--test-shard",
    "--test-skip-pattern",
    "--test-timeout",
    "--title",
    "--tls-cipher-list",
    "--tls-keylog",
    "--trace-event-categories",
    "--trace-event-file-pattern",
    "--trace-require-module",
    "--unhandled-rejections",
    "--use-largepages",
    "--v8-pool-size",
    "--vfs-load",
    "--vfs-mount",
    "--watch-kill-signal",
    "--watch-path",
    // Other names of these.
    "--debug-port",
    "-C",
    "-e",
    "-pe",
    "-r",
    // Not in Node's list as such: `--print WORD` prints what the word comes to.
    "-p",
    "--print",
];

/// Whether the value of this option of Node's may be the next word. `name` is as [`NodeOption::name`] has it.
#[must_use]
pub fn takes_value(name: &str) -> bool {
    WITH_VALUE.contains(&name)
}

/// An option among Node's words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeOption<'a> {
    /// Where its last word is, counted from 0: the option itself, or its value.
    pub last: usize,
    /// Its name, with `-` for `_`, and long: `--require` for `-r`.
    pub name: Cow<'a, str>,
    /// Its value, behind `=` or in the next word.
    pub value: Option<&'a OsStr>,
}

/// Node's words, without its own name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLine<'a> {
    /// Its options, in order.
    pub options: Vec<NodeOption<'a>>,
    /// Where the script is among the words. None where Node runs no file: `-e`, `--run`, standard input.
    pub script: Option<usize>,
}

impl<'a> NodeLine<'a> {
    /// Takes the words apart as Node does.
    #[must_use]
    pub fn parse<S: AsRef<OsStr>>(words: &'a [S]) -> Self {
        let mut line = Self::default();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let word = word.as_ref();
            let bytes = word.as_encoded_bytes();
            if bytes == b"--" {
                at += 1;
                break;
            }
            if !bytes.starts_with(b"-") || bytes == b"-" {
                break;
            }
            let option = option(word, words.get(at + 1).map(AsRef::as_ref), at);
            at = option.last + 1;
            line.options.push(option);
        }
        let is_file = words.get(at).is_some_and(|word| word.as_ref() != "-");
        line.script = (is_file && !line.runs_no_file()).then_some(at);
        line
    }

    fn runs_no_file(&self) -> bool {
        let runs = ["--eval", "--print", "--run"];
        self.options
            .iter()
            .any(|option| runs.contains(&&*option.name))
    }

    /// Whether an option of one of these names is there.
    #[must_use]
    pub fn has(&self, names: &[&str]) -> bool {
        self.options
            .iter()
            .any(|option| names.contains(&&*option.name))
    }
}

fn option<'a>(word: &'a OsStr, next: Option<&'a OsStr>, at: usize) -> NodeOption<'a> {
    let bytes = word.as_encoded_bytes();
    let (name, value) = match split_once(word, b'=') {
        Some((name, value)) if bytes.starts_with(b"--") => (name, Some(value)),
        Some(_) | None => (word, None),
    };
    let name = long(name.to_string_lossy());
    // A word that begins like an option is none's value, save behind a backslash.
    let next = next.filter(|next| !next.as_encoded_bytes().starts_with(b"-"));
    let next = next.filter(|_| value.is_none() && takes_value(&name));
    NodeOption {
        last: at + usize::from(next.is_some()),
        name,
        value: value.or(next),
    }
}

fn long(name: Cow<'_, str>) -> Cow<'_, str> {
    Cow::Borrowed(match &*name {
        "-r" => "--require",
        "-C" => "--conditions",
        "-e" | "-pe" => "--eval",
        "-p" => "--print",
        "--debug-port" | "--debug_port" => "--inspect-port",
        "--loader" => "--experimental-loader",
        _ if name.starts_with("--") && name.contains('_') => {
            let name = name.replace('_', "-");
            return Cow::Owned(name);
        }
        _ => return name,
    })
}

/// The words in `NODE_OPTIONS`, as Node takes them apart: at spaces, but not within double quotes, where a backslash takes the next
/// letter as it is.
#[must_use]
pub fn split_variable(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut is_quoted, mut is_new) = (false, true);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '"' => {
                is_quoted = !is_quoted;
                continue;
            }
            ' ' if !is_quoted => {
                is_new = true;
                continue;
            }
            '\\' if is_quoted => letters.next().unwrap_or('\\'),
            other => other,
        };
        match words.last_mut().filter(|_| !is_new) {
            Some(word) => word.push(letter),
            None => words.push(letter.into()),
        }
        is_new = false;
    }
    words
}

/// The files that `--env-file` and `--env-file-if-exists` name. Node looks for them among all its words up to `--`, also behind the script.
pub fn env_files<S: AsRef<OsStr>>(words: &[S]) -> impl Iterator<Item = &OsStr> {
    let words = words.iter().map(AsRef::as_ref);
    let mut words = words.take_while(|word| *word != "--");
    std::iter::from_fn(move || {
        loop {
            let word = words.next()?;
            let (name, value) =
                split_once(word, b'=').map_or((word, None), |(name, value)| (name, Some(value)));
            if name == "--env-file" || name == "--env-file-if-exists" {
                return value.or_else(|| words.next());
            }
        }
    })
}

/// What Node's options say of its inspector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspector {
    /// The port; 0 for any that is free, `None` when none was named.
    pub port: Option<u16>,
    /// Behind how many words another port can be named so that Node obeys it.
    pub behind: usize,
}

/// What these options say of the inspector: the last word counts, also when it comes without a port.
#[must_use]
pub fn inspector(line: &NodeLine<'_>) -> Option<Inspector> {
    let mut found: Option<Inspector> = None;
    for option in &line.options {
        let names = [
            "--inspect",
            "--inspect-brk",
            "--inspect-brk-node",
            "--inspect-wait",
            "--inspect-port",
        ];
        if !names.contains(&&*option.name) {
            continue;
        }
        let own = option.value.and_then(OsStr::to_str).and_then(port);
        found = Some(Inspector {
            port: own.or(found.and_then(|before| before.port)),
            behind: option.last + 1,
        });
    }
    found
}

/// The port in `PORT`, `HOST:PORT`, `[HOST]:PORT`; none in a host alone.
fn port(value: &str) -> Option<u16> {
    let port = value.rsplit(':').next().unwrap_or(value);
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = NodeLine::parse(&words).script?;
        Some(words[at].to_owned())
    }

    #[test]
    fn values_of_options_are_no_scripts() {
        for line in [
            "s.js -r other.js",
            "-r early.js s.js",
            "--require early.js --import late.mjs s.js x.js",
            "-C production s.js",
            "--title web.js s.js",
            "--env-file .env s.js",
            "--inspect-port 9300 --inspect s.js",
            "--inspect s.js",
            "--max-old-space-size=64 --no-warnings s.js",
            "--experimental-permission --allow-fs-read * s.js",
            "-r ./x -- s.js",
            "--title --no-warnings s.js",
        ] {
            assert_eq!(script(line).as_deref(), Some("s.js"), "{line}");
        }
        for line in [
            "-e 1 s.js",
            "-p 1",
            "--eval=1 s.js",
            "--run start",
            "- s.js",
            "--",
            "",
        ] {
            assert_eq!(script(line), None, "{line}");
        }
    }

    #[test]
    fn the_variable_is_taken_apart_at_spaces_outside_of_quotes() {
        for (text, words) in [
            ("", &[][..]),
            (" --a  --b=c ", &["--a", "--b=c"]),
            (
                r#"--require "/a b/\"c\".js""#,
                &["--require", "/a b/\"c\".js"],
            ),
            (r"--title a\b", &["--title", r"a\b"]),
        ] {
            assert_eq!(split_variable(text), words, "{text}");
        }
    }

    #[test]
    fn files_of_variables_are_found_wherever_node_looks() {
        let files = |line: &'static str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let files = env_files(&words).map(|file| file.to_string_lossy().into_owned());
            files.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(files("--env-file=.env s.js"), ".env");
        assert_eq!(files("--env-file a s.js --env-file-if-exists=b"), "a b");
        assert_eq!(files("s.js -- --env-file=b"), "");
        assert_eq!(files("--env-files=a s.js"), "");
    }

    #[test]
    fn the_inspectors_port_is_the_last_that_was_named() {
        let inspector = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            inspector(&NodeLine::parse(&words)).map(|found| (found.port, found.behind))
        };
        assert_eq!(inspector("s.js --inspect"), None);
        assert_eq!(inspector("--inspector s.js"), None);
        assert_eq!(inspector("--inspect s.js"), Some((None, 1)));
        assert_eq!(inspector("--inspect=0 s.js"), Some((Some(0), 1)));
        assert_eq!(
            inspector("--inspect=[::1]:9300 s.js"),
            Some((Some(9300), 1))
        );
        assert_eq!(inspector("--inspect=localhost s.js"), Some((None, 1)));
        assert_eq!(
            inspector("--inspect-port 9400 -r x --inspect s.js"),
            Some((Some(9400), 5))
        );
        assert_eq!(inspector("--inspect_brk=9500 s.js"), Some((Some(9500), 1)));
        assert_eq!(inspector("--inspect-wait s.js"), Some((None, 1)));
        assert_eq!(inspector("--debug-port 1 s.js"), Some((Some(1), 2)));
    }
}
