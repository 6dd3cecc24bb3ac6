//! The options that recycle workers, and the command that does it by hand.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use phalanx::fleet::RecycleTarget;
use phalanx::{Position, WorkerId};

use super::AppArgs;
use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Recycling")]
pub(crate) struct RecyclingArgs {
    /// Replace a worker that uses more memory than this: 200M, 1.5G, or a share of the container's limit: 25%
    ///
    /// phalanx reads the resident memory once a second, that of its child processes included; two of three readings must exceed the limit. Workers are
    /// replaced one after the other. Each successor serves before the worker leaves. None is replaced during a reload. The limit of the
    /// last position is an eighth lower, so that workers do not reach their limits together.
    #[arg(long, value_name = "SIZE|N%")]
    pub(crate) max_memory: Option<MemoryLimit>,

    /// Replace a worker that has been ready for this long (at the last position: three quarters of it)
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub(crate) max_age: Option<Duration>,

    /// Replace a worker that has answered this many requests (at the last position: three quarters of it)
    ///
    /// Works for Node workers with the preloaded script, and for Rust workers with the library's meter.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_requests: Option<u64>,

    /// How many workers may be replaced at the same time because they hang or are worn out; `--max-surge` holds for them, too
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) max_recycling: NonZeroU32,

    /// When connections that clients keep are spread evenly over the workers
    ///
    /// With `auto`, some seconds after workers have come (a larger size, a replacement for one that crashed, a reload) and where more than a
    /// tenth of the connections are above their workers' shares, as by the command `rebalance`. `WebSocket`s and the like stay.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "manual")]
    pub(crate) rebalance: RebalanceWhen,
}

/// When connections are rebalanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RebalanceWhen {
    /// By the command `rebalance` alone
    Manual,
    /// When workers have come and it is uneven, too
    Auto,
}

/// Replace workers by new ones of the same release
///
/// Replaces them one after the other. Each successor serves before the old worker finishes its requests and exits. Waits until
/// that is done. Unlike a reload, it starts the running release again, not the one on the disk.
#[derive(Args, Debug)]
pub(crate) struct RecycleArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// Positions, or ids such as `id:12`, as `status` shows them [default: all]
    #[arg(value_name = "POSITION|id:ID")]
    pub(crate) workers: Vec<Target>,
}

/// Spread the connections that are kept open evenly over the workers
///
/// New connections are spread evenly; clients that keep theirs stay where they are: after scaling up, a crash or a reload, for hours. Workers that
/// hold more than their share end some connections politely: `Connection: close` with the next answer, GOAWAY over HTTP/2, no request
/// is cut off. Clients that come back land on the others. Waits until that is even, 10 s at most. `WebSocket`s and the like stay.
#[derive(Args, Debug)]
pub(crate) struct RebalanceArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// End streams above the share, too: `WebSocket`s and server-sent events, whose clients have to connect again
    #[arg(long)]
    pub(crate) streams: bool,
}

/// A limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    Bytes(u64),
    /// So many hundredths of what the container, or the machine, has.
    Percent(u64),
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown =
            || "use a size with its unit, such as 200M or 1.5G, or a share: 25%".to_owned();
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                Ok(_) | Err(_) => Err("a share is from 1% to 100%".to_owned()),
            };
        }
        let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = text.split_at(at.ok_or_else(unknown)?);
        let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(unknown()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| unknown())?;
        let thousandths = match part.len() {
            0 => 0,
            digits @ 1..=3 => {
                let scale = [100, 10, 1][digits - 1];
                part.parse::<u64>().map_err(|_| unknown())? * scale
            }
            _ => return Err(unknown()),
        };
        let unit = 1_u64 << shift;
        let bytes = whole
            .checked_mul(unit)
            .and_then(|bytes| bytes.checked_add(unit / 1000 * thousandths));
        match bytes {
            Some(bytes) if bytes >= 1 << 20 => Ok(Self::Bytes(bytes)),
            Some(_) => Err("a worker needs more than that: 1M at least".to_owned()),
            None => Err("that is more than there can be".to_owned()),
        }
    }
}

/// Which worker is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(crate) RecycleTarget);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.strip_prefix("id:");
        let number = id.unwrap_or(text).parse::<u32>();
        match (id, number) {
            (_, Err(_)) => Err("use a position such as 0, or an id such as id:12".to_owned()),
            (Some(_), Ok(id)) => Ok(Self(RecycleTarget::Worker(WorkerId(id)))),
            (None, Ok(position)) => Ok(Self(RecycleTarget::Position(Position(position)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit_or_is_a_share() {
        for (text, limit) in [
            ("200M", MemoryLimit::Bytes(200 << 20)),
            ("200MiB", MemoryLimit::Bytes(200 << 20)),
            ("1.5G", MemoryLimit::Bytes((3 << 29) - 256)),
            ("2048KB", MemoryLimit::Bytes(2 << 20)),
            ("25%", MemoryLimit::Percent(25)),
        ] {
            match (text.parse::<MemoryLimit>().unwrap(), limit) {
                (MemoryLimit::Bytes(read), MemoryLimit::Bytes(meant)) => {
                    assert!(read.abs_diff(meant) < 1024, "{text}: {read}");
                }
                (read, meant) => assert_eq!(read, meant, "{text}"),
            }
        }
        for text in [
            "",
            "200",
            "M",
            "0M",
            "1K",
            "1.2.3M",
            "-1M",
            "0%",
            "101%",
            "99999999999T",
        ] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_target_is_a_position_or_an_id() {
        let read = |text: &str| text.parse::<Target>().map(|target| target.0);
        assert_eq!(read("3"), Ok(RecycleTarget::Position(Position(3))));
        assert_eq!(read("id:12"), Ok(RecycleTarget::Worker(WorkerId(12))));
        for text in ["", "id:", "-1", "#3", "all"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
