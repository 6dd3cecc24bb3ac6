//! Where a listener is opened: at the address that the worker asks for, or where that is published.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::dispatch::listener::{Carrier, Dispatch};
use phalanx_core::wire::{ListenRequest, Target};

use crate::primary::sockets::slots::Slots;
use crate::primary::state::Hub;
use crate::primary::state::open::{Asker, Opened};

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

impl Hub {
    /// Opens a listener at the first of its places that is free.
    ///
    /// # Errors
    /// As bind(2) and listen(2), at the last of its places.
    pub(in crate::primary) fn open_published(
        &mut self,
        asked: &ListenRequest,
        by: Asker,
    ) -> io::Result<Placed> {
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
    pub(in crate::primary) fn is_published(&self, port: u16) -> bool {
        let mut rules = self.settings.publish.iter();
        port != 0 && rules.any(|rule| rule.app_port.is_none_or(|named| named == port))
    }
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
