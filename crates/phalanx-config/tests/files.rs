//! What files say, what is wrong with them, and what differs between them.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod support;

use phalanx_config::{File, Problems, compare};
use support::{Reading, read};

fn refused(text: &str) -> Vec<String> {
    let Problems(problems) = Reading::default().read(text).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

const TWO: &str = r#"
[app.api]
script = "server.js"
args = ["--port", "${PORT}"]
workers = 2
max-surge = "50%"
no-preload = true
bind = [":80", "unix:/x"]
env_file = "api.env"

[app.api.env]
MODE = "plain"
LEVEL = 3

[app.jobs]
command = ["python3", "jobs.py"]

[profile.production.app.api]
workers = "auto"
no-preload = false
env = { MODE = "production" }
"#;

#[test]
fn an_app_is_a_program_flags_and_variables() {
    let file = read(TWO).unwrap();
    let names: Vec<_> = file.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["api", "jobs"]);
    let api = file.app("api").unwrap();
    assert_eq!(api.program.words, ["server.js", "--port", "8080"]);
    assert_eq!(
        api.flags(&|key| key == "workers"),
        [
            "--bind=:80",
            "--bind=unix:/x",
            "--max-surge=50%",
            "--no-preload"
        ]
    );
    let env: Vec<_> = api
        .env
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(env, ["FROM=file", "LEVEL=3", "MODE=plain"]);
    assert_eq!(
        file.app("jobs").unwrap().program.words,
        ["python3", "jobs.py"]
    );
}

#[test]
fn a_profile_comes_over_what_the_file_says_otherwise() {
    let reading = Reading {
        profile: Some("production"),
        ..Reading::default()
    };
    let file = reading.read(TWO).unwrap();
    let api = file.app("api").unwrap();
    assert_eq!(api.settings["workers"].values, ["auto"]);
    assert!(!api.flags(&|_| false).contains(&"--no-preload".to_owned()));
    assert_eq!(api.env["MODE"], "production");
    assert_eq!(api.env["LEVEL"], "3");
    let missing = Reading {
        profile: Some("staging"),
        ..Reading::default()
    };
    let problems = missing.read(TWO).unwrap_err().to_string();
    assert!(
        problems.contains("no profile \"staging\": the file has production"),
        "{problems}"
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place() {
    let problems = refused(
        "[app.web]\nscript = \"a.js\"\nworkerz = 2\nmax_surge = \"1\"\ninstances = 4\nno-preload = \"yes\"\n\
         workers = [1]\nready-timeout = 30\nbind = 80\nargs = \"a b\"\n\n[app.\"a b\"]\n[app.none]\n[prifile.x]\n",
    );
    let told = problems.join("\n");
    for text in [
        "phalanx.toml:3:1: unknown key \"workerz\": did you mean workers?",
        "phalanx.toml:4:1: unknown key \"max_surge\": did you mean max-surge?",
        "phalanx.toml:5:1: unknown key \"instances\": that is a word of PM2: `workers`",
        "phalanx.toml:6:14: no-preload is a text, and has to be true or false",
        "phalanx.toml:7:11: workers is a list, and has to be a number or a text",
        "phalanx.toml:8:17: ready-timeout: use a unit",
        "phalanx.toml:9:8: bind is a number, and has to be a text: \"80\"",
        "phalanx.toml:10:8: args is a list of words: write args = [\"a\", \"b\"]",
        "phalanx.toml:12:6: \"a b\" cannot be the name of an app: no blanks",
        "phalanx.toml:13:6: the app none has neither script nor command",
        "phalanx.toml:14:2: unknown table \"prifile\": did you mean profile?",
    ] {
        assert!(told.contains(text), "{text}\n---\n{told}");
    }
    assert_eq!(problems.len(), 11, "{told}");
}

#[test]
fn errors_of_the_form_hide_no_others_and_make_up_none() {
    let problems = refused("[app.web]\nscript = \nworkers = 2 2\nworkerz = 1\n");
    let told = problems.join("\n");
    let lines: Vec<_> = problems
        .iter()
        .map(|one| one.split(':').nth(1).unwrap())
        .collect();
    assert!(
        lines.contains(&"2") && lines.contains(&"3") && lines.contains(&"4"),
        "{told}"
    );
    assert!(!told.contains("neither"), "{told}");
}

#[test]
fn variables_that_are_missing_are_told_for_the_apps_that_are_wanted() {
    let text =
        "[app.a]\nscript = \"${NONE}\"\nenv_file = \"none.env\"\n[app.b]\nscript = \"b.js\"\n";
    let problems = refused(text).join("\n");
    assert!(
        problems.contains(":2:10: the variable NONE is not set"),
        "{problems}"
    );
    assert!(
        problems.contains(":3:12: env_file: cannot read"),
        "{problems}"
    );
    let only_b = Reading {
        only: Some("b"),
        ..Reading::default()
    };
    assert_eq!(only_b.read(text).unwrap().apps.len(), 1);
}

#[test]
fn values_are_looked_at_after_their_variables_were_replaced() {
    let problems = refused("[app.a]\nscript = \"a\"\nready-timeout = \"${PORT}\"\n").join("\n");
    assert!(
        problems.contains(":3:17: ready-timeout: use a unit"),
        "{problems}"
    );
}

#[test]
fn a_difference_is_told_by_key_and_never_with_the_value_of_a_variable() {
    let one = read(TWO).unwrap();
    let other = read(
        &TWO.replace("workers = 2", "workers = 3")
            .replace("no-preload = true", "no-preload = false")
            .replace("MODE = \"plain\"", "MODE = \"hunter2\"\nNEW = \"hunter2\"")
            .replace("server.js", "main.js"),
    )
    .unwrap();
    let (one, other) = (one.app("api").unwrap(), other.app("api").unwrap());
    assert_eq!(compare(one, one), []);
    let changes = compare(one, other);
    let keys: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(
        keys,
        ["command", "no-preload", "workers", "env.MODE", "env.NEW"]
    );
    assert_eq!(changes[2].from.as_deref(), Some("2"));
    assert_eq!(changes[2].to.as_deref(), Some("3"));
    assert!(!format!("{changes:?} {other:?}").contains("hunter2"));
}

#[test]
fn a_file_that_cannot_be_read_may_still_speak_of_an_app() {
    let text = "[app.web]\nscript = \n[profile.p.app.only]\nscript = \"a\"";
    assert!(File::speaks_of(text, "web") && File::speaks_of(text, "only"));
    assert!(!File::speaks_of(text, "python3"));
}
