//! Files that are damaged at random: nothing panics, and what is told has a place in the file.
//!
//! `PHALANX_CONFIG_CASES` says how many are tried for each property; `just config-mutations` tries 100,000.

mod support;

use std::path::Path;

use phalanx_config::import::{gunicorn, pm2, procfile, puma};
use phalanx_config::{Problems, compare, dotenv, expand};
use proptest::prelude::*;
use support::{Reading, keys};

const SOUND: &str = r#"
[app.api]
script = "server.js"
args = ["--port", "${PORT:-80}"]
workers = 2
max-surge = '50%'
no-preload = true
bind = [":80", "unix:/x"]
env_file = "api.env"
# a comment: ü
[app.api.env]
MODE = """plain
text"""
[profile.production.app.api]
workers = 0x10
env = { MODE = "production", "B" = 1979-05-27T07:32:00Z, C = 1e9 }
"#;

/// Pieces that mean something to the parser.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r",
    "\0",
    "\\u0000",
    "${",
    "$${",
    "}",
    "ü",
    "\u{202e}",
    "app",
    "profile",
    "[app.api]",
    "[app.\"\"]",
    "[app.a.b.c]",
    "script = 1",
    "command = []",
    "env = 1",
    "nan",
    "-1",
    "true",
    "999999999999999999999999999999999999999999",
    "1_0",
    "0b2",
    "1979-05-27",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

#[derive(Clone, Debug)]
enum Damage {
    Cut(usize, usize),
    Put(usize, usize),
    Double(usize, usize),
    Letter(usize, char),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0..2000_usize, 1..40_usize).prop_map(|(at, length)| Damage::Cut(at, length)),
        (0..2000_usize, 0..PIECES.len()).prop_map(|(at, piece)| Damage::Put(at, piece)),
        (0..2000_usize, 1..200_usize).prop_map(|(at, length)| Damage::Double(at, length)),
        (0..2000_usize, any::<char>()).prop_map(|(at, letter)| Damage::Letter(at, letter)),
    ]
}

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for damage in damages {
        let place = |at: usize, length: usize| at % (length + 1);
        let length = letters.len();
        match *damage {
            Damage::Cut(at, long) => {
                let from = place(at, length);
                letters.drain(from..(from + long).min(length));
            }
            Damage::Put(at, piece) => {
                let at = place(at, length);
                letters.splice(at..at, PIECES[piece].chars());
            }
            Damage::Double(at, long) => {
                let from = place(at, length);
                let part: Vec<_> = letters[from..(from + long).min(length)].to_vec();
                letters.splice(from..from, part);
            }
            Damage::Letter(at, letter) => letters.insert(place(at, length), letter),
        }
    }
    letters.into_iter().collect()
}

fn cases() -> u32 {
    let cases = std::env::var("PHALANX_CONFIG_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_read_or_refused_with_places_in_it(
        damages in prop::collection::vec(damage(), 1..6),
        has_profile in any::<bool>(),
    ) {
        let text = damaged(SOUND, &damages);
        let reading = Reading { profile: has_profile.then_some("production"), ..Reading::default() };
        match reading.read(&text) {
            Ok(file) => {
                for app in &file.apps {
                    prop_assert_eq!(compare(app, app), []);
                    prop_assert!(app.flags(&|_| false).iter().all(|word| word.starts_with("--") && !word.contains('\0')));
                }
            }
            Err(Problems(problems)) => {
                prop_assert!(!problems.is_empty());
                let lines = text.matches('\n').count() + 1;
                let is_in_it = |line| (1..=lines.max(2)).contains(&line);
                prop_assert!(problems.iter().all(|one| is_in_it(one.place.line) && one.place.column > 0));
            }
        }
    }

    #[test]
    fn damaged_files_of_other_tools_become_files_that_can_be_read(
        damages in prop::collection::vec(damage(), 1..6),
        which in 0..3_usize,
    ) {
        let sources = [
            "web: node server.js --port $PORT\nworker: a 'b c' && d\n",
            "bind = ['a', \"b\"]\nworkers = os.environ.get('N', '2')\nraw_env = ['A=b']\ndef pre_exec(x):\n",
            "workers ENV.fetch('N') { 2 }\nbind 'tcp://a:1?x'\nport 3, 'h'\nenvironment ENV['A'] || 'b'\ntag \"x\"\n",
        ];
        let text = damaged(sources[which], &damages);
        let imported = match which {
            0 => procfile::import(&text, &keys()),
            1 => gunicorn::import("g.py", &text, &keys()),
            _ => puma::import("p.rb", &text, &keys()),
        };
        let toml = imported.to_toml();
        // Values may be refused, and variables unset; the form is sound.
        if let Err(Problems(problems)) = Reading::default().read(&toml) {
            let is_of_values = |text: &str| text.contains("variable") || text.contains("${") || text.contains("use a unit") || text.contains("NUL") ;
            prop_assert!(problems.iter().all(|one| is_of_values(&one.text)), "{:?}\n{}", problems, toml);
        }
    }

    #[test]
    fn texts_of_any_kind_are_expanded_or_refused(text in ".{0,60}", pieces in prop::collection::vec(0..PIECES.len(), 0..6)) {
        let pieces: String = pieces.into_iter().map(|one| PIECES[one]).collect();
        let text = format!("{text}{pieces}{text}");
        let nothing = |_: &str| None;
        if let Ok(expanded) = expand::expand(&text, &nothing) {
            prop_assert!(expanded.len() <= text.len());
        }
        drop(dotenv::parse(Path::new("x"), &text));
        drop(pm2::import(&serde_json::json!({"script": text, "name": text, "args": text, "env": {"A": text}}), &keys()));
    }
}
