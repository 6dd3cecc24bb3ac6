//! What can go wrong with steering, and why it may not be had at all.

use std::io;

/// A step of steering failed. It concerns one listener, which can be served by handoff instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteeringError {
    /// This program was built without the `kernel` feature.
    #[error("built without dispatch in the kernel")]
    LeftOut,
    /// The compiled program cannot be read: a defect of the build.
    #[error("the eBPF object is damaged")]
    Object(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel did not make a map.
    #[error("cannot make the eBPF map {name}")]
    CreateMap {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The memory of a map could not be mapped.
    #[error("cannot map the memory of the eBPF map {name}")]
    MapMemory {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not take the program.
    #[error("cannot load the eBPF program{}", .verdict.as_ref().map(|verdict| format!(" ({verdict})")).unwrap_or_default())]
    LoadProgram {
        /// What the kernel said.
        source: io::Error,
        /// The last words of its verifier, if that refused.
        verdict: Option<String>,
    },
    /// The program could not be attached: the socket is in no `SO_REUSEPORT` group.
    #[error("cannot attach the eBPF program to the group of slots")]
    Attach(#[source] io::Error),
    /// The program could not be detached.
    #[error("cannot detach the eBPF program from the group of slots")]
    Detach(#[source] io::Error),
    /// A socket could not become a position's slot: it does not listen (`EINVAL`), or is the slot
    /// of another position (`EBUSY`).
    #[error("cannot make a socket the slot of position {position}")]
    StoreSlot {
        /// The position.
        position: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A position's slot could not be taken out.
    #[error("cannot take out the slot of position {position}")]
    ClearSlot {
        /// The position.
        position: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// More turns than the program has room for, or a position out of bounds.
    #[error("the plan does not fit the eBPF program")]
    Plan,
}

impl SteeringError {
    #[cfg(feature = "kernel")]
    pub(super) fn object(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Object(error.into())
    }
}

/// Why connections cannot be dispatched in the kernel here, and what it would take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// This program was built without it.
    #[error("this phalanx was built without it (cargo feature `kernel`)")]
    LeftOut,
    /// The program is compiled for machines of the other byte order.
    #[error("it is not compiled for big-endian machines")]
    ByteOrder,
    /// The kernel cannot move waiting connections yet.
    #[error("it needs Linux 5.14, and this is {release}")]
    KernelTooOld {
        /// What runs here.
        release: String,
    },
    /// The kernel was built without bpf(2).
    #[error("this kernel was built without eBPF")]
    NoBpf,
    /// The process lacks capabilities.
    #[error("it needs {}: run as root or grant them: {}", .missing.join(" and "), chain(.source))]
    NoPrivilege {
        /// The names of those that are missing.
        missing: Vec<&'static str>,
        /// How the kernel put it.
        source: SteeringError,
    },
    /// The process has the capabilities, and yet something forbids it: a seccomp filter of the
    /// container, kernel lockdown, a security module.
    #[error(
        "bpf(2) is forbidden here in spite of the capabilities, by seccomp, lockdown or a security module: {}", chain(.0)
    )]
    Forbidden(#[source] SteeringError),
    /// Anything else.
    #[error("the kernel refuses the eBPF program: {}", chain(.0))]
    Refused(#[source] SteeringError),
}

/// An error and its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
