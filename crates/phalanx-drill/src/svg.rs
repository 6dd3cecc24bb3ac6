//! The timeline of a drill as a picture: throughput and latency over time, with what was done to the app and
//! what was lost. Plain SVG 1.1 without scripts or fonts of its own.

mod draw;

use std::fmt::Write as _;
use std::time::Duration;

use super::account::Account;
use super::report::{Done, Report};
use super::words;
use draw::{as_f64, curve, decade, escaped, grid, label, rect, round_up, short};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 980.0;
/// Top and bottom of the two panels, and the line on which losses are marked.
const THROUGHPUT: (f64, f64) = (120.0, 270.0);
const LOSSES: f64 = 300.0;
const LATENCY: (f64, f64) = (330.0, 480.0);

const BLUE: &str = "#1f5fa8";
const ORANGE: &str = "#d97706";
const RED: &str = "#c81e1e";
const GREY: &str = "#6b7280";
/// Bands of reloads and of scaling.
const RELOAD: &str = "#dbe9fb";
const SCALE: &str = "#dff3e4";
/// Bands with numbers; more would not be legible.
const NUMBERED: usize = 30;

/// The picture.
pub(super) fn of(report: &Report, account: &Account) -> String {
    let picture = Picture::new(report, account);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    text += &picture.title(report);
    text += &picture.bands(report);
    text += &picture.throughput();
    text += &picture.latency();
    text += &picture.kills(report);
    text += &picture.losses(report);
    text += &picture.time_axis();
    text + "</svg>\n"
}

/// One span of time, as it is drawn.
struct Point {
    at: f64,
    answered_per_second: f64,
    /// Milliseconds.
    median: Option<f64>,
    p99: Option<f64>,
}

struct Picture {
    /// The whole time, in seconds.
    length: f64,
    points: Vec<Point>,
    most_per_second: f64,
    /// The range of latencies, as powers of ten of milliseconds.
    decades: (i32, i32),
}

impl Picture {
    fn new(report: &Report, account: &Account) -> Self {
        let span = account.timeline.span().as_secs_f64();
        let millis = |latency: Duration| latency.as_secs_f64() * 1e3;
        let took = report.took_ms / 1e3;
        let points: Vec<Point> = account
            .timeline
            .spans()
            .map(|(at, of)| Point {
                at: at.as_secs_f64() + span / 2.0,
                answered_per_second: as_f64(of.answered) / span,
                median: of.latency.quantile(500).map(millis),
                p99: of.latency.quantile(990).map(millis),
            })
            // What is finished after the end has spans that are not full.
            .filter(|point| point.at < took)
            .collect();
        let most = points
            .iter()
            .map(|point| point.answered_per_second)
            .fold(1.0, f64::max);
        let latencies = || {
            points
                .iter()
                .flat_map(|point| [point.median, point.p99])
                .flatten()
        };
        let low = latencies().fold(1.0, f64::min).max(0.01).log10().floor();
        let high = latencies().fold(1.0, f64::max).max(0.1).log10().ceil();
        Self {
            length: took.max(0.001),
            points,
            most_per_second: round_up(most),
            decades: (decade(low), decade(high).max(decade(low) + 1)),
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (seconds / self.length).clamp(0.0, 1.0)
    }

    fn y_throughput(&self, per_second: f64) -> f64 {
        THROUGHPUT.1 - (THROUGHPUT.1 - THROUGHPUT.0) * per_second / self.most_per_second
    }

    fn y_latency(&self, millis: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let share = ((millis.max(0.001).log10() - low) / (high - low)).clamp(0.0, 1.0);
        LATENCY.1 - (LATENCY.1 - LATENCY.0) * share
    }

    fn title(&self, report: &Report) -> String {
        let colour = if report.passed { "#15803d" } else { RED };
        let counts = format!(
            "{} requests in {:.1} s by {} clients; {} reloads, {} kills, {} scales; {} lost, {} retried, {} in service on killed workers",
            report.requests,
            self.length,
            report.clients,
            report.reloads,
            report.kills,
            report.scales,
            report.all.lost,
            report.all.retried,
            report.all.lost_to_kills + report.all.retried_to_kills
        );
        let mut text = label(LEFT, 30.0, "start", colour, 18, &words::reason(report));
        text += &label(LEFT, 50.0, "start", GREY, 12, &counts);
        text + &legend()
    }

    /// What went on, behind the curves.
    fn bands(&self, report: &Report) -> String {
        let mut text = String::new();
        let of_kind = |kind: &'static str| {
            report
                .actions
                .iter()
                .filter(move |action| action.kind == kind)
        };
        for (kind, colour) in [("reload", RELOAD), ("scale", SCALE)] {
            for action in of_kind(kind) {
                let (from, to) = self.extent(action);
                // Even the shortest can be seen.
                let width = (to - from).max(1.5);
                for (top, bottom) in [THROUGHPUT, LATENCY] {
                    text += &rect(from, top, width, bottom - top, colour);
                }
                if report.actions.len() <= NUMBERED {
                    let name = format!(
                        "{kind} {}{}",
                        action.number,
                        if action.failure.is_some() {
                            " failed"
                        } else {
                            ""
                        }
                    );
                    let colour = if action.failure.is_some() { RED } else { GREY };
                    writeln!(
                        text,
                        "<text x=\"{0:.1}\" y=\"{1:.1}\" fill=\"{colour}\" font-size=\"10\" \
                         transform=\"rotate(-35 {0:.1} {1:.1})\">{name}</text>",
                        f64::midpoint(from, from + width),
                        THROUGHPUT.0 - 5.0
                    )
                    .unwrap_or_default();
                }
            }
        }
        text
    }

    fn extent(&self, action: &Done) -> (f64, f64) {
        let from = action.at_ms / 1e3;
        let to = action.took_ms.map_or(self.length, |took| from + took / 1e3);
        (self.x(from), self.x(to))
    }

    fn throughput(&self) -> String {
        let mut text = label(
            LEFT,
            THROUGHPUT.0 - 32.0,
            "start",
            BLUE,
            12,
            "answers a second",
        );
        for quarter in 0..=4 {
            let value = self.most_per_second * f64::from(quarter) / 4.0;
            text += &grid(self.y_throughput(value), &short(value));
        }
        let points = self.points.iter().map(|point| {
            Some((
                self.x(point.at),
                self.y_throughput(point.answered_per_second),
            ))
        });
        text + &curve(points, BLUE)
    }

    fn latency(&self) -> String {
        let mut text = label(
            LEFT,
            LATENCY.0 - 8.0,
            "start",
            BLUE,
            12,
            "latency in ms: median",
        );
        text += &label(
            LEFT + 148.0,
            LATENCY.0 - 8.0,
            "start",
            ORANGE,
            12,
            "99th percentile",
        );
        for decade in self.decades.0..=self.decades.1 {
            let value = 10_f64.powi(decade);
            text += &grid(self.y_latency(value), &short(value));
        }
        for (colour, of) in [
            (ORANGE, (|point| point.p99) as fn(&Point) -> Option<f64>),
            (BLUE, |point| point.median),
        ] {
            let points = self
                .points
                .iter()
                .map(|point| of(point).map(|value| (self.x(point.at), self.y_latency(value))));
            text += &curve(points, colour);
        }
        text
    }

    fn kills(&self, report: &Report) -> String {
        let mut text = String::new();
        for kill in report.actions.iter().filter(|action| action.kind == "kill") {
            let (x, _) = self.extent(kill);
            for (top, bottom) in [THROUGHPUT, LATENCY] {
                writeln!(text, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"{RED}\" \
                     stroke-dasharray=\"3 3\"/>"
                ).unwrap_or_default();
            }
            writeln!(
                text,
                "<path d=\"M{:.1} {} h8 l-4 7 z\" fill=\"{RED}\"><title>kill {}</title></path>",
                x - 4.0,
                THROUGHPUT.0 - 8.0,
                kill.number
            )
            .unwrap_or_default();
        }
        text
    }

    /// A mark for each loss, with its story where the viewer shows such.
    fn losses(&self, report: &Report) -> String {
        let mut text = format!(
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{LOSSES}\" y2=\"{LOSSES}\" stroke=\"#d1d5db\"/>\n"
        );
        text += &label(LEFT - 8.0, LOSSES + 4.0, "end", GREY, 11, "lost");
        let unexcused = report
            .incidents
            .iter()
            .filter(|loss| loss.killed_by.is_none());
        for loss in unexcused {
            let colour = if loss.fate == "lost" { RED } else { ORANGE };
            writeln!(text, "<circle cx=\"{:.1}\" cy=\"{LOSSES}\" r=\"4\" fill=\"{colour}\" fill-opacity=\"0.75\">\
                 <title>{}</title></circle>",
                self.x(loss.at_ms / 1e3),
                escaped(&words::told(loss))
            ).unwrap_or_default();
        }
        text
    }

    fn time_axis(&self) -> String {
        let step = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0,
            3600.0,
        ]
        .into_iter()
        .find(|step| self.length / step <= 12.0)
        .unwrap_or(7200.0);
        // A drill of an hour has ticks of minutes, all of them whole.
        let name = |seconds: f64| {
            if step >= 60.0 {
                format!("{} min", short(seconds / 60.0))
            } else {
                format!("{} s", short(seconds))
            }
        };
        let mut text = String::new();
        for tick in (0_u32..)
            .map(f64::from)
            .take_while(|tick| tick * step <= self.length)
        {
            let x = self.x(tick * step);
            writeln!(
                text,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{0}\" y2=\"{1}\" stroke=\"{GREY}\"/>",
                LATENCY.1,
                LATENCY.1 + 5.0
            )
            .unwrap_or_default();
            text += &label(x, LATENCY.1 + 19.0, "middle", GREY, 11, &name(tick * step));
        }
        text
    }
}

fn legend() -> String {
    let mut text =
        rect(560.0, 66.0, 14.0, 10.0, RELOAD) + &label(579.0, 75.0, "start", GREY, 11, "reload");
    text +=
        &(rect(630.0, 66.0, 14.0, 10.0, SCALE) + &label(649.0, 75.0, "start", GREY, 11, "scale"));
    writeln!(text, "<path d=\"M694 67 h8 l-4 7 z\" fill=\"{RED}\"/>").unwrap_or_default();
    text += &label(707.0, 75.0, "start", GREY, 11, "kill -9");
    for (x, colour, name) in [
        (764.0, RED, "lost"),
        (814.0, ORANGE, "cut off, can be retried"),
    ] {
        writeln!(
            text,
            "<circle cx=\"{x}\" cy=\"71\" r=\"4\" fill=\"{colour}\" fill-opacity=\"0.75\"/>"
        )
        .unwrap_or_default();
        text += &label(x + 8.0, 75.0, "start", GREY, 11, name);
    }
    text
}

#[cfg(test)]
mod tests;
