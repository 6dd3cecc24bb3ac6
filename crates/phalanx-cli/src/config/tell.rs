//! `phalanx check`: all that is wrong with a file.

use std::env;
use std::path::Path;

use phalanx_config::{App, File, Place, Problem, Problems};
use serde_json::json;

use super::{load, locate, read, shown, source, text_of};
use crate::args::CheckArgs;
use crate::report::{self, Failure, Outcome};
use crate::run;
use phalanx_control::exit::Exit;
use phalanx_control::show;

pub(crate) fn check(args: &CheckArgs) -> Outcome {
    let path = locate(&args.config)?;
    let profile = args.config.profile.as_deref();
    let text = text_of(&path)?;
    let shown = shown(&path);
    let problems = match read(&shown, &text, profile, &|_| true) {
        Err(Problems(problems)) => problems,
        Ok(_) => deeper(&shown, &load(&path, profile, &|_| true)?)?,
    };
    if args.json {
        let all: Vec<_> = problems.iter().map(as_json).collect();
        report::print(&format!("{:#}\n", json!(all)))?;
    }
    if !problems.is_empty() {
        if !args.json {
            for problem in &problems {
                let line = show::plain(&problem.to_string()).into_owned();
                report::show_log_line(&format!("{line}\n"));
            }
        }
        // All of it has been said.
        return Err(Failure::new(Exit::Config, ""));
    }
    if args.json {
        return Ok(());
    }
    let apps = load(&path, profile, &|_| true)?.apps.len();
    let counted = if apps == 1 {
        "1 app".to_owned()
    } else {
        format!("{apps} apps")
    };
    report::print(&format!(
        "{}: {counted}, nothing is wrong\n",
        shown.display()
    ))
}

fn as_json(problem: &Problem) -> serde_json::Value {
    let (file, place) = (problem.file.display().to_string(), problem.place);
    json!({"file": file, "line": place.line, "column": place.column, "text": problem.text})
}

/// What `phalanx run` would refuse: keys that contradict each other, and programs that are not there.
fn deeper(shown: &Path, file: &File) -> Outcome<Vec<Problem>> {
    let directory = file.directory();
    env::set_current_dir(directory).map_err(|error| {
        let what = format!("cannot change to {}", directory.display());
        Failure::caused(Exit::Failed, &what, &error)
    })?;
    if file.apps.is_empty() {
        let text = "it has no apps: write [app.NAME]".to_owned();
        return Ok(vec![Problem::new(shown, Place::of("", 0), text)]);
    }
    let problems = file.apps.iter().filter_map(|app| {
        let (place, text) = of_app(app)?;
        Some(Problem::new(
            shown,
            place,
            format!("the app {}: {text}", app.name),
        ))
    });
    Ok(problems.collect())
}

fn of_app(app: &App) -> Option<(Place, String)> {
    let args = match source::plain_args(app) {
        Ok(args) => args,
        Err(reason) => return Some((app.place, reason)),
    };
    match run::judge(&args) {
        Ok(()) => None,
        Err((run::Judged::Program, failure)) => Some((app.program.place, failure.reason)),
        Err((run::Judged::Options, failure)) => Some((app.place, failure.reason)),
    }
}
