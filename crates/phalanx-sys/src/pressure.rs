//! How hard processors are to get, on this machine and in this process's control group (pressure stall information).

use std::fs;
use std::path::Path;
use std::time::Duration;

/// For how long, so far, something on the machine waited for a processor that it did not get, or something in this process's
/// control group, whichever is longer (`some` of `/proc/pressure/cpu` and `cpu.pressure`). Two readings and the time between them
/// give a share. None where the kernel does not tell.
#[must_use]
pub fn cpu_stalled() -> Option<Duration> {
    let machine = fs::read_to_string("/proc/pressure/cpu").ok();
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::/"));
    let path = group.map(|group| Path::new("/sys/fs/cgroup").join(group).join("cpu.pressure"));
    let own = path.and_then(|path| fs::read_to_string(path).ok());
    [machine, own]
        .iter()
        .flatten()
        .filter_map(|text| total(text))
        .max()
}

fn total(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let micros = line
        .split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("total="))?;
    Some(Duration::from_micros(micros.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.73 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total(text), Some(Duration::from_millis(1500)));
        assert_eq!(total("garbage"), None);
        assert!(cpu_stalled() <= cpu_stalled());
    }
}
