//! Values that options and requests to the control socket have in common, from text to what they mean.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use phalanx_core::fleet::{MAX_WORKERS, ScaleTo};

/// How many workers to start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between these")]
pub enum WorkerCount {
    /// One for each processor that this process may use.
    Auto,
    /// So many.
    Exactly(u32),
    /// As many as the load asks for, from the first to the second, which is not less.
    Between(NonZeroU32, NonZeroU32),
}

impl FromStr for WorkerCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(count @ 1..=MAX_WORKERS) => Ok(Self::Exactly(count)),
            Err(_) if text.contains("..") => between(text).ok_or_else(|| {
                format!("use two numbers from 1 to {MAX_WORKERS}, the greater one last: 2..8")
            }),
            Ok(_) | Err(_) => Err(format!(
                "use a number from 1 to {MAX_WORKERS}, a range such as 2..8, or auto"
            )),
        }
    }
}

/// Reads `2..8`.
fn between(text: &str) -> Option<WorkerCount> {
    let (min, max) = text.split_once("..")?;
    let (min, max): (NonZeroU32, NonZeroU32) = (min.parse().ok()?, max.parse().ok()?);
    let is_range = min <= max && max.get() <= MAX_WORKERS;
    is_range.then_some(WorkerCount::Between(min, max))
}

/// Reads `500ms`, `30s`, `2m` or `1h`.
///
/// # Errors
///
/// Fails with what is wrong, in words.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unknown = || "use a number and a unit: 500ms, 30s, 2m, 1h".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| unknown())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(unknown()),
    };
    let year = 366 * 24 * 3_600_000;
    let millis = millis.filter(|millis| *millis <= year);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "that is longer than a year".to_owned())
}

/// As [`duration`], but not zero.
///
/// # Errors
///
/// Fails with what is wrong, in words.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err("it must be more than zero".to_owned());
    }
    Ok(duration)
}

/// Reads `N`, `+N` or `-N`.
///
/// # Errors
///
/// Fails with what is wrong, in words.
pub fn scale_to(text: &str) -> Result<ScaleTo, String> {
    let (wanted, digits): (fn(u32) -> ScaleTo, &str) = match text.as_bytes().first() {
        Some(b'+') => (ScaleTo::Up, &text[1..]),
        Some(b'-') => (ScaleTo::Down, &text[1..]),
        Some(_) | None => (ScaleTo::Exactly, text),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(count @ 0..=MAX_WORKERS) if is_number => Ok(wanted(count)),
        Ok(_) | Err(_) => Err(format!(
            "use the number of workers, from 0 to {MAX_WORKERS}, or how many more or fewer: 4, +1, -1"
        )),
    }
}

/// Writes what [`scale_to`] reads.
#[must_use]
pub fn scale_text(to: ScaleTo) -> String {
    match to {
        ScaleTo::Exactly(count) => count.to_string(),
        ScaleTo::Up(count) => format!("+{count}"),
        ScaleTo::Down(count) => format!("-{count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "3d",
            "99999999999999999999s",
            "9999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0ms").is_err());
    }

    #[test]
    fn scales_are_absolute_or_relative() {
        assert_eq!(scale_to("4"), Ok(ScaleTo::Exactly(4)));
        assert_eq!(scale_to("+2"), Ok(ScaleTo::Up(2)));
        assert_eq!(scale_to("-1"), Ok(ScaleTo::Down(1)));
        for text in ["", "+", "-", "++1", "1.5", "4097", "many", "+-1"] {
            assert!(scale_to(text).is_err(), "{text}");
        }
        for text in ["4", "+2", "-1"] {
            assert_eq!(scale_text(scale_to(text).unwrap()), text);
        }
    }

    #[test]
    fn worker_counts_are_positive_or_auto() {
        assert_eq!("auto".parse(), Ok(WorkerCount::Auto));
        assert_eq!("12".parse(), Ok(WorkerCount::Exactly(12)));
        let number = |number| NonZeroU32::new(number).unwrap();
        assert_eq!(
            "2..8".parse(),
            Ok(WorkerCount::Between(number(2), number(8)))
        );
        for text in [
            "0", "-1", "4097", "max", "", "..", "2..", "0..2", "8..2", "2..4097", "2...8",
        ] {
            assert!(text.parse::<WorkerCount>().is_err(), "{text}");
        }
    }
}
