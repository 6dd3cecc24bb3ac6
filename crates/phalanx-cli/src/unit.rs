//! `phalanx unit`: units of systemd for what this command runs.
//!
//! What the unit is to say is worked out here; `text` writes it, `install` puts it where systemd finds it.

mod install;
mod text;

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use clap::{CommandFactory, FromArgMatches};
use phalanx_config::File;
use phalanx_sys::accounts;
use phalanx_sys::process::resolve_program as find_program;

use crate::args::{Cli, RunArgs, UnitArgs, Verb};
use crate::config;
use crate::report::{self, Failure, Outcome};
use crate::run;
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;
use text::{Reload, Service, USUAL_PATH};

/// What ends an app takes beyond the limits of its workers: its parts are told, files are written.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// A first generation starts in waves when it is large; beyond that it has been refused or replaced.
const START_LIMITS: u32 = 3;

pub(crate) fn unit(args: &UnitArgs) -> Outcome {
    let service = service(args)?;
    if args.install {
        return install::install(&service, args.force);
    }
    if let Some(directory) = &args.directory {
        return install::write(&service, directory, args.force).map(|_| ());
    }
    let socket = service.socket();
    let blank = if socket.is_some() { "\n" } else { "" };
    report::print(&format!(
        "{}{blank}{}",
        service.service(),
        socket.unwrap_or_default()
    ))
}

/// What is to be run at boot.
struct Subject {
    name: Name,
    reload: Reload,
    words: Vec<String>,
    directory: PathBuf,
    /// As `phalanx run` would understand them.
    apps: Vec<RunArgs>,
    /// Whom the description of the app belongs to.
    owner: u32,
}

fn service(args: &UnitArgs) -> Outcome<Service> {
    let subject = match program_of(args)? {
        Some(command) => of_program(args, &command)?,
        None => of_file(args)?,
    };
    let name = args.name.clone().unwrap_or_else(|| subject.name.clone());
    let phalanx = env::current_exe().map_err(|error| {
        Failure::caused(Exit::Failed, "cannot find the path of this command", &error)
    })?;
    let limits = subject.apps.iter().map(|app| &app.limits);
    let longest = |of: &dyn Fn(&crate::args::LimitArgs) -> Duration| {
        limits.clone().map(of).max().unwrap_or_default()
    };
    let stop =
        longest(&|limits| limits.drain_timeout + limits.settle_timeout + limits.kill_timeout);
    let start = longest(&|limits| limits.ready_timeout);
    let mut capabilities = Vec::new();
    if args.low_ports {
        capabilities.push("CAP_NET_BIND_SERVICE");
    }
    if args.kernel {
        capabilities.extend(["CAP_BPF", "CAP_PERFMON"]);
    }
    Ok(Service {
        name: name.as_str().to_owned(),
        reload: subject.reload,
        phalanx,
        words: subject.words,
        account: account(args, subject.owner, &subject.apps),
        path: unusual_path(&subject.apps, &subject.directory),
        directory: subject.directory,
        is_users: args.user,
        listen: args.listen.clone(),
        capabilities,
        start: start * START_LIMITS,
        stop: stop + STOP_MARGIN,
    })
}

/// The words, if they are a program's and no app's.
fn program_of(args: &UnitArgs) -> Outcome<Option<Vec<OsString>>> {
    let Some(first) = args.command.first() else {
        return Ok(None);
    };
    let word = first.to_string_lossy();
    let is_program =
        args.command.len() > 1 || word.contains('/') || crate::program::is_script(first);
    if is_program && args.config.config.is_none() {
        return Ok(Some(args.command.clone()));
    }
    let speaks_of_it = match config::locate(&args.config) {
        Ok(path) => File::speaks_of(&config::text_of(&path)?, &word),
        Err(failure) if args.config.config.is_some() => return Err(failure),
        Err(_) => false,
    };
    // Of a file that is wanted, the word can be nothing but an app.
    let is_app = speaks_of_it || args.config.config.is_some();
    Ok((!is_app).then(|| args.command.clone()))
}

fn of_program(args: &UnitArgs, command: &[OsString]) -> Outcome<Subject> {
    let directory = phalanx::working_directory().map_err(|error| {
        Failure::caused(Exit::Failed, "cannot find the working directory", &error)
    })?;
    let words: Vec<String> = command.iter().map(text_of).collect::<Outcome<_>>()?;
    let app = read_run(&[vec!["--".to_owned()], words.clone()].concat())?;
    let program = run::resolve_program(&app)?;
    let name = args.name.clone().unwrap_or(program.name);
    let run = ["run", "--name", name.as_str(), "--"].map(str::to_owned);
    Ok(Subject {
        reload: Reload::App(name.as_str().to_owned()),
        name,
        words: run.into_iter().chain(words).collect(),
        owner: owner(&directory)?,
        directory,
        apps: vec![app],
    })
}

fn of_file(args: &UnitArgs) -> Outcome<Subject> {
    let path = config::locate(&args.config)?;
    let wanted: Vec<Name> =
        match args.command.first() {
            Some(word) => vec![text_of(word)?.parse().map_err(|error| {
                Failure::new(Exit::Usage, format!("{}: {error}", word.display()))
            })?],
            None => Vec::new(),
        };
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one.as_str() == name);
    let profile = args.config.profile.as_deref();
    let file = config::load(&path, profile, &wants)?;
    let names = config::chosen(&file, &wanted)?;
    let directory = file.directory().to_owned();
    env::set_current_dir(&directory).map_err(|error| {
        let what = format!("cannot change to {}", directory.display());
        Failure::caused(Exit::Failed, &what, &error)
    })?;
    let mut apps = Vec::new();
    for name in &names {
        if let Some(app) = file.app(name.as_str()) {
            apps.push(
                config::plain_args(app).map_err(|reason| Failure::new(Exit::Config, reason))?,
            );
        }
    }
    let mut words = Vec::new();
    let config = format!("--config={}", path.display());
    let profile = profile.map(|profile| format!("--profile={profile}"));
    let (reload, name) = if let [app] = &names[..] {
        words.extend(["run".to_owned(), config]);
        words.extend(profile);
        words.push(app.as_str().to_owned());
        // The key `name` may call it otherwise.
        let called = apps.first().and_then(|args| args.name.clone());
        let called = called.unwrap_or_else(|| app.clone());
        (Reload::App(called.as_str().to_owned()), app.clone())
    } else {
        words.extend(["up".to_owned(), config]);
        words.extend(profile);
        let called = directory.file_name().unwrap_or_default();
        (Reload::Signal, Name::of_text(&called.to_string_lossy()))
    };
    Ok(Subject {
        name,
        reload,
        words,
        owner: owner(&path)?,
        directory,
        apps,
    })
}

/// The arguments of `phalanx run` that these words are.
fn read_run(words: &[String]) -> Outcome<RunArgs> {
    let words = ["phalanx", "run"]
        .map(str::to_owned)
        .into_iter()
        .chain(words.iter().cloned());
    let matches = Cli::command().try_get_matches_from(words);
    match matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map(|cli| cli.verb)
    {
        Ok(Verb::Run(args)) => Ok(*args),
        Ok(_) | Err(_) => Err(Failure::new(
            Exit::Usage,
            "phalanx run would not understand these words",
        )),
    }
}

fn text_of(word: &OsString) -> Outcome<String> {
    word.to_str().map(str::to_owned).ok_or_else(|| {
        let reason = format!("{}: a unit file is UTF-8, and this is not", word.display());
        Failure::new(Exit::Usage, reason)
    })
}

fn owner(path: &Path) -> Outcome<u32> {
    let found = fs::metadata(path).map_err(|error| {
        Failure::caused(
            Exit::Failed,
            &format!("cannot look at {}", path.display()),
            &error,
        )
    })?;
    Ok(found.uid())
}

/// As whom the service runs. A primary that gives its workers another user needs root for it.
fn account(args: &UnitArgs, owner: u32, apps: &[RunArgs]) -> Option<String> {
    if args.user {
        return None;
    }
    if let Some(account) = &args.run_as {
        return Some(account.clone());
    }
    let changes_user =
        |app: &RunArgs| app.privileges.user.is_some() || app.privileges.group.is_some();
    if owner == 0 || apps.iter().any(changes_user) {
        return None;
    }
    let known = accounts::user_by_uid(owner).ok().flatten();
    Some(known.map_or_else(|| owner.to_string(), |user| text_or(&user.name, owner)))
}

fn text_or(name: &std::ffi::OsStr, uid: u32) -> String {
    name.to_str().map_or_else(|| uid.to_string(), str::to_owned)
}

/// Where programs of the apps lie that systemd would not find, as those of a version manager.
fn unusual_path(apps: &[RunArgs], here: &Path) -> Vec<PathBuf> {
    let path = env::var_os("PATH");
    let mut found = Vec::new();
    for app in apps {
        let Ok(program) = run::resolve_program(app) else {
            continue;
        };
        let node = program.is_node.then(|| OsString::from("node"));
        for word in [Some(program.exec), node].into_iter().flatten() {
            if word.to_string_lossy().contains('/') {
                continue;
            }
            let place = find_program(&word, path.as_deref(), here).ok();
            let place = place.and_then(|place| place.parent().map(Path::to_owned));
            let is_usual =
                |place: &PathBuf| USUAL_PATH.iter().any(|usual| place == Path::new(usual));
            if let Some(place) = place.filter(|place| !is_usual(place) && !found.contains(place)) {
                found.push(place);
            }
        }
    }
    found
}
