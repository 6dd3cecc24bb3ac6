//! What signals to the primary mean.

use std::io;

use phalanx_core::fleet::ScaleTo;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control::Control;

/// `SIGTTIN` and `SIGTTOU`, which [`SignalKind`] has no names for.
const TTIN: i32 = phalanx_sys::signal::Signal::TTIN.number();
const TTOU: i32 = phalanx_sys::signal::Signal::TTOU.number();

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user2: Signal,
    more: Signal,
    fewer: Signal,
}

pub(super) fn obey(control: Control) -> io::Result<()> {
    let signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        quit: signal(SignalKind::quit())?,
        hangup: signal(SignalKind::hangup())?,
        user2: signal(SignalKind::user_defined2())?,
        more: signal(SignalKind::from_raw(TTIN))?,
        fewer: signal(SignalKind::from_raw(TTOU))?,
    };
    tokio::spawn(follow(signals, control));
    Ok(())
}

async fn follow(mut signals: Signals, control: Control) {
    let mut interrupted = false;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => spawn(&control, "SIGTERM", Asked::Stop),
            _ = signals.interrupt.recv() => {
                let asked = if interrupted { Asked::StopFast } else { Asked::Stop };
                interrupted = true;
                spawn(&control, "SIGINT", asked);
            }
            _ = signals.quit.recv() => spawn(&control, "SIGQUIT", Asked::StopFast),
            _ = signals.hangup.recv() => spawn(&control, "SIGHUP", Asked::Reload),
            _ = signals.user2.recv() => spawn(&control, "SIGUSR2", Asked::Reload),
            _ = signals.more.recv() => spawn(&control, "SIGTTIN", Asked::Scale(ScaleTo::Up(1))),
            _ = signals.fewer.recv() => spawn(&control, "SIGTTOU", Asked::Scale(ScaleTo::Down(1))),
        }
    }
}

enum Asked {
    Stop,
    StopFast,
    Reload,
    Scale(ScaleTo),
}

/// Nobody waits for a signal's answer, so a failure goes to the log.
fn spawn(control: &Control, name: &'static str, asked: Asked) {
    tracing::info!("{name} received");
    let control = control.clone();
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
