//! Whose rights this process has, and whose word counts.

use std::sync::OnceLock;

/// The effective user id (geteuid(2)).
#[must_use]
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether the effective user is root. Says nothing about capabilities, which a container may
/// have taken away.
#[must_use]
pub fn is_root() -> bool {
    effective_uid() == 0
}

/// Whether this user may do as he likes here anyway: root, or the user of this process. In a
/// namespace that does not know every user, also root outside of it (`user_namespaces(7)`).
#[must_use]
pub fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == effective_uid() || Some(uid) == outsider()
}

/// How users appear that have no number in this namespace: root of the machine among them. `None` where
/// everybody has one.
fn outsider() -> Option<u32> {
    static OUTSIDER: OnceLock<Option<u32>> = OnceLock::new();
    *OUTSIDER.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
        if maps_everybody(&map) {
            return None;
        }
        let number = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
        number.trim().parse().ok()
    })
}

fn maps_everybody(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace();
        numbers.nth(2)?.parse::<u64>().ok()
    });
    counts.sum::<u64>() >= u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_user_zero() {
        assert_eq!(is_root(), effective_uid() == 0);
    }

    #[test]
    fn root_and_oneself_are_trusted_and_strangers_not() {
        assert!(is_trusted(0) && is_trusted(effective_uid()));
        assert!(!is_trusted(effective_uid() + 4711));
    }

    #[test]
    fn a_namespace_may_know_only_some_users() {
        assert!(maps_everybody("         0          0 4294967295\n"));
        assert!(!maps_everybody("0 1000 1\n"));
        assert!(!maps_everybody("0 1000 1\n1 100000 65536\n"));
    }
}
