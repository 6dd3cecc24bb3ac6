//! Opens a listener: at the address that the worker asks for, or where that is published; and decides which dispatch it gets, and
//! why: once, when it is opened; told then, and shown in the status.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::dispatch::allow::Wanted;
use phalanx_core::dispatch::listener::{Carrier, Dispatch};
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::PolicyName;
use phalanx_core::wire::{ListenRequest, Target, outgoing};
use phalanx_sys::socket::TcpOptions;

use crate::address::Address;
use crate::primary::sockets::listening::{BACKLOG, Opened, on_address, place_of};
use crate::primary::sockets::slots::Slots;
use crate::primary::state::Hub;
use crate::primary::state::dispatch::Handed;
use crate::primary::state::listeners::{Listener, Owner};
use crate::primary::state::program;
use crate::settings::{Adoption, DispatchChoice};

/// Who wants a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Asker {
    /// Whoever started the primary.
    Operator,
    /// A worker, which may have fewer rights than the primary.
    Worker,
}

/// What a listener was opened by, for its dispatch.
pub(in crate::primary) type OpenedBy = Carrier<Arc<OwnedFd>, Arc<OwnedFd>, Slots>;

/// A listener that was opened.
pub(in crate::primary) struct Placed {
    pub(in crate::primary) opened: Opened<OpenedBy>,
    /// Why it has its dispatch.
    pub(in crate::primary) because: String,
    /// The port that workers ask for, where it was opened on another.
    pub(in crate::primary) asked_port: Option<u16>,
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
struct Choice {
    dispatch: Dispatch,
    because: String,
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
    /// The listener for a request: the one that is there, or a new one.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub(in crate::primary) fn listener_for(
        &mut self,
        key: &str,
        request: &ListenRequest,
        by: Asker,
    ) -> io::Result<ListenerId> {
        if let Some((&id, _)) = self
            .listeners
            .iter()
            .find(|(_, listener)| listener.key == key)
        {
            return self.find_again(id, request, by).map(|()| id);
        }
        if let Some(id) = self.claim_bound(key, request) {
            return self.find_again(id, request, by).map(|()| id);
        }
        if self.needs_load() {
            self.board()?;
        }
        let placed = match self.open_placed(request, by) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && self.make_way(&request.target) =>
            {
                self.open_placed(request, by)?
            }
            opened => opened?,
        };
        self.enter_listener(key, request, placed)
    }

    /// Takes a listener in that was opened.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(in crate::primary) fn enter_listener(
        &mut self,
        key: &str,
        request: &ListenRequest,
        placed: Placed,
    ) -> io::Result<ListenerId> {
        let Placed {
            opened,
            because,
            asked_port,
        } = placed;
        let one = match &opened.by {
            Carrier::Handoff(socket) | Carrier::Shared(socket) => Some(socket),
            Carrier::Kernel(_) => None,
        };
        self.keep_listener(key, opened.by.dispatch(), one);
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        let carrier = match opened.by {
            Carrier::Handoff(socket) => {
                let handed = Handed::start(self.mailbox(), id, socket)?;
                let policy = self.make_policy(id);
                self.ledger.add_listener(id, policy);
                Carrier::Handoff(handed)
            }
            // Not even watched: every connection would wake the primary for nothing.
            Carrier::Shared(socket) => Carrier::Shared(socket),
            Carrier::Kernel(slots) => Carrier::Kernel(slots),
        };
        self.look_after_slots();
        // A worker may open and close without end.
        if self
            .openings
            .another(phalanx_sys::clock::coarse())
            .is_some()
        {
            tracing::info!(
                address = %opened.address,
                "dispatch: {}, policy: {} ({because})", carrier.dispatch(), self.policy
            );
        }
        self.listeners.insert(
            id,
            Listener {
                key: key.to_owned(),
                address: opened.address,
                asked_port,
                udp: opened.udp,
                carrier,
                because,
                data: request.data.clone(),
                bound: None,
                newconn: outgoing::new_connection_start(key),
                owner: Owner::of(&request.target),
                file: opened.file,
            },
        );
        Ok(id)
    }

    /// Opens a listener at the first of its places that is free.
    ///
    /// # Errors
    /// As bind(2) and listen(2), at the last of its places.
    fn open_placed(&mut self, asked: &ListenRequest, by: Asker) -> io::Result<Placed> {
        if by == Asker::Worker {
            self.judge_target(&asked.target)?;
        }
        let mut fault = io::Error::from(io::ErrorKind::NotFound);
        for place in self.places(asked) {
            match self.open_at(asked, &place, by) {
                Err(error) if is_not_to_be_had(&error) => fault = error,
                opened => return opened,
            }
        }
        Err(fault)
    }

    fn open_at(
        &mut self,
        asked: &ListenRequest,
        place: &ListenRequest,
        by: Asker,
    ) -> io::Result<Placed> {
        // Whoever asks for port 0 has asked for no port in particular.
        let asked_port = port_of(&asked.target).filter(|&port| port != 0);
        let asked_port = asked_port.filter(|_| port_of(&place.target) != asked_port);
        let choice = self.choose_dispatch(&place.target, asked_port.is_some());
        let opened = match choice.dispatch {
            Dispatch::Kernel => self.open_slots(place, by)?.map(Carrier::Kernel),
            Dispatch::Handoff => self.open_one(place, by)?.map(Carrier::Handoff),
            Dispatch::Shared => self.open_one(place, by)?.map(Carrier::Shared),
        };
        Ok(Placed {
            opened,
            because: choice.because,
            asked_port,
        })
    }

    /// Where the listener of a request is to be opened, for people: what the worker asked for, or where that is published.
    pub(super) fn place_shown(&self, asked: &ListenRequest) -> String {
        let Target::Tcp { port, .. } = asked.target else {
            return asked.target.to_string();
        };
        if !self.is_published(port) {
            return asked.target.to_string();
        }
        let places = self.places(asked);
        let names: Vec<_> = places.iter().map(|one| one.target.to_string()).collect();
        format!("{}, where --publish opens port {port}", names.join(" or "))
    }

    /// The request as it may be carried out, in the order of preference.
    fn places(&self, asked: &ListenRequest) -> Vec<ListenRequest> {
        let Target::Tcp {
            address,
            port,
            only_v6,
        } = asked.target
        else {
            return vec![asked.clone()];
        };
        let (all, named): (Vec<_>, Vec<_>) = self
            .settings
            .publish
            .iter()
            .partition(|rule| rule.app_port.is_none());
        let places = named
            .into_iter()
            .chain(all)
            .map(|rule| rule.places(address, port))
            .find(|places| !places.is_empty());
        let asked_address = address;
        let at = |(address, port)| ListenRequest {
            target: Target::Tcp {
                address,
                port,
                only_v6,
            },
            scope: asked.scope.clone().filter(|_| address == asked_address),
            ..asked.clone()
        };
        let places = places.unwrap_or_else(|| vec![(address, port)]);
        places.into_iter().map(at).collect()
    }

    /// Is the listener for this port of the program opened elsewhere?
    pub(super) fn is_published(&self, port: u16) -> bool {
        let mut rules = self.settings.publish.iter();
        port != 0 && rules.any(|rule| rule.app_port.is_none_or(|named| named == port))
    }

    pub(super) fn judge(&mut self, wanted: &Wanted<'_>) -> io::Result<()> {
        let judged = self.allowance.judge(wanted, first_free_port());
        judged.map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal))
    }

    /// May a worker have this? Of a path, `open_one` judges.
    ///
    /// # Errors
    /// `PermissionDenied`.
    fn judge_target(&mut self, target: &Target) -> io::Result<()> {
        let wanted = match target {
            // The operator has said where it is opened instead.
            Target::Tcp { port, .. } if self.is_published(*port) => return Ok(()),
            Target::Tcp { address, port, .. } | Target::Udp { address, port, .. } => {
                Wanted::Port(*address, *port)
            }
            Target::UnixPath { .. } => return Ok(()),
            Target::UnixAbstract(name) => Wanted::Abstract(name),
            Target::Descriptor(number) | Target::DatagramDescriptor(number) => {
                Wanted::Descriptor(*number)
            }
        };
        self.judge(&wanted)
    }

    /// Opens a TCP listener by its first slot.
    ///
    /// # Errors
    /// As bind(2) and listen(2). For a worker, [`program::not_ready`] when there is no program: the operator's listeners
    /// are opened after [`Cluster::prepare_steering`](crate::primary::Cluster::prepare_steering).
    fn open_slots(&mut self, request: &ListenRequest, by: Asker) -> io::Result<Opened<Slots>> {
        let Target::Tcp {
            address, only_v6, ..
        } = request.target
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let options = TcpOptions {
            only_v6,
            backlog: request.backlog.unwrap_or(BACKLOG),
            reuse_port: true,
        };
        let steering = match &self.steering {
            Some(Ok(steering)) => Some(steering),
            Some(Err(_)) | None => None,
        };
        if by == Asker::Worker && steering.is_some_and(|steering| !steering.is_ready()) {
            return Err(program::not_ready());
        }
        let slots = on_address(address, |ip| {
            let address = place_of(request, ip)?;
            let steering = steering.map(AsRef::as_ref);
            Slots::open(steering, address, &options, self.policy, &self.weights)
        })?;
        Ok(Opened {
            address: Address::Inet(slots.address()),
            by: slots,
            udp: false,
            file: None,
        })
    }
}

/// Which dispatch it gets.
impl Hub {
    /// Chooses the dispatch for a listener on this target. `is_moved`: it is not what the worker asked for.
    fn choose_dispatch(&mut self, target: &Target, is_moved: bool) -> Choice {
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
}

/// The first port that needs no privilege (`ip_unprivileged_port_start`, ip(7)).
fn first_free_port() -> u16 {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// Another place may be free.
fn is_not_to_be_had(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn port_of(target: &Target) -> Option<u16> {
    match target {
        Target::Tcp { port, .. } => Some(*port),
        Target::Udp { .. }
        | Target::UnixPath { .. }
        | Target::UnixAbstract(_)
        | Target::Descriptor(_)
        | Target::DatagramDescriptor(_) => None,
    }
}
