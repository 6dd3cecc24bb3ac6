//! Dispatch in the kernel, on real groups of sockets. Needs root, and says so where it is not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod support {
    pub(crate) mod cluster;
}

mod groups {
    mod choices;
    mod others;
    mod slots;
}

use std::net::IpAddr;

use phalanx_core::ids::Position;
use phalanx_core::policy::{ClientHash, Field, Policy, PositionSet, SourceHash};
use rustix::process::{Resource, getrlimit, setrlimit};

fn home(eligible: &[u32], client: IpAddr) -> u32 {
    let eligible: PositionSet = eligible.iter().copied().map(Position).collect();
    let field = Field::new(&eligible, &(), ClientHash::from(client));
    SourceHash.choose(&field).unwrap().0
}

/// 256 slots and their connections at once.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
