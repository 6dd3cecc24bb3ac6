//! The app in a few lines: what it is, where it listens, how much it has to do, and the reload that is going on.

use phalanx_control::api::{Status, WorkerState, WorkerStatus};
use phalanx_control::level::counted;
use phalanx_control::show;
use ratatui::text::{Line, Span};

use super::look::{Look, Tone};
use super::text;
use crate::model::{Model, Rollout, Side, Stage};

/// A status older than this is said to be old.
const OLD_MS: u64 = 3_000;

/// The lines at the top.
pub(super) fn lines(model: &Model, look: Look, width: u16) -> Vec<Line<'static>> {
    let Some(status) = &model.status else {
        return waiting(model, look);
    };
    let mut lines = vec![title(status, look), second(model, status, look)];
    lines.push(rate(model, status, look, usize::from(width)));
    if let Some(rollout) = model.rollout.as_ref().filter(|one| one.is_shown(model.now)) {
        lines.push(progress(rollout, look));
        lines.extend(rollout.sides.as_ref().map(|sides| comparison(sides, look)));
    } else if status.reloading {
        let text = if status.watching {
            " reloading: watching the first"
        } else {
            " reloading"
        };
        lines.push(Line::styled(text, look.style(Tone::Busy)));
    }
    lines
}

fn waiting(model: &Model, look: Look) -> Vec<Line<'static>> {
    let Some(name) = &model.app else {
        return vec![Line::styled(" phalanx", look.style(Tone::Title))];
    };
    let mut lines = vec![Line::styled(format!(" {name}"), look.style(Tone::Title))];
    lines.push(match &model.lost {
        Some((reason, since)) => lost(reason, model.now.saturating_sub(*since), look),
        None => Line::styled(format!(" asking{}", look.dots()), look.style(Tone::Quiet)),
    });
    lines
}

fn title(status: &Status, look: Look) -> Line<'static> {
    let is_ready = |worker: &&WorkerStatus| worker.state == WorkerState::Ready;
    let ready = status.workers.iter().filter(is_ready).count();
    let are_all = u32::try_from(ready).is_ok_and(|ready| ready >= status.target);
    let tone = if are_all { Tone::Good } else { Tone::Warn };
    let stopping = if status.stopping { ", stopping" } else { "" };
    let weights = status
        .weights
        .as_ref()
        .filter(|weights| !weights.is_empty());
    let weights = weights.map(|weights| format!(" {weights}"));
    Line::from_iter([
        Span::styled(
            format!(" {}", show::plain(&status.name)),
            look.style(Tone::Title),
        ),
        Span::styled(
            format!("  {ready} of {} ready{stopping}", counted(status.target)),
            look.style(tone),
        ),
        Span::styled(
            format!(
                "  generation {}  {}{}  {}",
                status.generation.0,
                show::plain(status.policy.as_str()),
                weights.unwrap_or_default(),
                show::plain(status.dispatch.as_str()),
            ),
            look.style(Tone::Plain),
        ),
    ])
}

/// Where it listens; or that it is not heard.
fn second(model: &Model, status: &Status, look: Look) -> Line<'static> {
    if let Some((reason, since)) = &model.lost {
        return lost(reason, model.now.saturating_sub(*since), look);
    }
    let age = model.now.saturating_sub(model.heard_at);
    if age > OLD_MS {
        let text = format!(" no answer for {}; asking", text::span(age));
        return Line::styled(text + look.dots(), look.style(Tone::Warn));
    }
    let mut addresses: Vec<_> = status
        .listeners
        .iter()
        .map(|one| show::plain(&one.address).into_owned())
        .collect();
    if addresses.is_empty() {
        addresses.push("nowhere yet".to_owned());
    }
    let up = model
        .figures
        .as_ref()
        .and_then(|figures| figures.up_seconds);
    let up = up.map(|seconds| {
        let millis = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let up = text::span(u64::try_from(millis.as_millis()).unwrap_or_default());
        format!("  up {up}")
    });
    let text = format!(
        " listening on {}{}  primary {}, lag {:.1}ms",
        addresses.join(" "),
        up.unwrap_or_default(),
        text::bytes(status.primary.memory_bytes),
        status.primary.loop_lag_p99_ms
    );
    Line::styled(text, look.style(Tone::Quiet))
}

fn lost(reason: &str, age: u64, look: Look) -> Line<'static> {
    let text = format!(" {reason} ({} ago; asking again)", text::span(age));
    Line::styled(text, look.style(Tone::Bad))
}

/// What all workers have to do, now and before.
fn rate(model: &Model, status: &Status, look: Look, width: usize) -> Line<'static> {
    let Some(now) = model.rate.last() else {
        return Line::default();
    };
    let positions = model.figures.iter().flat_map(|figures| &figures.positions);
    let mut requests = positions.filter_map(|one| one.requests_per_second);
    let (what, all) = if requests.next().is_some() {
        ("requests", status.totals.requests)
    } else {
        ("connections", status.totals.connections)
    };
    let all = all.map_or_else(String::new, |all| format!(" {all} in all "));
    let head = format!(" {:>6} {what}/s {all}", text::rate(now));
    let left = width.saturating_sub(head.chars().count() + 1);
    Line::from_iter([
        Span::styled(head, look.style(Tone::Title)),
        Span::styled(
            text::trend(&model.rate, left, look),
            look.style(Tone::Trend),
        ),
    ])
}

fn progress(rollout: &Rollout, look: Look) -> Line<'static> {
    let bar = |done, of| text::bar(done, of, 20, look);
    let (tone, said) = match rollout.stage {
        Stage::Replacing => {
            let (done, of) = (rollout.done, rollout.of);
            (
                Tone::Busy,
                format!("{}  {done} of {of} replaced", bar(done, of)),
            )
        }
        Stage::Watching(elapsed, watch) => (
            Tone::Busy,
            format!(
                "{}  watching the first for {} of {}",
                bar(elapsed, watch),
                text::span(elapsed),
                text::span(watch)
            ),
        ),
        Stage::GoingBack => (Tone::Warn, "failed: going back".to_owned()),
        Stage::Over { is_well: true, .. } => (Tone::Good, format!("{}  serves", bar(1, 1))),
        Stage::Over { is_well: false, .. } => (Tone::Warn, "serves again".to_owned()),
    };
    let text = format!(" reload: generation {}  {said}", rollout.generation);
    Line::styled(text, look.style(tone))
}

/// The canaries against the others.
fn comparison((canary, others): &(Side, Side), look: Look) -> Line<'static> {
    let side = |side: &Side| {
        let p99 = side
            .p99_us
            .map(|p99| format!(", p99 {}", text::micros(p99, look)));
        let (requests, errors) = (side.requests, side.errors);
        format!(
            "{requests} requests, {errors} errors{}",
            p99.unwrap_or_default()
        )
    };
    let text = format!("   new: {}   old: {}", side(canary), side(others));
    Line::styled(text, look.style(Tone::Plain))
}
