//! The commands that talk to a running app. Each does what one request to the control socket does; those
//! that change something return when it is true, or with the reason why it is not.

use std::future::{Future, pending};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;

use futures_util::future::join_all;
use phalanx::PolicyName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::args::{
    DownArgs, EventsArgs, ListArgs, MetricsFormat, PolicyArgs, RebalanceArgs, RecycleArgs,
    ReloadArgs, RollbackArgs, ScaleArgs, SendArgs, ShowMetricsArgs, StatusArgs, StopArgs,
};
use crate::config;
use crate::log::now_millis;
use crate::progress::Progress;
use crate::report::{self, Failure, Outcome};
use crate::{table, values};
use phalanx_control::api::{
    Adoption, ChangePolicy, Event, GetSnapshot, GetStatus, NotAnswering, NumberOrText, Rebalance,
    Recycle, Rollback, Scale, SendMessage, Status, Stop,
};
use phalanx_control::client::{App, Events};
use phalanx_control::exit::Exit;
use phalanx_control::patience::Heard;

pub(crate) async fn status(args: StatusArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    if args.json {
        return print_json(&app.ask_for_json(&GetStatus {}).await?);
    }
    report::print(&table::status(&app.ask(&GetStatus {}).await?, now_millis()))
}

pub(crate) async fn list(args: ListArgs) -> Outcome {
    // All at once: those that do not answer keep nobody waiting for each other.
    let hear = async |app: App| (app.hear().await, app.name);
    let heard = join_all(App::find_all().await.into_iter().map(hear)).await;
    if args.json {
        let json = heard.into_iter().filter_map(|(heard, name)| match heard {
            Heard::Status(status) => Some(status),
            Heard::Nothing(pid) => serde_json::to_value(NotAnswering {
                name: name.to_string(),
                pid,
                not_answering: true,
            })
            .ok(),
            Heard::Ended => None,
        });
        return print_json(&json.collect());
    }
    let mut rows = Vec::new();
    for (heard, name) in heard {
        match heard {
            Heard::Status(status) => rows.push(table::Row::Answers(Box::new(read_status(status)?))),
            Heard::Nothing(pid) => rows.push(table::Row::Silent { name, pid }),
            // An app that has ended meanwhile is none of the running ones.
            Heard::Ended => {}
        }
    }
    report::print(&table::list(&rows))
}

pub(crate) async fn reload(args: ReloadArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let events = app.events().await?;
    let request = args.request();
    let answer = follow(events, "reloading", app.ask(&request)).await;
    let done = answer.map_err(|failure| not_done(&app, "reloaded", failure))?;
    report::print(&format!(
        "{} reloaded: generation {}\n",
        app.name,
        done.generation()
    ))?;
    let left = config::left_by_reload(&app).await;
    if !left.is_empty() {
        let keys = left.join(", ");
        report::show_progress(&format!(
            "{}: not applied without a stop and a start: {keys}",
            app.name
        ));
    }
    Ok(())
}

pub(crate) async fn rollback(args: RollbackArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let events = app.events().await?;
    let answer = follow(events, "rolling back", app.ask(&Rollback {})).await;
    let done = answer.map_err(|failure| not_done(&app, "rolled back", failure))?;
    report::print(&format!(
        "{} rolled back: generation {}\n",
        app.name,
        done.generation()
    ))
}

pub(crate) async fn scale(args: ScaleArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let events = app.events().await?;
    let workers = NumberOrText::Text(values::scale_text(args.workers));
    let answer = follow(events, "scaling", app.ask(&Scale { workers })).await;
    let done = answer.map_err(|failure| not_done(&app, "scaled", failure))?;
    report::print(&format!(
        "{} scaled: {}\n",
        app.name,
        phalanx_control::level::counted(done.workers())
    ))
}

pub(crate) async fn recycle(args: RecycleArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let events = app.events().await?;
    let request = Recycle::these(args.workers.into_iter().map(|target| target.0));
    let answer = follow(events, "recycling", app.ask(&request)).await;
    let done = answer.map_err(|failure| not_done(&app, "recycled", failure))?;
    report::print(&format!(
        "{} recycled: {}\n",
        app.name,
        phalanx_control::level::counted(done.workers())
    ))
}

pub(crate) async fn rebalance(args: RebalanceArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let answer = app
        .ask(&Rebalance {
            streams: args.streams,
        })
        .await;
    let done = answer.map_err(|failure| not_done(&app, "rebalanced", failure))?;
    report::print(&format!(
        "{} rebalanced: of {} connections {} were above their workers' shares, and {} are now\n",
        app.name, done.open, done.above_before, done.above_after
    ))
}

pub(crate) async fn policy(args: PolicyArgs) -> Outcome {
    if args.weights.is_some() && args.policy != Some(PolicyName::Weighted) {
        let reason = "--weights are for the policy weighted";
        return Err(Failure::new(Exit::Usage, reason));
    }
    let app = App::find(args.app.name.as_ref()).await?;
    let Some(policy) = args.policy else {
        let status = app.ask(&GetStatus {}).await?;
        return report::print(&format!("{}\n", table::policy(&status)));
    };
    let request = ChangePolicy {
        policy: policy.to_string(),
        weights: args.weights.map(|weights| weights.to_string()),
    };
    let answer = app.ask(&request).await;
    answer.map_err(|failure| not_done(&app, "changed", failure))?;
    report::print(&format!("{}: policy {policy}\n", app.name))
}

/// Stops the apps of the file that are running, all at the same time.
pub(crate) async fn down(args: DownArgs) -> Outcome {
    let path = config::locate(&args.config)?;
    let names = if args.apps.is_empty() {
        config::names_in(&path)?
    } else {
        args.apps.clone()
    };
    let mut apps = Vec::new();
    for name in &names {
        match App::find(Some(name)).await {
            Ok(app) => apps.push(app),
            Err(failure) if failure.exit == Exit::NoApp && args.apps.is_empty() => {}
            Err(failure) => return Err(failure),
        }
    }
    if apps.is_empty() {
        let reason = format!("no app of {} is running", path.display());
        return Err(Failure::new(Exit::NoApp, reason));
    }
    let stopped = join_all(apps.iter().map(|app| stop_one(app, args.fast))).await;
    stopped.into_iter().collect()
}

pub(crate) async fn stop(args: StopArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    stop_one(&app, args.fast).await
}

async fn stop_one(app: &App, fast: bool) -> Outcome {
    let events = app.events().await?;
    let mut connection = app.connect().await?;
    // Opened while the connection proves that the pid is the primary's.
    let primary = connection.pid.and_then(Pid::from_raw);
    let primary = primary.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let stop = Stop { fast };
    let request = app.as_long_as_it_answers(connection.ask(&stop));
    follow(events, "stopping", request)
        .await
        .map_err(|failure| not_done(app, "stopped", failure))?;
    if let Some(primary) = primary {
        // The workers are gone; now the primary puts its things away. Its name is free afterwards.
        drop(connection);
        exit_of(primary).await.map_err(|error| {
            Failure::caused(Exit::Failed, "cannot wait for the primary's end", &error)
        })?;
    }
    report::print(&format!("{} stopped\n", app.name))
}

/// Waits for the end of a process, in a thread of its own: the process in turn waits for this one to
/// close its connections, which the runtime does meanwhile.
async fn exit_of(process: OwnedFd) -> io::Result<()> {
    let wait = move || retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], None));
    spawn_blocking(wait).await??;
    Ok(())
}

pub(crate) async fn send(args: SendArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let request = SendMessage {
        message: args.message,
        to: args.to,
    };
    let failed = |failure: Failure| Failure {
        reason: format!("not sent to {}: {}", app.name, failure.reason),
        ..failure
    };
    let sent = app.ask(&request).await.map_err(failed)?;
    match sent.workers {
        0 => {
            let status = app.ask(&GetStatus {}).await?;
            let reason = nobody_to_send_to(&status);
            Err(failed(Failure::new(Exit::Failed, reason)))
        }
        workers => report::print(&format!(
            "sent to {}\n",
            phalanx_control::level::counted(u64::try_from(workers).unwrap_or(u64::MAX))
        )),
    }
}

/// Why a message went to no worker.
fn nobody_to_send_to(status: &Status) -> String {
    if status.workers.is_empty() {
        return "it has no workers now".to_owned();
    }
    match &status.adoption {
        Some(adoption) if *adoption != Adoption::Channel => format!(
            "its workers have no channel (adoption {adoption}); messages reach Node scripts and programs that are built \
             with the phalanx library"
        ),
        Some(_) | None => "none of its workers is connected now".to_owned(),
    }
}

pub(crate) async fn events(args: EventsArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let mut events = app.events().await?;
    while let Some(event) = events.next().await {
        report::print(&format!("{event}\n"))?;
    }
    Ok(())
}

/// Prints the figures, once.
pub(crate) async fn metrics(args: ShowMetricsArgs) -> Outcome {
    let app = App::find(args.app.name.as_ref()).await?;
    let accept = match args.format {
        MetricsFormat::Json => return print_json(&app.ask_for_json(&GetSnapshot {}).await?),
        MetricsFormat::Text => "text/plain",
        MetricsFormat::Openmetrics => "application/openmetrics-text",
    };
    report::print(&app.metrics(accept).await?)
}

/// Shows the events until the answer is there.
async fn follow<T>(
    events: Events,
    verb: &'static str,
    answer: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let progress = Progress::new(verb);
    let mut events = Some(events);
    let mut answer = pin!(answer);
    loop {
        tokio::select! {
            biased;
            event = next(&mut events) => match event {
                Some(event) => {
                    if let Some(event) = Event::read(&event) {
                        progress.show(&event);
                    }
                }
                None => events = None,
            },
            answer = &mut answer => {
                progress.finish();
                return answer;
            }
        }
    }
}

/// The next event; waits for ever when there is no stream any more.
async fn next(events: &mut Option<Events>) -> Option<Value> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}

fn not_done(app: &App, done: &str, failure: Failure) -> Failure {
    Failure {
        reason: format!("{} was not {done}: {}", app.name, failure.reason),
        ..failure
    }
}

fn read_status(answer: Value) -> Outcome<Status> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::caused(
            Exit::Failed,
            "cannot read the primary's status: it is of another version",
            &error,
        )
    })
}

fn print_json(value: &Value) -> Outcome {
    report::print(&format!("{value:#}\n"))
}
