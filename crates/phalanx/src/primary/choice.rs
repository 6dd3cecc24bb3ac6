//! Which dispatch a new listener gets, and why: decided when it is opened, told once, shown in the status.

use std::fmt;
use std::net::IpAddr;

use phalanx_core::policy::PolicyName;
use phalanx_core::wire::Target;
use phalanx_sys::steering::{Steering, Unavailable};

use super::hub::Hub;
use crate::settings::{Adoption, DispatchChoice};

/// How a listener's connections reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dispatch {
    /// The primary accepts.
    Handoff,
    /// The workers accept from the same socket.
    Shared,
    /// Each worker accepts from its slot, which a program in the kernel picks.
    Kernel,
}

impl Dispatch {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::Shared => "shared",
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By what a worker that asks for a listener can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Connections can be passed to it, over its channel.
    Channel,
    /// It accepts from a socket; nothing can be passed to it.
    Socket,
}

/// A dispatch, and why it was chosen.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) dispatch: Dispatch,
    pub(super) because: String,
}

impl Choice {
    fn new(dispatch: Dispatch, because: impl Into<String>) -> Self {
        Self {
            dispatch,
            because: because.into(),
        }
    }
}

impl Hub {
    /// Chooses the dispatch for a listener on this target. `is_moved`: it is not what the worker asked for.
    pub(super) fn choose_dispatch(&mut self, target: &Target, is_moved: bool) -> Choice {
        let reach = match self.settings.adoption {
            Adoption::Channel => Reach::Channel,
            Adoption::Activation | Adoption::Intercept | Adoption::None => Reach::Socket,
        };
        if is_moved && reach == Reach::Channel {
            // Node takes a socket with another port than it asked for as EADDRINUSE.
            return Choice::new(Dispatch::Handoff, "published on another port");
        }
        let wanted = self.dispatch;
        if matches!(target, Target::Udp { .. } | Target::DatagramDescriptor(_)) {
            return Choice::new(Dispatch::Shared, "datagrams have no connections");
        }
        if wanted == DispatchChoice::Shared {
            return Choice::new(Dispatch::Shared, "as asked for");
        }
        if wanted == DispatchChoice::Auto && self.policy == PolicyName::None {
            return Choice::new(Dispatch::Shared, "policy none leaves it to the kernel");
        }
        let is_tcp = matches!(target, Target::Tcp { .. });
        match (is_tcp, reach) {
            (false, Reach::Channel) => Choice::new(Dispatch::Handoff, "only TCP has slots"),
            (false, Reach::Socket) => Choice::new(Dispatch::Shared, "only TCP has slots"),
            (true, Reach::Channel) if wanted == DispatchChoice::Handoff => {
                Choice::new(Dispatch::Handoff, "as asked for")
            }
            (true, Reach::Channel) if self.own_policy.is_some() => {
                Choice::new(Dispatch::Handoff, "the policy is the program's own")
            }
            (true, reach) => self.in_kernel(reach),
        }
    }

    /// For TCP: in the kernel, where its program can be loaded; else the next best.
    fn in_kernel(&mut self, reach: Reach) -> Choice {
        let asked = self.dispatch == DispatchChoice::Kernel;
        let (dispatch, instead) = match (self.steering(), reach) {
            (Ok(_), _) => return Choice::new(Dispatch::Kernel, "eBPF program loaded"),
            (Err(error), Reach::Channel) => {
                (Dispatch::Handoff, format!("no eBPF program: {error}"))
            }
            (Err(error), Reach::Socket) => {
                let drawn = "drawn at random by a classic BPF program";
                (
                    Dispatch::Kernel,
                    format!("{drawn}; no eBPF program: {error}"),
                )
            }
        };
        if asked {
            tracing::warn!("dispatch in the kernel is not to be had, using {dispatch}: {instead}");
        }
        Choice::new(dispatch, instead)
    }

    /// The means to dispatch in the kernel; tried once.
    pub(super) fn steering(&mut self) -> Result<&Steering, &Unavailable> {
        self.steering
            .get_or_insert_with(|| {
                Steering::available().and_then(|()| Steering::load().map_err(Unavailable::Refused))
            })
            .as_ref()
    }
}

/// The addresses to try for a TCP listener: none named means any, in dual stack, or IPv4 where there
/// is no IPv6.
pub(super) fn on_address<T>(
    address: Option<IpAddr>,
    mut open: impl FnMut(IpAddr) -> std::io::Result<T>,
) -> std::io::Result<T> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    /// "No IPv6 here" (Linux, all architectures but MIPS and SPARC): `EAFNOSUPPORT`, `EADDRNOTAVAIL`.
    const NO_V6: [i32; 2] = [97, 99];
    match address {
        Some(address) => open(address),
        None => open(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| {
            if error
                .raw_os_error()
                .is_some_and(|code| NO_V6.contains(&code))
            {
                open(Ipv4Addr::UNSPECIFIED.into())
            } else {
                Err(error)
            }
        }),
    }
}
