//! What the drill's own `phalanx run` is started with.
//!
//! INVARIANT: the server listens on loopback, or at its end of a link of the drill's own, and gets in nobody's way,
//! whatever port it asks for, unless the user's own options say where it shall listen.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_sys::notify;
use phalanx_sys::process::{self, FdMapping, SpawnPlan};
use tempfile::TempDir;

use super::args::DrillArgs;
use phalanx_control::values::WorkerCount;

/// The app's name.
pub(super) const NAME: &str = "drill";

/// Whether the program of these words of `phalanx run` opens ports of which they do not say where they
/// shall be. The command knows its own options.
pub type OpensPorts = fn(Vec<OsString>) -> bool;

/// Every port that no rule of the user's names.
fn published(at: IpAddr) -> [OsString; 2] {
    ["--publish".into(), format!("{at}:0:*").into()]
}

/// Variables that name apps of the user's.
const APP_VARIABLES: [&str; 2] = ["PHALANX_NAME", "PHALANX_RUNTIME_DIR"];

/// The cluster of this drill, which listens `at` this address, with its sockets in `directory` and its log in `log`.
pub(super) fn plan(
    args: &DrillArgs,
    opens_ports: OpensPorts,
    at: IpAddr,
    directory: &TempDir,
    log: OwnedFd,
) -> io::Result<SpawnPlan> {
    let own = env::current_exe()?;
    let words = words(args, opens_ports, at);
    let mut plan = match under(args) {
        Some((program, wrapper)) => {
            let own = wrapper.into_iter().chain([own.into_os_string()]);
            let args = own.chain(words.into_iter().skip(1)).collect();
            let program = process::resolve_program(
                &program,
                env::var_os("PATH").as_deref(),
                &env::current_dir()?,
            );
            let program = program.map_err(io::Error::other)?;
            SpawnPlan {
                args,
                ..SpawnPlan::new(program)
            }
        }
        None => SpawnPlan {
            args: words,
            // The very program that runs now, also when another one was put in its place.
            executable: Some(Arc::new(File::open("/proc/self/exe")?.into())),
            ..SpawnPlan::new(own)
        },
    };
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

/// The program that the cluster is run under, and its words.
fn under(args: &DrillArgs) -> Option<(OsString, Vec<OsString>)> {
    let words = args
        .under
        .iter()
        .flat_map(|text| text.split_ascii_whitespace());
    let words: Vec<OsString> = words.map(OsString::from).collect();
    Some((words.first()?.clone(), words))
}

fn is_for_the_server(key: &OsStr) -> bool {
    let mut own = APP_VARIABLES.iter().chain(&notify::VARIABLES);
    own.all(|own| key != *own)
}

fn words(args: &DrillArgs, opens_ports: OpensPorts, at: IpAddr) -> Vec<OsString> {
    let workers = match args.workers {
        Some(WorkerCount::Exactly(count)) => count.to_string(),
        Some(WorkerCount::Between(min, max)) => format!("{min}..{max}"),
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
    if opens_ports(words.iter().cloned().chain(command()).collect()) {
        words.extend(published(at));
    }
    words.extend(command());
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::target::LOOPBACK;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DrillArgs,
    }

    fn words_of(opens_ports: OpensPorts) -> String {
        let line = ["drill", "-n", "3", "--run", "--surge 1", "--", "cat"];
        let args = Line::try_parse_from(line).unwrap().args;
        let words = words(&args, opens_ports, LOOPBACK).into_iter();
        let words: Vec<_> = words.map(|word| word.into_string().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn ports_are_published_on_loopback_unless_the_user_says_where() {
        let given = "--workers 3 --surge 1";
        let plain = words_of(|_| true);
        let end = format!("{given} --publish 127.0.0.1:0:* -- cat");
        assert!(plain.ends_with(&end), "{plain}");
        let said = words_of(|words| words.len() == 2);
        assert!(said.ends_with(&format!("{given} -- cat")), "{said}");
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
