//! What the drill's own `phalanx run` is started with.
//!
//! INVARIANT: the server listens on loopback and gets in nobody's way, whatever port it asks for, unless the
//! user's own options say where it shall listen.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use clap::Parser;
use phalanx_sys::notify;
use phalanx_sys::process::{FdMapping, SpawnPlan};
use tempfile::TempDir;

use super::args::DrillArgs;
use crate::args::{Adopt, Cli, Verb};
use crate::values::WorkerCount;

/// The app's name.
pub(super) const NAME: &str = "drill";

/// Every port that no rule of the user's names.
const PUBLISHED: [&str; 2] = ["--publish", "127.0.0.1:0:*"];

/// Variables that name apps of the user's.
const APP_VARIABLES: [&str; 2] = ["PHALANX_NAME", "PHALANX_RUNTIME_DIR"];

/// The cluster of this drill, with its sockets in `directory` and its log in `log`.
pub(super) fn plan(args: &DrillArgs, directory: &TempDir, log: OwnedFd) -> io::Result<SpawnPlan> {
    let mut plan = SpawnPlan::new(env::current_exe()?);
    // The very program that runs now, also when another one was put in its place.
    plan.executable = Some(Arc::new(File::open("/proc/self/exe")?.into()));
    plan.args = words(args);
    let inherited = env::vars_os().filter(|(key, _)| is_for_the_server(key));
    plan.env = inherited.collect();
    plan.env
        .push(("PHALANX_RUNTIME_DIR".into(), directory.path().into()));
    plan.fds = vec![
        FdMapping::null(0),
        FdMapping::null(1),
        FdMapping::owned(log, 2),
    ];
    Ok(plan)
}

fn is_for_the_server(key: &OsStr) -> bool {
    let mut own = APP_VARIABLES.iter().chain(&notify::VARIABLES);
    own.all(|own| key != *own)
}

fn words(args: &DrillArgs) -> Vec<OsString> {
    let workers = match args.workers {
        Some(WorkerCount::Exactly(count)) => count.to_string(),
        Some(WorkerCount::Auto) | None => "auto".to_owned(),
    };
    let fixed = ["phalanx", "run", "--name", NAME, "--log-format", "json"];
    let fixed = fixed.into_iter().chain(["--workers", &workers]);
    let given = args
        .run
        .iter()
        .flat_map(|text| text.split_ascii_whitespace());
    let mut words: Vec<OsString> = fixed.chain(given).map(OsString::from).collect();
    let command = || {
        [OsString::from("--")]
            .into_iter()
            .chain(args.command.iter().cloned())
    };
    if is_to_be_published(words.iter().cloned().chain(command())) {
        words.extend(PUBLISHED.map(OsString::from));
    }
    words.extend(command());
    words
}

/// Whether the program opens ports of which the user has not said where they shall be. What cannot be read is
/// for `phalanx run` to refuse.
fn is_to_be_published(words: impl Iterator<Item = OsString>) -> bool {
    let Ok(Cli {
        verb: Verb::Run(run),
        ..
    }) = Cli::try_parse_from(words)
    else {
        return false;
    };
    let opens_ports = match run.adopt {
        Adopt::Auto => run.bound.bind.is_empty(),
        Adopt::Channel | Adopt::Intercept => true,
        Adopt::Activation | Adopt::None => false,
    };
    opens_ports && run.bound.publish.iter().all(|rule| rule.app_port.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(options: &[&str]) -> String {
        let line = ["phalanx", "drill"]
            .iter()
            .chain(options)
            .chain(&["--", "cat"]);
        let Verb::Drill(args) = Cli::try_parse_from(line).unwrap().verb else {
            panic!("a drill was asked for");
        };
        let words: Vec<_> = words(&args)
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn ports_are_published_on_loopback_unless_the_user_says_where() {
        let end = "--publish 127.0.0.1:0:* -- cat";
        let plain = words_of(&["-n", "3"]);
        assert!(plain.ends_with(&format!("--workers 3 {end}")), "{plain}");
        for (options, is_published) in [
            ("--dispatch kernel", true),
            ("--publish 80:8080", true),
            ("--publish 0:*", false),
            ("--bind 127.0.0.1:0", false),
            ("--adopt intercept", true),
            ("--adopt none", false),
            ("--no-such-option", false),
        ] {
            let words = words_of(&["--run", options]);
            assert_eq!(words.ends_with(end), is_published, "{words}");
            assert!(
                words.contains(options) && words.ends_with(" -- cat"),
                "{words}"
            );
        }
    }

    #[test]
    fn what_a_service_manager_gave_to_the_drill_is_not_passed_on() {
        for key in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "WATCHDOG_USEC",
            "PHALANX_NAME",
        ] {
            assert!(!is_for_the_server(OsStr::new(key)), "{key}");
        }
        assert!(is_for_the_server(OsStr::new("PORT")));
    }
}
