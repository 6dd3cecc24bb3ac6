//! `phalanx drill`: asks a server in many ways at once, reloads it, scales it and kills its workers meanwhile,
//! and tells what was lost.
//!
//! Pure are `plan` (what happens when), `mix` and `request` (who asks what), `response` and `frame` (reading
//! what comes), `cause` and `account` (what became of each request), `histogram` and `timeline`, `report`,
//! `words` and `svg`. `client` asks, `director` acts, `cluster` runs the user's server, `aim` finds out where it is reached,
//! through a `relay` where that is a Unix socket; `session` is what they share.

mod account;
mod aim;
mod args;
mod cause;
mod client;
mod cluster;
mod director;
mod external;
mod frame;
mod histogram;
mod kill;
mod launch;
mod mix;
mod plan;
mod progress;
mod relay;
mod report;
mod request;
mod response;
mod session;
mod sockets;
mod svg;
mod target;
mod timeline;
mod words;

pub use args::DrillArgs;
pub use launch::OpensPorts;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use aim::{Target, aim};
use client::Client;
use director::Director;
use mix::Way;
use phalanx_control::exit::Exit;
use phalanx_control::failure::{Failure, Outcome};
use plan::Counts;
use progress::Progress;
use report::{Circumstances, Report};
use request::Questions;
use session::Session;

/// What came of a drill.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Drilled {
    /// The report, in words or as JSON; ends with a newline.
    pub report: String,
    /// A failure if the server did not pass.
    pub verdict: Outcome,
}

/// Carries a drill out.
///
/// # Errors
///
/// Fails if the drill could not begin, or its report could not be written.
pub async fn drill(args: DrillArgs, opens_ports: OpensPorts) -> Outcome<Drilled> {
    let counts = counts(&args)?;
    let ways = ways(&args)?;
    let mut interruption = Interruption::watch()?;
    let target = tokio::select! {
        biased;
        () = interruption.come() => return Err(interrupted("interrupted before the server was ready")),
        target = aim(&args, opens_ports) => target?,
    };
    let counts = possible(&args, counts, &target)?;
    let questions = Arc::new(questions(&args, &target));
    let report = tokio::select! {
        biased;
        () = interruption.come() => Err(interrupted("interrupted before the drill began")),
        answers = client::probe(&questions) => answers.map_err(|reason| Failure::new(Exit::Failed, reason)),
    };
    let report = match report {
        Ok(()) => Ok(carry_out(&args, counts, &ways, &questions, &target, &mut interruption).await),
        Err(failure) => Err(failure),
    };
    if let Some(own) = target.own {
        own.stop().await;
    }
    let (report, timeline) = report?;
    if let Some(file) = &args.svg {
        fs::write(file, timeline).map_err(|error| {
            Failure::caused(
                Exit::CannotCreate,
                &format!("cannot write {}", file.display()),
                &error,
            )
        })?;
    }
    Ok(Drilled {
        report: text(&report, args.json)?,
        verdict: verdict(&report),
    })
}

fn text(report: &Report, as_json: bool) -> Outcome<String> {
    if !as_json {
        return Ok(words::of(report));
    }
    let json = serde_json::to_string_pretty(report);
    let json =
        json.map_err(|error| Failure::caused(Exit::Failed, "cannot write the report", &error))?;
    Ok(format!("{json}\n"))
}

fn verdict(report: &Report) -> Outcome {
    if report.passed {
        return Ok(());
    }
    let is_only_interrupted = report.interrupted && report.all.lost == 0 && report.all.retried == 0;
    let exit = if is_only_interrupted {
        Exit::Interrupted
    } else {
        Exit::Failed
    };
    Err(Failure::new(exit, words::reason(report)))
}

fn interrupted(reason: &str) -> Failure {
    Failure::new(Exit::Interrupted, reason)
}

/// How often what is done; refuses what cannot be done to this target.
fn counts(args: &DrillArgs) -> Outcome<Counts> {
    let usage = |reason: &str| Err(Failure::new(Exit::Usage, reason));
    let plan = &args.plan;
    if args.command.is_empty() && args.name.is_none() && args.url.is_none() {
        return usage("name what to drill: a COMMAND, --name NAME or --url URL");
    }
    if args.url.is_none() && args.reload_command.is_some() {
        return usage("--reload-command is for a server that is named by --url");
    }
    let can_reload = args.url.is_none() || args.reload_command.is_some();
    if !can_reload && plan.reloads.is_some_and(|reloads| reloads > 0) {
        return usage("--reloads with --url needs --reload-command too");
    }
    if args.url.is_some() && (plan.kills.unwrap_or(0) > 0 || plan.scales.unwrap_or(0) > 0) {
        return usage(
            "a server that phalanx does not run cannot be scaled, and its workers are not known: no --kills and --scales with --url",
        );
    }
    // Nobody's running app is maimed without having been asked for.
    let by_default = |count| if args.command.is_empty() { 0 } else { count };
    Ok(Counts {
        reloads: plan.reloads.unwrap_or(if can_reload { 3 } else { 0 }),
        kills: plan.kills.unwrap_or(by_default(2)),
        scales: plan.scales.unwrap_or(by_default(2)),
    })
}

/// What a killed worker had in service is known by its clients' ports, which those of a Unix socket have not.
fn possible(args: &DrillArgs, counts: Counts, target: &Target) -> Outcome<Counts> {
    if target.relay.is_none() || counts.kills == 0 {
        return Ok(counts);
    }
    if args.plan.kills.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "no --kills where the server listens on a Unix socket: what a worker had in service cannot be told",
        ));
    }
    Ok(Counts { kills: 0, ..counts })
}

fn ways(args: &DrillArgs) -> Outcome<Vec<Way>> {
    let load = &args.load;
    if load.mix.contains(&Way::WebSocket) && load.ws.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "--mix websocket needs the option --ws PATH too",
        ));
    }
    let clients = usize::try_from(load.clients).unwrap_or(usize::MAX);
    Ok(mix::shared_out(clients, &load.mix, load.ws.is_some()))
}

fn questions(args: &DrillArgs, target: &Target) -> Questions {
    let load = &args.load;
    Questions {
        address: target.address,
        host: target.host.clone(),
        method: load.method.clone(),
        paths: load.path.clone(),
        upload_path: load.upload_path.clone(),
        websocket_path: load.ws.clone(),
        headers: load.header.clone(),
        limit: load.timeout,
    }
}

/// The drill itself: the report, and the timeline as a picture.
async fn carry_out(
    args: &DrillArgs,
    counts: Counts,
    ways: &[Way],
    questions: &Arc<Questions>,
    target: &Target,
    interruption: &mut Interruption,
) -> (Report, String) {
    let length = args.plan.length;
    let steps = plan::plan(length, counts);
    let session = Arc::new(Session::open());
    let mut clients = spawn_clients(ways, args.load.rate, questions, &session);
    let mut director = Director::new(Arc::clone(&session), target.means.clone());
    let progress = Progress::start(&session, length, steps.len(), args.quiet);
    let whole = async {
        director.direct(&steps).await;
        let end = length.max(session.now() + plan::rest(length));
        sleep_until(Instant::from_std(session.moment(end))).await;
        director.look_at_shares().await;
    };
    let was_interrupted = tokio::select! {
        biased;
        () = interruption.come() => true,
        () = whole => false,
    };
    session.stop();
    let took = session.now();
    if !was_interrupted {
        // What is under way is finished, unless that is interrupted too. A request has a limit of its own.
        tokio::select! {
            biased;
            () = interruption.come() => {}
            _ = timeout(questions.limit * 3, all_ended(&mut clients)) => {}
        }
    }
    clients.shutdown().await;
    progress.finish();
    let around = Circumstances {
        target: target.host.clone(),
        clients: ways.len(),
        took,
        interrupted: was_interrupted,
        shares: director.shares,
    };
    let account = session.account();
    let report = Report::of(&account, &around);
    let picture = svg::of(&report, &account);
    (report, picture)
}

fn spawn_clients(
    ways: &[Way],
    rate: u32,
    questions: &Arc<Questions>,
    session: &Arc<Session>,
) -> JoinSet<()> {
    let is_paced = |way: &&Way| matches!(way, Way::New | Way::KeepAlive | Way::Pipelined);
    let paced = u32::try_from(ways.iter().filter(is_paced).count()).unwrap_or(u32::MAX);
    let mut clients = JoinSet::new();
    for (seed, way) in (1_u64..).zip(ways) {
        let at_once = u32::try_from(request::requests_at_once(*way)).unwrap_or(1);
        let interval = Duration::from_secs(1) * at_once * paced;
        let pace = interval.checked_div(rate).filter(|_| is_paced(&way));
        let client = Client::new(
            *way,
            Arc::clone(questions),
            Arc::clone(session),
            fastrand::Rng::with_seed(seed),
            pace,
        );
        clients.spawn(client.run());
    }
    clients
}

async fn all_ended(clients: &mut JoinSet<()>) {
    while clients.join_next().await.is_some() {}
}

/// Ctrl-C, or the word to end.
struct Interruption {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interruption {
    fn watch() -> Outcome<Self> {
        let watch = |kind| {
            signal(kind)
                .map_err(|error| Failure::caused(Exit::Failed, "cannot handle signals", &error))
        };
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
