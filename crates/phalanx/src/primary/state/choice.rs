//! Which dispatch a new listener gets, and why: decided when it is opened, told once, shown in the status.
//!
//! INVARIANT: no eBPF program is loaded under the lock for a worker that asks. It takes tens of milliseconds, so one is
//! kept ready; whoever finds none waits for it beside the lock, and asks again.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use phalanx_core::dispatch::listener::Dispatch;
use phalanx_core::policy::PolicyName;
use phalanx_core::wire::Target;
use phalanx_sys::steering::{Steering, Unavailable};

use crate::primary::state::Hub;
use crate::primary::{Cluster, Shared};
use crate::settings::{Adoption, DispatchChoice};

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
pub(in crate::primary) struct Choice {
    pub(in crate::primary) dispatch: Dispatch,
    pub(in crate::primary) because: String,
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
    pub(in crate::primary) fn choose_dispatch(
        &mut self,
        target: &Target,
        is_moved: bool,
    ) -> Choice {
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
            (true, Reach::Channel) if self.custom_policy.is_some() => {
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

    /// The means to dispatch in the kernel; tried once. Workers are started after [`Cluster::prepare_steering`], so
    /// nothing is loaded here unless the dispatch was changed since.
    pub(in crate::primary) fn steering(&mut self) -> Result<&Arc<Steering>, &Unavailable> {
        self.steering
            .get_or_insert_with(|| Steering::ready().map(Arc::new))
            .as_ref()
    }

    /// May a listener be asked for that is dispatched in the kernel?
    fn wants_steering(&self) -> bool {
        let is_wanted = match self.settings.adoption {
            Adoption::None => false,
            Adoption::Channel => {
                self.dispatch != DispatchChoice::Handoff && self.custom_policy.is_none()
            }
            Adoption::Activation | Adoption::Intercept => true,
        };
        let is_off = match self.dispatch {
            DispatchChoice::Shared => true,
            DispatchChoice::Auto => self.policy == PolicyName::None,
            DispatchChoice::Kernel | DispatchChoice::Handoff => false,
        };
        is_wanted && !is_off
    }

    /// The means to dispatch in the kernel, if a program has to be loaded before there can be another listener.
    fn lacking_program(&self) -> Option<Arc<Steering>> {
        let steering = self.steering.as_ref()?.as_ref().ok()?;
        (!steering.is_ready()).then(|| Arc::clone(steering))
    }

    /// Has the next listener's program loaded where blocking is allowed. That is done when a worker is ready and not when the
    /// last program was used, because the verifier would take the processors from the workers that start.
    pub(in crate::primary) fn prepare_next(&self) {
        if let (Some(steering), Ok(runtime)) = (
            self.lacking_program(),
            tokio::runtime::Handle::try_current(),
        ) {
            runtime.spawn_blocking(move || prepare(&steering));
        }
    }
}

impl Cluster {
    /// Loads the program that may be needed, beside the lock: the kernel takes its time to verify it. Where blocking
    /// is allowed.
    pub(in crate::primary) fn prepare_steering(&self) {
        self.load_steering();
        let lacking = self.shared.hub().lacking_program();
        if let Some(steering) = lacking {
            prepare(&steering);
        }
    }

    /// As [`Cluster::prepare_steering`], for the first listener alone.
    pub(in crate::primary) fn load_steering(&self) {
        // Workers are started side by side: one of them loads it, the others wait.
        static LOADING: Mutex<()> = Mutex::new(());
        let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = {
            let hub = self.shared.hub();
            hub.wants_steering() && hub.steering.is_none()
        };
        if is_first {
            let made = Steering::ready().map(Arc::new);
            self.shared.hub().steering.get_or_insert(made);
        }
    }
}

fn prepare(steering: &Steering) {
    if let Err(error) = steering.prepare() {
        tracing::debug!(%error, "no program is kept ready for the next listener");
    }
}

/// A listener cannot be opened now: its program has to be loaded, which takes longer than anything may under the lock.
#[derive(Debug, thiserror::Error)]
#[error("its program is not loaded yet")]
struct NotReady;

/// Tells whoever wants a listener to wait for its program ([`have_program`]), and to ask again.
pub(super) fn not_ready() -> io::Error {
    io::Error::other(NotReady)
}

pub(super) fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<NotReady>())
}

/// One after the other: whoever has waited for a program takes it before the next is loaded.
static TURNS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until there is a program for the next listener; somebody else may be faster, and take it.
pub(super) async fn have_program(shared: &Weak<Shared>) {
    let _turn = TURNS.lock().await;
    load_program(shared).await;
}

async fn load_program(shared: &Weak<Shared>) {
    let lacking = shared
        .upgrade()
        .map(|shared| shared.hub().lacking_program());
    if let Some(steering) = lacking.flatten() {
        // It fails when the runtime ends.
        let _loaded = tokio::task::spawn_blocking(move || prepare(&steering)).await;
    }
}

/// Attempts something until it says that it had the program that it needs.
pub(super) async fn with_program(shared: Weak<Shared>, mut attempt: impl FnMut(&mut Hub) -> bool) {
    let _turn = TURNS.lock().await;
    while let Some(strong) = shared.upgrade() {
        if attempt(&mut strong.hub()) {
            return;
        }
        drop(strong);
        load_program(&shared).await;
    }
}

/// The addresses to try for a TCP listener: none named means any, in dual stack, or IPv4 where there
/// is no IPv6.
pub(in crate::primary) fn on_address<T>(
    address: Option<IpAddr>,
    mut open: impl FnMut(IpAddr) -> io::Result<T>,
) -> io::Result<T> {
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
