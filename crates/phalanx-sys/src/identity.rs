//! Whose rights this process has.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_user_zero() {
        assert_eq!(is_root(), effective_uid() == 0);
    }
}
