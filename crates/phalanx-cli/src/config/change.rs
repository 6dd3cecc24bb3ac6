//! `phalanx diff`: what a reload would change in the running apps.

use futures_util::future::join_all;
use serde::Serialize;

use super::{chosen, load, locate};
use crate::args::DiffArgs;
use crate::report::{self, Outcome};
use phalanx_control::api::{AppliedBy, Difference, Differences, GetDifferences};
use phalanx_control::client::App;
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;
use phalanx_control::show;

pub(crate) async fn diff(args: DiffArgs) -> Outcome {
    let path = locate(&args.config)?;
    let names = args.apps.clone();
    let wants = |name: &str| names.is_empty() || names.iter().any(|one| one.as_str() == name);
    let file = load(&path, args.config.profile.as_deref(), &wants)?;
    let answers = chosen(&file, &args.apps)?.into_iter().map(ask);
    let mut answered = Vec::new();
    for answer in join_all(answers).await {
        answered.push(answer?);
    }
    if args.json {
        let answered = serde_json::to_value(answered).unwrap_or_default();
        return report::print(&format!("{answered:#}\n"));
    }
    let text: String = answered.iter().map(lines).collect();
    report::print(&text)
}

/// An app of the file, as `phalanx diff --json` prints it.
#[derive(Debug, Serialize)]
struct AppDifferences {
    app: String,
    running: bool,
    #[serde(flatten)]
    found: Found,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found {
    Running(Differences),
    /// Nothing to compare with.
    Stopped {
        changes: [Difference; 0],
    },
}

/// What the app's primary says. One that does not run would be started as the file says.
async fn ask(name: Name) -> Outcome<AppDifferences> {
    let found = match App::find(Some(&name)).await {
        Ok(app) => Found::Running(app.ask(&GetDifferences {}).await?),
        Err(failure) if failure.exit == Exit::NoApp => Found::Stopped { changes: [] },
        Err(failure) => return Err(failure),
    };
    Ok(AppDifferences {
        app: name.to_string(),
        running: matches!(found, Found::Running(_)),
        found,
    })
}

fn lines(answer: &AppDifferences) -> String {
    let app = &answer.app;
    let Found::Running(differences) = &answer.found else {
        return format!("{app}: is not running\n");
    };
    if differences.changes.is_empty() {
        return format!("{app}: nothing differs\n");
    }
    let changes = differences.changes.iter();
    changes.map(|change| line(app, change)).collect()
}

fn line(app: &str, change: &Difference) -> String {
    let shown =
        |value: &Option<String>| show::plain(value.as_deref().unwrap_or("(nothing)")).into_owned();
    let by = if change.by == AppliedBy::Reload {
        ""
    } else {
        "  (needs a stop and a start)"
    };
    let (key, from, to) = (
        show::plain(&change.key),
        shown(&change.from),
        shown(&change.to),
    );
    format!("{app}: {key}: {from} -> {to}{by}\n")
}

/// Keys that the last reload of an app did not apply; none where it has no file.
pub(crate) async fn left_by_reload(app: &App) -> Vec<String> {
    let differences = app.ask(&GetDifferences {}).await;
    let changes = differences.map(|differences| differences.changes);
    let keys = changes.unwrap_or_default().into_iter();
    keys.map(|change| change.key).collect()
}
