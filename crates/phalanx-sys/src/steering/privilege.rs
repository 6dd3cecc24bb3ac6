//! What this process and this kernel would need for the program.

/// Names and bits of the capabilities that loading takes (capabilities(7)).
///
/// The second spares the program the verifier's defence against speculative execution (`bypass_spec_v1`): without it, the verifier
/// follows the untaken side of each branch too, and gives up at 8,192 waiting branches (`BPF_COMPLEXITY_LIMIT_JMP_SEQ`): the
/// loops over positions have more. Linux 6.18 answers `EFAULT` then.
/// `CAP_NET_ADMIN` is not asked for: to the kernel, a program that selects among the sockets of its own group is as a socket filter.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];
/// `CAP_SYS_ADMIN` includes both.
const CAP_SYS_ADMIN: u32 = 21;

pub(super) fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    let granted = |bit| has(bit) || has(CAP_SYS_ADMIN);
    CAPABILITIES
        .into_iter()
        .filter(|&(_, bit)| !granted(bit))
        .map(|(name, _)| name)
        .collect()
}

/// `CapEff` of `proc_pid_status(5)`; none if it cannot be read.
pub(super) fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0)
}

/// `6.1.0-18-amd64` (uname(2)).
pub(super) fn kernel_release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}
