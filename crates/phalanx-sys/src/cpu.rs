//! How many processor cores this process may really use.
//!
//! Not the machine's: an affinity mask (`sched_setaffinity(2)`) and the CPU quota of a control
//! group (cgroups(7)) both take away, and a container usually has the latter.

use std::fs;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};

use rustix::thread::sched_getaffinity;

/// The smaller of the number of cores that the calling thread may run on and the CPU quota of
/// its control groups, rounded up. A quota of 1.5 cores makes 2: half a core is still more than
/// nothing.
#[must_use]
pub fn usable_cores() -> NonZero<usize> {
    let allowed = allowed_cores();
    match quota_of_this_process() {
        Some(quota) => allowed.min(quota),
        None => allowed,
    }
}

/// How many cores the CPU quota of this process's control groups comes to, rounded up; none where there is no quota.
#[must_use]
pub fn quota_of_this_process() -> Option<NonZero<usize>> {
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    quota_cores(&memberships, Path::new("/sys/fs/cgroup"))
}

fn allowed_cores() -> NonZero<usize> {
    // More than 1024 cores do not fit the set; the standard library can count those.
    sched_getaffinity(None)
        .ok()
        .and_then(|set| usize::try_from(set.count()).ok())
        .and_then(NonZero::new)
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZero::<usize>::MIN)
}

/// The smallest quota of the control groups in `memberships` (the text of `/proc/self/cgroup`)
/// and of all groups above them; they are mounted below `mount`.
fn quota_cores(memberships: &str, mount: &Path) -> Option<NonZero<usize>> {
    least(memberships, mount, "cpu", (&read_v2, &read_v1))
}

/// What is read from the directory of a control group.
type Read<'a, T> = &'a dyn Fn(&Path) -> Option<T>;

/// The least of what is read from the control groups in `memberships` (the text of `/proc/self/cgroup`) and from all
/// groups above them, mounted below `mount`: by the second reader where the controller is of the first version.
pub(crate) fn least<T: Ord>(
    memberships: &str,
    mount: &Path,
    controller: &str,
    (read_v2, read_v1): (Read<'_, T>, Read<'_, T>),
) -> Option<T> {
    let values = memberships.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_hierarchy, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.is_empty() {
            smallest(mount, group, read_v2)
        } else if controllers.split(',').any(|name| name == controller) {
            let together = smallest(&mount.join(controllers), group, read_v1);
            together.or_else(|| smallest(&mount.join(controller), group, read_v1))
        } else {
            None
        }
    });
    values.min()
}

/// The smallest value on the way from `group` up to the root of its hierarchy. In a container,
/// the group may be named as the host sees it and be missing here; what is visible counts.
fn smallest<T: Ord>(root: &Path, group: &str, read: Read<'_, T>) -> Option<T> {
    let group: PathBuf = Path::new(group)
        .components()
        .filter(|part| !matches!(part, Component::RootDir))
        .collect();
    // A group outside of the namespace begins with `..`: its root is all there is to see.
    let is_visible = group
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let group = if is_visible { group } else { PathBuf::new() };
    group
        .ancestors()
        .filter_map(|group| read(&root.join(group)))
        .min()
}

/// Control groups, version 2: one file with quota and period in microseconds.
fn read_v2(group: &Path) -> Option<NonZero<usize>> {
    parse_cpu_max(&fs::read_to_string(group.join("cpu.max")).ok()?)
}

/// Control groups, version 1: a file each.
fn read_v1(group: &Path) -> Option<NonZero<usize>> {
    let quota = fs::read_to_string(group.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?;
    cores(quota.trim(), period.trim())
}

fn parse_cpu_max(text: &str) -> Option<NonZero<usize>> {
    let mut fields = text.split_ascii_whitespace();
    cores(fields.next()?, fields.next()?)
}

/// Quota divided by period, rounded up; `None` when there is no limit (`max`, -1).
fn cores(quota: &str, period: &str) -> Option<NonZero<usize>> {
    let quota: u64 = quota.parse().ok()?;
    let period: NonZero<u64> = period.parse().ok()?;
    NonZero::new(usize::try_from(quota.div_ceil(period.get())).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: usize) -> Option<NonZero<usize>> {
        NonZero::new(count)
    }

    /// A directory with the given files, as (path, text).
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_quota_is_rounded_up() {
        assert_eq!(parse_cpu_max("200000 100000\n"), some(2));
        assert_eq!(parse_cpu_max("150000 100000\n"), some(2));
        assert_eq!(parse_cpu_max("10000 100000\n"), some(1));
    }

    #[test]
    fn no_quota_and_nonsense_are_no_limit() {
        for text in ["max 100000", "", "100000", "-1 100000", "1 0", "0 1", "a b"] {
            assert_eq!(parse_cpu_max(text), None, "{text}");
        }
    }

    #[test]
    fn the_smallest_quota_above_a_group_counts() {
        let dir = tree(&[
            ("a/cpu.max", "200000 100000"),
            ("a/b/cpu.max", "max 100000"),
            ("a/b/c/cpu.max", "400000 100000"),
        ]);
        assert_eq!(quota_cores("0::/a/b/c\n", dir.path()), some(2));
        assert_eq!(quota_cores("0::/elsewhere\n", dir.path()), None);
    }

    #[test]
    fn a_container_sees_the_root_of_its_hierarchy() {
        let dir = tree(&[("cpu.max", "300000 100000")]);
        for group in ["/", "/docker/0123", "/../../docker/0123"] {
            let memberships = format!("0::{group}\n");
            assert_eq!(quota_cores(&memberships, dir.path()), some(3), "{group}");
        }
    }

    #[test]
    fn the_first_version_is_understood() {
        let dir = tree(&[
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n"),
            ("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        let memberships = "9:cpuset:/a\n4:cpu,cpuacct:/a\n0::/\n";
        assert_eq!(quota_cores(memberships, dir.path()), some(3));
        fs::rename(dir.path().join("cpu,cpuacct"), dir.path().join("cpu")).unwrap();
        assert_eq!(quota_cores(memberships, dir.path()), some(3));
    }

    #[test]
    fn this_process_has_at_least_one_core() {
        assert!(usable_cores().get() >= 1);
    }
}
