//! An app of a file that is to be run: its keys, under what was typed besides, as the arguments of `phalanx run`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use phalanx_config::{App, File};

use super::{apps_of, lacks, load, locate, text_of};
use crate::args::{Cli, RunArgs, Verb};
use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;

/// Where an app is described, and what was typed besides.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) profile: Option<String>,
    /// Its name in the file.
    pub(crate) name: String,
    typed: Typed,
}

/// What was typed between `run` and the name, and after the name.
#[derive(Clone, Debug, Default)]
struct Typed {
    options: Vec<OsString>,
    /// Keys that come before those of the file.
    keys: Vec<String>,
    arguments: Vec<OsString>,
}

/// What `phalanx run` is to run: an app of a file, or the program that was typed.
///
/// The word is an app if a file that is named by `--config`, or found here or above, has one of that name. After `--`, and if it
/// looks like a path or a script, it is a program.
pub(crate) fn of_run(args: RunArgs) -> Outcome<(RunArgs, Option<(Source, App)>)> {
    let all: Vec<OsString> = env::args_os().collect();
    let Some((source, is_sure)) = source_of(&args, &all)? else {
        return Ok((args, None));
    };
    if !is_sure && !File::speaks_of(&text_of(&source.path)?, &source.name) {
        return Ok((args, None));
    }
    let app = source.read()?;
    // Relative paths of the file start from where it lies.
    let directory = source.path.parent().unwrap_or(Path::new("/"));
    env::set_current_dir(directory).map_err(|error| {
        let what = format!("cannot change to {}", directory.display());
        Failure::caused(Exit::Failed, &what, &error)
    })?;
    let args = source.args(&app)?;
    Ok((args, Some((source, app))))
}

/// Where the app would be described; and whether the word can be nothing but an app.
fn source_of(args: &RunArgs, all: &[OsString]) -> Outcome<Option<(Source, bool)>> {
    let Some(name) = args.command.first().and_then(|word| word.to_str()) else {
        return Ok(None);
    };
    let before = &all[..all.len().saturating_sub(args.command.len())];
    let is_sure = args.config.config.is_some();
    let is_program = is_program(before, name);
    if is_program && is_sure {
        let reason = "--config is for an app of the file: name it without -- and /";
        return Err(Failure::new(Exit::Usage, reason));
    }
    if is_program || (!is_sure && crate::program::is_script(name.as_ref())) {
        return Ok(None);
    }
    let path = match locate(&args.config) {
        Ok(path) => path,
        Err(failure) if is_sure => return Err(failure),
        Err(_) => return Ok(None),
    };
    let options = before.get(2..).unwrap_or_default().to_vec();
    let typed = Typed {
        keys: typed_keys(all),
        options,
        arguments: args.command[1..].to_vec(),
    };
    let source = Source {
        path,
        profile: args.config.profile.clone(),
        name: name.to_owned(),
        typed,
    };
    Ok(Some((source, is_sure)))
}

/// Whether the word behind these can be no app.
fn is_program(before: &[OsString], word: &str) -> bool {
    before.last().is_some_and(|word| word == "--") || word.contains('/')
}

/// Why the program that was typed is not found: if it might have been meant for an app, it is none either.
pub(crate) fn no_app_either(args: &RunArgs, mut failure: Failure) -> Failure {
    let all: Vec<OsString> = env::args_os().collect();
    let before = &all[..all.len().saturating_sub(args.command.len())];
    let Some(word) = args.command.first().and_then(|word| word.to_str()) else {
        return failure;
    };
    let directory = args.cwd.as_deref().unwrap_or(Path::new("."));
    let is_file = crate::program::is_script(word.as_ref()) || directory.join(word).exists();
    if failure.exit == Exit::NotFound && !is_file && !is_program(before, word) {
        let why = match locate(&args.config) {
            Ok(path) => format!("{} {}", path.display(), apps_of(&path)),
            Err(none) => none.reason,
        };
        failure.reason = format!("{}; nor is it an app: {why}", failure.reason);
    }
    failure
}

/// The long flags among the words.
fn typed_keys(words: &[OsString]) -> Vec<String> {
    let command = Cli::command();
    let Ok(matches) = command.clone().try_get_matches_from(words) else {
        return Vec::new();
    };
    let Some(("run", matches)) = matches.subcommand() else {
        return Vec::new();
    };
    let run = command.find_subcommand("run");
    let args = run.into_iter().flat_map(clap::Command::get_arguments);
    let is_typed = |arg: &&clap::Arg| {
        matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    };
    args.filter(is_typed)
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect()
}

impl Source {
    /// Reads the file again.
    ///
    /// # Errors
    /// When something is wrong with the file, or the app is not in it.
    pub(crate) fn read(&self) -> Outcome<App> {
        let file = load(&self.path, self.profile.as_deref(), &|name| {
            name == self.name
        })?;
        let app = file.app(&self.name).cloned();
        app.ok_or_else(|| lacks(&self.path, &self.name))
    }

    /// The app as the arguments of `phalanx run`. What was typed comes before what the file says.
    ///
    /// # Errors
    /// When keys contradict each other.
    pub(crate) fn args(&self, app: &App) -> Outcome<RunArgs> {
        args_of(app, &self.typed).map_err(|reason| {
            let (path, place) = (self.path.display(), app.place);
            let reason = format!("{path}:{}:{}: {reason}", place.line, place.column);
            Failure::new(Exit::Config, reason)
        })
    }
}

/// The app as the arguments of `phalanx run`, with nothing typed besides.
pub(crate) fn plain_args(app: &App) -> Result<RunArgs, String> {
    args_of(app, &Typed::default())
}

fn args_of(app: &App, typed: &Typed) -> Result<RunArgs, String> {
    let is_typed = |key: &str| typed.keys.iter().any(|one| one == key);
    let mut words: Vec<OsString> = ["phalanx", "run"].map(OsString::from).to_vec();
    words.extend(app.flags(&is_typed).into_iter().map(OsString::from));
    if !is_typed("name") {
        words.push(format!("--name={}", app.name).into());
    }
    // Of a variable that is set twice, the last one counts: the one that was typed.
    let variables = app
        .env
        .iter()
        .map(|(name, value)| format!("--env={name}={value}").into());
    words.extend(variables);
    words.extend(typed.options.iter().cloned());
    words.push("--".into());
    words.extend(app.program.words.iter().map(OsString::from));
    words.extend(typed.arguments.iter().cloned());
    let matches = Cli::command().try_get_matches_from(words);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    match cli.map(|cli| cli.verb) {
        Ok(Verb::Run(args)) => Ok(*args),
        Ok(_) => Err("it is no command line of run".to_owned()),
        // The first line has all of it; the others are about the command line.
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Err(line.trim_start_matches("error: ").to_owned())
        }
    }
}
