//! Figures in few letters.

use super::look::Look;
use crate::model::History;

/// A span of time in its two greatest units.
pub(super) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A short time: `812µs`, `2.3ms`, `1.2s`.
pub(super) fn micros(micros: u64, look: Look) -> String {
    match micros {
        0..1_000 => format!("{micros}{}", look.micro()),
        1_000..100_000 => format!("{}.{}ms", micros / 1_000, micros / 100 % 10),
        100_000..1_000_000 => format!("{}ms", micros / 1_000),
        _ => format!("{}.{}s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// Something a second: `0.4`, `12`, `1204`, `15.2k`.
pub(super) fn rate(rate: f64) -> String {
    if rate >= 1e6 {
        format!("{:.1}M", rate / 1e6)
    } else if rate >= 1e4 {
        format!("{:.1}k", rate / 1e3)
    } else if rate >= 10.0 || rate == 0.0 {
        format!("{rate:.0}")
    } else {
        format!("{rate:.1}")
    }
}

/// A size: `70M`, `1.2G`.
pub(super) fn bytes(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    if mebibytes < 1024 {
        format!("{mebibytes}M")
    } else {
        format!("{}.{}G", mebibytes / 1024, mebibytes % 1024 * 10 / 1024)
    }
}

/// A trend as wide as that, the newest sample last.
pub(super) fn trend(history: &History, width: usize, look: Look) -> String {
    let steps = look.steps();
    let highest = u8::try_from(steps.len() - 1).unwrap_or(u8::MAX);
    let heights = history.heights(width, highest);
    let signs = heights.iter().map(|height| steps[usize::from(*height)]);
    let text: String = signs.collect();
    format!("{text:>width$}")
}

/// A bar as wide as that, of which a part is done.
pub(super) fn bar(done: u64, of: u64, width: u64, look: Look) -> String {
    let (full, empty) = look.bar();
    let filled = (width * done.min(of)).checked_div(of).unwrap_or(0);
    let times = |sign: char, count: u64| (0..count).map(move |_| sign);
    times(full, filled)
        .chain(times(empty, width - filled))
        .collect()
}

/// The time of day in UTC, of milliseconds since the Unix epoch.
pub(super) fn clock(millis: u64) -> String {
    let seconds = millis / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RICH: Look = Look {
        has_colours: true,
        is_rich: true,
    };

    #[test]
    fn figures_take_few_letters() {
        let times = [812, 2_345, 99_999, 250_000, 1_250_000].map(|time| micros(time, RICH));
        assert_eq!(times, ["812µs", "2.3ms", "99.9ms", "250ms", "1.2s"]);
        let rates = [0.0, 0.44, 12.3, 1204.0, 15_210.0, 2.5e6].map(rate);
        assert_eq!(rates, ["0", "0.4", "12", "1204", "15.2k", "2.5M"]);
        assert_eq!([70 << 20, 1229 << 20].map(bytes), ["70M", "1.2G"]);
        assert_eq!(clock(1_795_378_212_084), "20:10:12");
    }

    #[test]
    fn bars_are_full_when_all_is_done() {
        assert_eq!(bar(1, 2, 4, RICH), "██░░");
        assert_eq!(bar(9, 2, 4, RICH), "████");
        assert_eq!(bar(0, 0, 4, RICH), "░░░░");
    }
}
