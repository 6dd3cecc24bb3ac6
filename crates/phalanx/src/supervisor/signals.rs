//! What signals to the primary mean. No signal ends an app by accident: what has no meaning is ignored, and told in the log.
//!
//! A SIGHUP has two meanings. From an operator it asks for a reload. When it comes with the end of the terminal that the
//! primary was started from, nobody is left to look after the app, and it stops.

use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use phalanx_core::fleet::ScaleTo;
use phalanx_sys::signal::Signal;
use phalanx_sys::terminal;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::control::Control;
use crate::primary::clock;
use crate::watched::watch;

/// How long after the end of its terminal a SIGHUP is still due to that: shells pass it on at once.
const HANGUP_SPAN: Duration = Duration::from_secs(5);

/// Opens the log anew, after it was moved away.
pub type ReopenLog = Arc<dyn Fn() + Send + Sync>;

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Stop,
    /// The second one stops fast.
    Interrupt,
    StopFast,
    Reload,
    Hangup,
    Scale(ScaleTo),
    ReopenLog,
    /// Would end the process by default.
    Nothing,
}

/// The meaning of a signal; `None` if it keeps what the kernel does: it cannot be caught, tells of a fault, or is of no
/// consequence.
fn meaning(signal: Signal) -> Option<Meaning> {
    let meaning = match signal {
        // The second is how container managers ask an init to shut down.
        Signal::TERM | Signal::PWR => Meaning::Stop,
        Signal::INT => Meaning::Interrupt,
        Signal::QUIT => Meaning::StopFast,
        Signal::HUP => Meaning::Hangup,
        Signal::USR1 => Meaning::ReopenLog,
        Signal::USR2 => Meaning::Reload,
        Signal::TTIN => Meaning::Scale(ScaleTo::Up(1)),
        Signal::TTOU => Meaning::Scale(ScaleTo::Down(1)),
        Signal::ALRM
        | Signal::VTALRM
        | Signal::PROF
        | Signal::IO
        | Signal::STKFLT
        | Signal::XCPU
        | Signal::XFSZ => Meaning::Nothing,
        real_time if real_time.number() > Signal::SYS.number() => Meaning::Nothing,
        _ => return None,
    };
    Some(meaning)
}

/// What a SIGHUP asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangup {
    Reload,
    Stop,
    /// The app was started by nohup(1) or the like, to outlive its terminal.
    Ignore,
}

/// `terminal_gone_for`: how long ago the controlling terminal was hung up, if it was. `outlives`: SIGHUP was ignored when
/// the program was started.
fn hangup(terminal_gone_for: Option<Duration>, outlives: bool) -> Hangup {
    match terminal_gone_for {
        Some(time) if time <= HANGUP_SPAN && outlives => Hangup::Ignore,
        Some(time) if time <= HANGUP_SPAN => Hangup::Stop,
        Some(_) | None => Hangup::Reload,
    }
}

pub(super) fn obey(control: Control, reopen_log: Option<ReopenLog>) -> io::Result<()> {
    let outlives = Signal::HUP.is_ignored();
    let mut caught = Vec::new();
    for one in Signal::all() {
        if let Some(meaning) = meaning(one) {
            let stream = signal(SignalKind::from_raw(one.number()))?;
            caught.push(Caught {
                signal: one,
                meaning,
                stream,
            });
        }
    }
    let signals = Signals {
        control,
        reopen_log,
        caught,
        terminal: Terminal::watch(),
        outlives,
        interrupted: false,
    };
    tokio::spawn(signals.follow());
    Ok(())
}

struct Caught {
    signal: Signal,
    meaning: Meaning,
    stream: tokio::signal::unix::Signal,
}

struct Signals {
    control: Control,
    reopen_log: Option<ReopenLog>,
    caught: Vec<Caught>,
    terminal: Terminal,
    outlives: bool,
    interrupted: bool,
}

impl Signals {
    async fn follow(mut self) {
        loop {
            let (signal, meaning) = tokio::select! {
                biased;
                () = self.terminal.gone() => continue,
                caught = next(&mut self.caught) => caught,
            };
            self.act(signal.name(), meaning);
        }
    }

    fn act(&mut self, name: &'static str, meaning: Meaning) {
        match meaning {
            Meaning::Stop => self.ask(name, "", Asked::Stop),
            Meaning::Interrupt if self.interrupted => self.ask(name, "", Asked::StopFast),
            Meaning::Interrupt => {
                self.interrupted = true;
                self.ask(name, "", Asked::Stop);
            }
            Meaning::StopFast => self.ask(name, "", Asked::StopFast),
            Meaning::Reload => self.ask(name, "", Asked::Reload),
            Meaning::Scale(to) => self.ask(name, "", Asked::Scale(to)),
            Meaning::Hangup => match hangup(self.terminal.gone_for(), self.outlives) {
                Hangup::Reload => self.ask(name, "", Asked::Reload),
                Hangup::Stop => self.ask(name, " because the terminal was closed", Asked::Stop),
                Hangup::Ignore => tracing::info!(
                    "{name} received and ignored: the terminal was closed, and the app is to outlive it (nohup)"
                ),
            },
            Meaning::ReopenLog => self.reopen_log(name),
            Meaning::Nothing => tracing::warn!("{name} received and ignored: it has no meaning"),
        }
    }

    fn reopen_log(&self, name: &'static str) {
        if let Some(reopen) = &self.reopen_log {
            reopen();
            tracing::info!("{name} received: log opened anew");
        } else {
            tracing::info!("{name} received and ignored: there is no log to reopen");
        }
    }

    /// Nobody waits for a signal's answer, so a failure goes to the log.
    fn ask(&self, name: &'static str, why: &str, asked: Asked) {
        tracing::info!("{name} received{why}");
        let control = self.control.clone();
        tokio::spawn(async move {
            let answer = match asked {
                Asked::Stop => control.stop().await,
                Asked::StopFast => control.stop_fast().await,
                Asked::Reload => control.reload().await.map(|_| ()),
                Asked::Scale(to) => control.scale(to).await.map(|_| ()),
            };
            if let Err(error) = answer {
                tracing::error!("{name}: {error}");
            }
        });
    }
}

/// The next signal that arrives.
async fn next(caught: &mut [Caught]) -> (Signal, Meaning) {
    poll_fn(|context| {
        for one in &mut *caught {
            if one.stream.poll_recv(context).is_ready() {
                return Poll::Ready((one.signal, one.meaning));
            }
        }
        Poll::Pending
    })
    .await
}

enum Asked {
    Stop,
    StopFast,
    Reload,
    Scale(ScaleTo),
}

/// The terminal that the primary was started from.
struct Terminal {
    descriptor: Option<AsyncFd<OwnedFd>>,
    gone_at: Option<Instant>,
}

impl Terminal {
    fn watch() -> Self {
        let descriptor = terminal::controlling().and_then(|terminal| watch(terminal).ok());
        Self {
            descriptor,
            gone_at: None,
        }
    }

    /// Returns once, when the terminal was hung up.
    async fn gone(&mut self) {
        let Some(descriptor) = &self.descriptor else {
            return pending().await;
        };
        while let Ok(mut ready) = descriptor.readable().await {
            // Typing is none of ours, and is left to whoever reads.
            ready.clear_ready();
            if terminal::is_hung_up(descriptor.get_ref()).unwrap_or(true) {
                break;
            }
        }
        self.note();
    }

    fn note(&mut self) {
        self.descriptor = None;
        self.gone_at = Some(clock::real_now());
    }

    /// How long ago it was hung up.
    fn gone_for(&mut self) -> Option<Duration> {
        let is_gone = |one: &AsyncFd<OwnedFd>| terminal::is_hung_up(one.get_ref()).unwrap_or(true);
        if self.descriptor.as_ref().is_some_and(is_gone) {
            self.note();
        }
        self.gone_at.map(|at| clock::real_now().duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_stops_only_with_the_end_of_the_terminal() {
        let (at_once, later) = (Some(Duration::ZERO), Some(Duration::from_hours(1)));
        assert_eq!(hangup(at_once, false), Hangup::Stop);
        assert_eq!(hangup(at_once, true), Hangup::Ignore);
        for outlives in [false, true] {
            assert_eq!(hangup(None, outlives), Hangup::Reload);
            assert_eq!(hangup(later, outlives), Hangup::Reload);
        }
    }

    #[test]
    fn every_signal_that_would_end_the_primary_has_a_meaning() {
        // What tells of a fault, cannot be caught, or does nothing by default (signal(7)).
        let kept = [
            Signal::ILL,
            Signal::TRAP,
            Signal::ABRT,
            Signal::BUS,
            Signal::FPE,
            Signal::KILL,
            Signal::SEGV,
            Signal::PIPE,
            Signal::CHLD,
            Signal::CONT,
            Signal::STOP,
            Signal::TSTP,
            Signal::URG,
            Signal::WINCH,
            Signal::SYS,
        ];
        for signal in Signal::all() {
            assert_eq!(
                meaning(signal).is_none(),
                kept.contains(&signal),
                "{signal:?}"
            );
        }
    }
}
