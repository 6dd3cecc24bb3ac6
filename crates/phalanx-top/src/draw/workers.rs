//! The workers, one a line, in as many columns as there is room for and something to say.

use phalanx_control::api::{HealthState, Status, VacancyStatus, WorkerState, WorkerStatus};
use phalanx_control::show;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::look::{Look, Tone};
use super::{count, put, text};
use crate::model::{Model, PositionFigures};

/// What a row is about.
#[derive(Clone, Copy)]
enum Row<'a> {
    Worker(&'a WorkerStatus, Option<&'a PositionFigures>),
    Vacancy(&'a VacancyStatus),
}

/// A column: the lower its rank, the sooner it has a place.
struct Column {
    head: &'static str,
    width: usize,
    rank: u8,
    cell: fn(&Row<'_>, &Model, Look) -> Option<String>,
}

const STATE: usize = 1;

/// The columns in the order in which they stand. The first two are the position and the state.
const COLUMNS: [Column; 16] = [
    column("POS", 3, 0, |row, _, _| Some(row.position().to_string())),
    column("STATE", 8, 0, |row, _, _| Some(row.state())),
    column("GEN", 3, 11, |row, _, _| {
        Some(row.worker()?.generation.0.to_string())
    }),
    column("PID", 7, 12, |row, _, _| {
        Some(row.worker()?.pid?.to_string())
    }),
    column("SHARE", 6, 2, |row, _, _| {
        Some(format!("{:.1}%", row.worker()?.share? * 100.0))
    }),
    column("OPEN", 5, 4, |row, _, _| {
        Some(row.worker()?.open?.to_string())
    }),
    column("CONN/S", 6, 8, |row, _, _| {
        Some(text::rate(row.figures()?.connections_per_second?))
    }),
    column("REQ/S", 6, 1, |row, _, _| {
        Some(text::rate(row.figures()?.requests_per_second?))
    }),
    column("P50", 6, 5, |row, _, look| {
        Some(text::micros(row.figures()?.p50_us?, look))
    }),
    column("P99", 6, 3, |row, _, look| {
        Some(text::micros(row.figures()?.p99_us?, look))
    }),
    column("RESP", 6, 9, |row, _, look| {
        Some(text::micros(row.worker()?.response_us?.into(), look))
    }),
    column("LAG", 6, 6, |row, _, look| {
        let figures = row.figures().and_then(|figures| figures.loop_lag_us);
        Some(text::micros(row.worker()?.loop_lag_us.or(figures)?, look))
    }),
    column("CPU", 4, 3, |row, _, _| {
        Some(format!("{:.0}%", row.figures()?.cpu? * 100.0))
    }),
    column("MEM", 5, 2, |row, _, _| {
        Some(text::bytes(row.worker()?.memory_bytes?))
    }),
    column("RST", 3, 3, |row, _, _| Some(row.restarts().to_string())),
    column("UP", 7, 10, |row, model, _| {
        Some(text::span(
            model.now.saturating_sub(row.worker()?.ready_at?),
        ))
    }),
];
/// The narrowest trend.
const TREND: usize = 5;
const TREND_MAX: usize = 60;

const fn column(
    head: &'static str,
    width: usize,
    rank: u8,
    cell: fn(&Row<'_>, &Model, Look) -> Option<String>,
) -> Column {
    Column {
        head,
        width,
        rank,
        cell,
    }
}

impl<'a> Row<'a> {
    fn worker(&self) -> Option<&'a WorkerStatus> {
        match self {
            Self::Worker(worker, _) => Some(worker),
            Self::Vacancy(_) => None,
        }
    }

    fn figures(&self) -> Option<&'a PositionFigures> {
        match self {
            Self::Worker(_, figures) => *figures,
            Self::Vacancy(_) => None,
        }
    }

    fn position(&self) -> u32 {
        match self {
            Self::Worker(worker, _) => worker.position.0,
            Self::Vacancy(vacancy) => vacancy.position.0,
        }
    }

    fn restarts(&self) -> u32 {
        match self {
            Self::Worker(worker, _) => worker.restarts,
            Self::Vacancy(vacancy) => vacancy.restarts,
        }
    }

    fn state(&self) -> String {
        match self {
            Self::Worker(worker, _) => match (&worker.health, worker.stuck_ms) {
                (Some(health), _) => show::plain(health.as_str()).into_owned(),
                (None, Some(_)) => "stuck".to_owned(),
                (None, None) => show::plain(worker.state.as_str()).into_owned(),
            },
            Self::Vacancy(vacancy) if vacancy.crash_loop => "crashing".to_owned(),
            Self::Vacancy(vacancy) => match vacancy.retry_in_ms {
                Some(left) => format!(
                    "in {:.1}s",
                    std::time::Duration::from_millis(left).as_secs_f64()
                ),
                None => "vacant".to_owned(),
            },
        }
    }

    fn tone(&self) -> Tone {
        let Self::Worker(worker, _) = self else {
            return Tone::Bad;
        };
        match (&worker.health, worker.stuck_ms) {
            (Some(HealthState::Hung), _) => return Tone::Bad,
            (Some(_), _) | (_, Some(_)) => return Tone::Warn,
            (None, None) => {}
        }
        if worker.state == WorkerState::Ready {
            Tone::Good
        } else if [WorkerState::Starting, WorkerState::Online].contains(&worker.state) {
            Tone::Busy
        } else {
            Tone::Quiet
        }
    }
}

/// How many lines the workers take.
pub(super) fn row_count(model: &Model) -> u16 {
    let status = model.status.as_ref();
    count(status.map_or(0, |status| status.workers.len() + status.vacancies.len()))
}

fn rows<'a>(model: &'a Model, status: &'a Status) -> Vec<Row<'a>> {
    let workers = status.workers.iter();
    let mut rows: Vec<_> = workers
        .map(|worker| Row::Worker(worker, model.figures_of(worker)))
        .chain(status.vacancies.iter().map(Row::Vacancy))
        .collect();
    rows.sort_by_key(Row::position);
    rows
}

/// Draws the table, the chosen worker in sight.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    let Some(status) = &model.status else {
        return;
    };
    let rows = rows(model, status);
    let shown = Shown::of(&rows, model, look, usize::from(area.width));
    let room = usize::from(area.height.saturating_sub(2));
    let is_chosen = |row: &Row<'_>| {
        row.worker()
            .is_some_and(|one| Some(one.id.0) == model.chosen)
    };
    let chosen = rows.iter().position(is_chosen).unwrap_or(0);
    let first = (chosen + 1).saturating_sub(room);
    let mut lines = vec![Line::default(), shown.heads(rows.len(), room, look)];
    let visible = rows.iter().skip(first).take(room);
    lines.extend(visible.map(|row| shown.line(row, is_chosen(row), model, look)));
    put(frame, area, lines);
}

/// What is shown at this width.
struct Shown {
    /// Indices of [`COLUMNS`].
    columns: Vec<usize>,
    trend: usize,
}

impl Shown {
    fn of(rows: &[Row<'_>], model: &Model, look: Look, width: usize) -> Self {
        let has_something = |column: &Column| {
            rows.iter()
                .any(|row| (column.cell)(row, model, look).is_some())
        };
        let mut ranked: Vec<_> = (0..COLUMNS.len())
            .filter(|at| has_something(&COLUMNS[*at]))
            .collect();
        ranked.sort_by_key(|at| COLUMNS[*at].rank);
        // The mark and a margin; the narrowest trend.
        let mut left = width.saturating_sub(2 + TREND + 1);
        let mut columns = Vec::new();
        for at in ranked {
            let Some(rest) = left.checked_sub(COLUMNS[at].width + 1) else {
                break;
            };
            left = rest;
            columns.push(at);
        }
        columns.sort_unstable();
        let trend = (left + TREND).min(TREND_MAX);
        Self { columns, trend }
    }

    fn heads(&self, rows: usize, room: usize, look: Look) -> Line<'static> {
        let heads = self.columns.iter().map(|at| {
            let column = &COLUMNS[*at];
            set(column.head, column.width, *at)
        });
        let mut text = format!("  {}", heads.collect::<Vec<_>>().join(" "));
        if rows > room {
            text = format!("{text}  {room} of {rows}");
        }
        Line::styled(text, look.style(Tone::Quiet))
    }

    fn line(&self, row: &Row<'_>, is_chosen: bool, model: &Model, look: Look) -> Line<'static> {
        let base = if is_chosen {
            look.style(Tone::Title)
        } else {
            Style::new()
        };
        let mark = if is_chosen { look.mark() } else { ' ' };
        let mut spans = vec![Span::styled(format!("{mark} "), base)];
        for at in &self.columns {
            let column = &COLUMNS[*at];
            let cell = (column.cell)(row, model, look).unwrap_or_else(|| "-".to_owned());
            let style = if *at == STATE {
                base.patch(look.style(row.tone()))
            } else {
                base
            };
            spans.push(Span::styled(set(&cell, column.width, *at), style));
            spans.push(Span::raw(" "));
        }
        let newest = row.figures().is_some()
            || row
                .worker()
                .is_some_and(|one| one.state == WorkerState::Ready);
        if let Some(seen) = model.seen.get(&row.position()).filter(|_| newest) {
            let trend = text::trend(&seen.rate, self.trend, look);
            spans.push(Span::styled(trend, look.style(Tone::Trend)));
        }
        Line::from(spans)
    }
}

/// Words to the left, figures to the right.
fn set(text: &str, width: usize, column: usize) -> String {
    if column == STATE {
        let text: String = text.chars().take(width).collect();
        return format!("{text:<width$}");
    }
    format!("{text:>width$}")
}

/// The chosen worker in words: who it is, and what happened to it or before it.
pub(super) fn chosen_lines(model: &Model, look: Look) -> Vec<Line<'static>> {
    let Some(worker) = model.chosen() else {
        return Vec::new();
    };
    let pid = worker.pid.map(|pid| format!(", pid {pid}"));
    let up = worker
        .ready_at
        .map(|at| format!(", ready for {}", text::span(model.now.saturating_sub(at))));
    let served = worker
        .connections
        .map(|count| format!(", {count} connections"));
    let says = worker
        .says
        .as_ref()
        .map(|says| format!(", says: {}", show::plain(says)));
    let parts = [pid, up, served, says].into_iter().flatten();
    let who = format!(
        "{} worker {}, generation {}{}",
        look.mark(),
        worker.id.0,
        worker.generation.0,
        parts.collect::<String>()
    );
    let mut lines = vec![Line::default(), Line::styled(who, look.style(Tone::Title))];
    let recycled = worker.recycled.as_ref().map(|recycled| {
        let why = show::plain(&recycled.why);
        format!(
            "  the one before was replaced {} ago: {why}",
            text::span(recycled.ago_ms)
        )
    });
    let seen = model
        .seen
        .get(&worker.position.0)
        .and_then(|seen| seen.why.as_ref());
    let seen = seen.map(|why| format!("  last: {why}"));
    let health = worker
        .health_why
        .as_ref()
        .map(|why| format!("  {}", show::plain(why)));
    if let Some(text) = health {
        lines.push(Line::styled(text, look.style(Tone::Warn)));
    } else if let Some(text) = seen.or(recycled) {
        lines.push(Line::styled(text, look.style(Tone::Quiet)));
    } else {
        lines.push(Line::default());
    }
    lines
}
