//! How much memory this process and its children may take together, and how much of that is left.
//!
//! The control groups (cgroups(7)) of a container limit it, and the machine has only so much.

use std::fs;
use std::path::Path;

use crate::cpu;

/// The least limit of memory of this process's control groups, in bytes, or the machine's memory if that is less.
/// None when neither can be read.
#[must_use]
pub fn limit_bytes() -> Option<u64> {
    let machine = machine("MemTotal:");
    let group = group(|group| {
        group
            .get("memory.max")
            .or_else(|| group.get("memory.limit_in_bytes"))
    });
    machine.into_iter().chain(group).min()
}

/// How many bytes may still be taken: what is left to the control groups, or to the machine if that is less. Files
/// that are cached count as left.
#[must_use]
pub fn left_bytes() -> Option<u64> {
    let machine = machine("MemAvailable:");
    let group = group(|group| {
        let first = group.get("memory.max").zip(group.get("memory.current"));
        let limited = first.or_else(|| {
            let limit = group.get("memory.limit_in_bytes");
            limit.zip(group.get("memory.usage_in_bytes"))
        });
        let cached = group.inactive_files();
        limited.map(|(limit, used)| limit.saturating_sub(used.saturating_sub(cached)))
    });
    machine.into_iter().chain(group).min()
}

/// The directory of a control group.
struct Group<'a>(&'a Path);

impl Group<'_> {
    /// The number in that file; none where there is no limit.
    fn get(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.0.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn inactive_files(&self) -> u64 {
        let stat = fs::read_to_string(self.0.join("memory.stat")).unwrap_or_default();
        ["total_inactive_file", "inactive_file"]
            .iter()
            .find_map(|name| field(&stat, name))
            .unwrap_or(0)
    }
}

fn group(read: impl Fn(&Group<'_>) -> Option<u64>) -> Option<u64> {
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |path: &Path| read(&Group(path));
    cpu::least(
        &memberships,
        Path::new("/sys/fs/cgroup"),
        "memory",
        (&read, &read),
    )
}

/// A field of `/proc/meminfo`, in bytes.
fn machine(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    field(&text, name).map(|kib| kib.saturating_mul(1024))
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory_left() {
        let (limit, left) = (limit_bytes().unwrap(), left_bytes().unwrap());
        assert!(left > 0 && left <= limit, "{left} of {limit}");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:  16 kB\nMemAvailable:   8 kB\ninactive_file 5\n";
        assert_eq!(field(text, "MemAvailable:"), Some(8));
        assert_eq!(field(text, "inactive_file"), Some(5));
        assert_eq!(field(text, "Mem"), None);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(dir.path().join("a/b/memory.max"), "max\n").unwrap();
        let read = |path: &Path| Group(path).get("memory.max");
        let least = |memberships| cpu::least(memberships, dir.path(), "memory", (&read, &read));
        assert_eq!(least("0::/a/b\n"), Some(1000));
        assert_eq!(least("0::/elsewhere\n"), None);
    }
}
