//! `phalanx logs`: the output of workers, from the memory of their primaries.

use std::io::{self, IsTerminal};

use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, SelectAll, StreamExt};
use serde_json::Value;

use crate::args::{LogsArgs, Whose};
use crate::log::now_millis;
use crate::report::{self, Failure, Outcome};
use phalanx_control::api::{GetStatus, Status};
use phalanx_control::client::{App, Events};
use phalanx_control::exit::Exit;
use phalanx_control::logs::Query;
use phalanx_control::show;
use phalanx_core::time::utc;

/// Lines of each app at the beginning, unless it is said otherwise.
const LINES: u64 = 100;

pub(crate) async fn logs(args: LogsArgs) -> Outcome {
    let (apps, mut streams): (Vec<App>, Vec<Events>) = open(&args).await?.into_iter().unzip();
    let shown = Shown {
        has_name: streams.len() > 1,
        is_terminal: io::stdout().is_terminal(),
        args,
    };
    let kept = join_all(streams.iter_mut().map(|one| shown.kept(one))).await;
    let mut kept: Vec<Value> = kept.into_iter().flatten().collect();
    // Of one moment, the order within each app stays.
    kept.sort_by_key(|line| line["time"].as_u64());
    if let Some(whose) = shown.args.worker.filter(|_| kept.is_empty()) {
        expect_worker(whose, &apps).await?;
    }
    shown.print(&kept)?;
    if !shown.args.follow {
        return Ok(());
    }
    let mut news: SelectAll<_> = streams.into_iter().map(|one| bursts(one).boxed()).collect();
    while let Some(burst) = news.next().await {
        shown.print(&shown.wanted(burst))?;
    }
    Ok(())
}

/// Asks the apps that are meant: those that are named, or all.
async fn open(args: &LogsArgs) -> Outcome<Vec<(App, Events)>> {
    let query = query(args);
    let names: Vec<_> = args.names.iter().chain(&args.more_names).collect();
    if !names.is_empty() {
        let ask = async |name| {
            let app = App::find(Some(name)).await?;
            let stream = app.logs(&query).await?;
            Ok((app, stream))
        };
        return try_join_all(names.into_iter().map(ask)).await;
    }
    let apps = App::find_all().await;
    if apps.is_empty() {
        // That none runs is told as everywhere.
        App::find(None).await?;
    }
    let ask = async |app: App| match app.logs(&query).await {
        Ok(stream) => Ok((app, stream)),
        Err(failure) => Err((app.name, failure)),
    };
    let (mut opened, mut refused) = (Vec::new(), Vec::new());
    for answer in join_all(apps.into_iter().map(ask)).await {
        match answer {
            Ok(one) => opened.push(one),
            Err((name, failure)) => refused.push(format!("{name}: {}", failure.reason)),
        }
    }
    if opened.is_empty() {
        return Err(Failure::new(Exit::Failed, refused.join("; ")));
    }
    for reason in refused {
        report::show_progress(&reason);
    }
    Ok(opened)
}

fn query(args: &LogsArgs) -> Query {
    let mut query = Query::default();
    query.follow = args.follow;
    query.since = args.since.map(|since| {
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        now_millis().saturating_sub(since)
    });
    // Which lines match is found out here.
    query.lines = args.lines.filter(|_| args.grep.is_none());
    if args.since.is_none() && args.grep.is_none() {
        query.lines = query.lines.or(Some(LINES));
    }
    if let Some(whose) = args.worker {
        restrict(&mut query, whose);
    }
    query
}

fn restrict(query: &mut Query, whose: Whose) {
    match whose {
        Whose::Position(position) => query.position = Some(position),
        Whose::Worker(worker) => query.worker = Some(worker),
    }
}

/// Whoever asks for one worker's lines, and gets none at first, shall hear that there is no such worker: neither in an app nor
/// in what is kept.
async fn expect_worker(whose: Whose, apps: &[App]) -> Outcome {
    for app in apps {
        let status = app.ask(&GetStatus {}).await?;
        if is_there(whose, &status) || is_kept(whose, app).await? {
            return Ok(());
        }
    }
    Err(Failure::new(
        Exit::Usage,
        format!("there is no worker {whose}, and nothing of one is kept"),
    ))
}

/// Whether the app has this worker, or shall have one at this position.
fn is_there(whose: Whose, status: &Status) -> bool {
    let is_wanted = matches!(whose, Whose::Position(position) if position < status.target);
    let mut workers = status.workers.iter();
    is_wanted || workers.any(|one| whose.is(one.id, one.position))
}

/// Whether a line of the worker's is kept, whatever is in it and however old it is.
async fn is_kept(whose: Whose, app: &App) -> Outcome<bool> {
    let mut query = Query::default();
    query.lines = Some(1);
    restrict(&mut query, whose);
    Ok(app.logs(&query).await?.next().await.is_some())
}

/// Everything that has arrived, at once.
fn bursts(events: Events) -> impl stream::Stream<Item = Vec<Value>> {
    stream::unfold(events, async |mut events| {
        let mut burst = vec![events.next().await?];
        burst.extend(std::iter::from_fn(|| events.next_arrived()));
        Some((burst, events))
    })
}

/// What is shown, and how.
struct Shown {
    args: LogsArgs,
    /// Lines say of which app they are.
    has_name: bool,
    is_terminal: bool,
}

impl Shown {
    /// The lines that an app has kept, as far as they are asked for.
    async fn kept(&self, events: &mut Events) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(line) = events.next().await {
            if line["caught_up"] == true {
                break;
            }
            all.push(line);
        }
        let mut wanted = self.wanted(all);
        if let Some(lines) = self.args.lines {
            let lines = usize::try_from(lines).unwrap_or(usize::MAX);
            wanted.drain(..wanted.len().saturating_sub(lines));
        }
        wanted
    }

    fn wanted(&self, lines: Vec<Value>) -> Vec<Value> {
        let Some(grep) = &self.args.grep else {
            return lines;
        };
        let matches = |line: &Value| line["line"].as_str().is_none_or(|text| grep.is_match(text));
        lines.into_iter().filter(matches).collect()
    }

    fn print(&self, lines: &[Value]) -> Outcome {
        let mut text = String::new();
        for line in lines {
            if line["caught_up"] == true {
                continue;
            }
            if self.args.json {
                text += &line.to_string();
                text.push('\n');
            } else if let Some(missed) = line["missed"].as_u64() {
                report::print(&text)?;
                text.clear();
                let app = line["app"].as_str().unwrap_or_default();
                report::show_progress(&format!(
                    "{app}: {missed} lines were gone before they could be shown"
                ));
            } else {
                self.put(&mut text, line);
            }
        }
        report::print(&text)
    }

    /// A line for people.
    fn put(&self, text: &mut String, line: &Value) {
        let content = line["line"].as_str().unwrap_or_default();
        if !self.args.raw {
            *text += &utc(line["time"].as_u64().unwrap_or_default());
            if self.has_name {
                *text += " ";
                *text += line["app"].as_str().unwrap_or_default();
            }
            text.extend([" [", &line["position"].to_string(), "] "]);
        }
        if self.is_terminal {
            *text += &show::with_colours(content);
        } else {
            *text += content;
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_position_whose_worker_has_crashed_is_there() {
        let status = json!({
            "name": "web", "pid": 4242, "policy": "round-robin", "dispatch": "handoff",
            "target": 2, "generation": 3, "reloading": false, "stopping": false, "listeners": [],
            "workers": [],
        });
        let status = serde_json::from_value(status).unwrap();
        assert!(is_there(Whose::Position(1), &status));
        assert!(!is_there(Whose::Position(2), &status));
        assert!(!is_there(Whose::Worker(1), &status));
    }
}
