//! `phalanx diff`: what a reload would change in the running apps.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{chosen, load, locate};
use crate::args::DiffArgs;
use crate::report::{self, Outcome};
use phalanx_control::api;
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
        return report::print(&format!("{:#}\n", json!(answered)));
    }
    let text: String = answered.iter().map(lines).collect();
    report::print(&text)
}

/// What the app's primary says. One that does not run would be started as the file says.
async fn ask(name: Name) -> Outcome<Value> {
    let app = match App::find(Some(&name)).await {
        Ok(app) => app,
        Err(failure) if failure.exit == Exit::NoApp => {
            return Ok(json!({"app": name.as_str(), "running": false, "changes": []}));
        }
        Err(failure) => return Err(failure),
    };
    let mut answer = app.get(api::DIFF).await?;
    answer["app"] = json!(name.as_str());
    answer["running"] = json!(true);
    Ok(answer)
}

fn lines(answer: &Value) -> String {
    let app = answer["app"].as_str().unwrap_or_default();
    if answer["running"] == false {
        return format!("{app}: is not running\n");
    }
    let changes = answer["changes"].as_array();
    let changes: Vec<_> = changes
        .into_iter()
        .flatten()
        .map(|change| line(app, change))
        .collect();
    if changes.is_empty() {
        return format!("{app}: nothing differs\n");
    }
    changes.concat()
}

fn line(app: &str, change: &Value) -> String {
    let of = |name: &str| show::plain(change[name].as_str().unwrap_or("(nothing)")).into_owned();
    let by = if change["by"] == "reload" {
        ""
    } else {
        "  (needs a stop and a start)"
    };
    format!("{app}: {}: {} -> {}{by}\n", of("key"), of("from"), of("to"))
}

/// Keys that the last reload of an app did not apply; none where it has no file.
pub(crate) async fn left_by_reload(app: &App) -> Vec<String> {
    let Ok(answer) = app.get(api::DIFF).await else {
        return Vec::new();
    };
    let changes = answer["changes"].as_array();
    let keys = changes
        .into_iter()
        .flatten()
        .filter_map(|change| change["key"].as_str());
    keys.map(str::to_owned).collect()
}
