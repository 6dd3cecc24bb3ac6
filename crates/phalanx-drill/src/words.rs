//! The report for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cause::Cause;
use super::report::{Loss, Quantiles, Report};

/// Incidents that are told one by one.
const TOLD: usize = 20;

/// The report, which ends with a newline.
pub(super) fn of(report: &Report) -> String {
    let mut text = format!("{}\n\n", verdict(report));
    let seconds = report.took_ms / 1e3;
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            writeln!(text, "  {label:<12} {value}").unwrap_or_default();
        }
    };
    line("target", report.target.clone());
    line(
        "requests",
        format!(
            "{} in {seconds:.1} s by {} clients, over {} connections",
            grouped(report.requests),
            report.clients,
            grouped(report.all.connections)
        ),
    );
    line("lost", with_causes(report.all.lost, &report.causes));
    line(
        "retried",
        with_causes(report.all.retried, &report.retry_causes),
    );
    line("by kills", by_kills(report));
    for (label, kind, done, failed) in [
        ("reloads", "reload", report.reloads, report.reloads_failed),
        ("kills", "kill", report.kills, report.kills_failed),
        ("scales", "scale", report.scales, report.scales_failed),
    ] {
        if done + failed > 0 {
            line(label, actions(report, kind, done, failed));
        }
    }
    line("statuses", statuses(report));
    line("shares", shares(report));
    text + &latencies(report) + &ways(report) + &failures(report) + &incidents(report)
}

/// What kills excuse; empty without kills.
fn by_kills(report: &Report) -> String {
    if report.kills == 0 {
        return String::new();
    }
    let excused = report.all.lost_to_kills + report.all.retried_to_kills;
    format!(
        "{} in service on a killed worker ({} lost, {} retried)",
        grouped(excused),
        report.all.lost_to_kills,
        report.all.retried_to_kills
    )
}

/// Answers other than 2xx; empty if there are none.
fn statuses(report: &Report) -> String {
    let is_other = |(status, _): &(&u16, &u64)| !(200..300).contains(*status);
    let others = report.statuses.iter().filter(is_other);
    let others: Vec<String> = others
        .map(|(status, count)| format!("{status}: {}", grouped(*count)))
        .collect();
    if others.is_empty() {
        return String::new();
    }
    format!("besides 2xx {}", others.join(", "))
}

/// Connections by position; empty where that is not known.
fn shares(report: &Report) -> String {
    let shares: Vec<String> = report
        .shares
        .iter()
        .map(|share| format!("{}: {}", share.position, grouped(share.connections)))
        .collect();
    if shares.is_empty() {
        return String::new();
    }
    format!("connections by position {}", shares.join(", "))
}

fn verdict(report: &Report) -> String {
    let verdict = match (report.passed, report.all.lost, report.all.retried) {
        (true, ..) => "passed: nothing lost".to_owned(),
        (false, 0, 0) if report.all.answered == 0 => "failed: nothing was answered".to_owned(),
        (false, 0, 0) if report.interrupted => "interrupted: nothing lost so far".to_owned(),
        (false, 0, 0) => "failed: an action had no effect".to_owned(),
        (false, lost, 0) => format!("failed: {} lost", grouped(lost)),
        (false, 0, retried) => {
            format!(
                "failed: {} cut off on the wire, which a client could send again",
                grouped(retried)
            )
        }
        (false, lost, retried) => format!(
            "failed: {} lost, {} cut off on the wire",
            grouped(lost),
            grouped(retried)
        ),
    };
    format!("drill {verdict}")
}

/// The verdict as the reason of a failure.
pub(super) fn reason(report: &Report) -> String {
    verdict(report)
}

fn with_causes(count: u64, causes: &BTreeMap<Cause, u64>) -> String {
    let causes: Vec<String> = causes
        .iter()
        .map(|(cause, count)| format!("{count} {}", cause.text()))
        .collect();
    if causes.is_empty() {
        grouped(count)
    } else {
        format!("{}: {}", grouped(count), causes.join(", "))
    }
}

fn actions(report: &Report, kind: &str, done: u64, failed: u64) -> String {
    let mut text = format!("{done} done");
    if failed > 0 {
        write!(text, ", {failed} failed").unwrap_or_default();
    }
    if let Some(times) = report.replace_ms.get(kind) {
        let replaced = if kind == "kill" {
            "replaced in"
        } else {
            "each in"
        };
        write!(
            text,
            ", {replaced} {:.0} ms (median; longest {:.0} ms)",
            times.p50, times.max
        )
        .unwrap_or_default();
    }
    text
}

fn latencies(report: &Report) -> String {
    let mut text = format!(
        "\n  {:<14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}\n",
        "latency in ms", "median", "p90", "p99", "p99.9", "longest", "requests"
    );
    let all = &report.latency_ms;
    for (label, quantiles) in [
        ("calm", all.calm),
        ("in reload", all.reload),
        ("after a kill", all.kill),
        ("in scale", all.scale),
    ] {
        if let Some(Quantiles {
            count,
            p50,
            p90,
            p99,
            p999,
            max,
        }) = quantiles
        {
            let count = grouped(count);
            writeln!(
                text,
                "  {label:<14}{p50:>10.2}{p90:>10.2}{p99:>10.2}{p999:>10.2}{max:>10.2}{count:>12}"
            )
            .unwrap_or_default();
        }
    }
    text
}

fn ways(report: &Report) -> String {
    let mut text = format!(
        "\n  {:<14}{:>12}{:>8}{:>10}{:>10}\n",
        "way of asking", "requests", "lost", "retried", "by kills"
    );
    for (way, of_way) in &report.ways {
        writeln!(
            text,
            "  {:<14}{:>12}{:>8}{:>10}{:>10}",
            way.as_str(),
            grouped(of_way.requests),
            of_way.lost,
            of_way.retried,
            of_way.lost_to_kills + of_way.retried_to_kills
        )
        .unwrap_or_default();
    }
    text
}

fn failures(report: &Report) -> String {
    let mut text = String::new();
    for action in &report.actions {
        if let Some(failure) = &action.failure {
            writeln!(
                text,
                "\n  {} {} failed: {failure}",
                action.kind, action.number
            )
            .unwrap_or_default();
        }
    }
    text
}

fn incidents(report: &Report) -> String {
    let unexcused: Vec<&Loss> = report
        .incidents
        .iter()
        .filter(|loss| loss.killed_by.is_none())
        .collect();
    if unexcused.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n  what was lost or retried, and when\n");
    for loss in unexcused.iter().take(TOLD) {
        writeln!(text, "  {}", told(loss)).unwrap_or_default();
    }
    if unexcused.len() > TOLD {
        writeln!(
            text,
            "  … and {} more: --json lists them",
            unexcused.len() - TOLD
        )
        .unwrap_or_default();
    }
    text
}

/// One incident in a line.
pub(super) fn told(loss: &Loss) -> String {
    let when = match &loss.moment {
        None => "before the first action".to_owned(),
        Some(moment) if moment.during => {
            format!(
                "in {} {}, {:.0} ms after its begin",
                moment.kind, moment.number, moment.since_ms
            )
        }
        Some(moment) => format!(
            "after {} {}, {:.0} ms after its begin",
            moment.kind, moment.number, moment.since_ms
        ),
    };
    format!(
        "{:>8.3} s  {:<8} {:<13} {}, {:.0} ms after it was sent; {when}",
        loss.at_ms / 1e3,
        loss.fate,
        loss.way.as_str(),
        loss.cause.text(),
        loss.waited_ms
    )
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
