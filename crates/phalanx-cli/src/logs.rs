//! `phalanx logs`: the output of workers, from the memory of their primaries.

use std::io::{self, IsTerminal};

use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, SelectAll, StreamExt};
use serde_json::Value;

use crate::args::{LogsArgs, Whose};
use crate::log::now_millis;
use crate::report::{self, Failure, Outcome};
use phalanx_control::client::{App, Events};
use phalanx_control::exit::Exit;
use phalanx_control::logs::Query;
use phalanx_control::show;
use phalanx_core::time::utc;

/// Lines of each app at the beginning, unless it is said otherwise.
const LINES: u64 = 100;

pub(crate) async fn logs(args: LogsArgs) -> Outcome {
    let streams = open(&args).await?;
    let shown = Shown {
        has_name: streams.len() > 1,
        is_terminal: io::stdout().is_terminal(),
        args,
    };
    let mut streams: Vec<Events> = streams;
    let kept = join_all(streams.iter_mut().map(|one| shown.kept(one))).await;
    let mut kept: Vec<Value> = kept.into_iter().flatten().collect();
    // Of one moment, the order within each app stays.
    kept.sort_by_key(|line| line["time"].as_u64());
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

/// Asks the apps that are meant.
async fn open(args: &LogsArgs) -> Outcome<Vec<Events>> {
    let query = query(args);
    let names: Vec<_> = args.names.iter().chain(&args.more_names).collect();
    if !names.is_empty() {
        let ask = async |name| App::find(Some(name)).await?.logs(&query).await;
        return try_join_all(names.into_iter().map(ask)).await;
    }
    let apps = App::find_all().await;
    if apps.is_empty() {
        // That none runs is told as everywhere.
        App::find(None).await?;
    }
    let ask = async |app: App| {
        app.logs(&query)
            .await
            .map_err(|failure| (app.name, failure))
    };
    let (mut streams, mut refused) = (Vec::new(), Vec::new());
    for answer in join_all(apps.into_iter().map(ask)).await {
        match answer {
            Ok(stream) => streams.push(stream),
            Err((name, failure)) => refused.push(format!("{name}: {}", failure.reason)),
        }
    }
    if streams.is_empty() {
        return Err(Failure::new(Exit::Failed, refused.join("; ")));
    }
    for reason in refused {
        report::show_progress(&reason);
    }
    Ok(streams)
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
    match args.worker {
        Some(Whose::Position(position)) => query.position = Some(position),
        Some(Whose::Worker(worker)) => query.worker = Some(worker),
        None => {}
    }
    query
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
