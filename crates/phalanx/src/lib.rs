//! Put any server on every core, and never drop a request.
//!
//! The `cluster` module of Node.js, rethought in Rust: a primary process starts workers, gives each
//! its share of the incoming connections, carries messages, replaces workers that crash, and replaces
//! all of them one by one without a moment's downtime.

mod address;
mod bind;
mod builder;
pub mod describe;
mod error;
mod event;
mod hang;
mod keeper;
mod message;
pub mod policy;
mod primary;
mod publish;
mod role;
mod settings;
mod share;
#[doc(hidden)]
pub mod splice;
mod subscribers;
pub mod supervisor;
mod watched;
mod worker;

pub use address::{Address, BadAddress, ToAddress};
pub use bind::{BadBind, Bind};
pub use builder::{Builder, Workers, builder};
pub use error::{Error, Result};
pub use event::Event;
pub use hang::Hang;
pub use keeper::keep_if_asked;
pub use message::Message;
pub use phalanx_core::dispatch::allow::{BadPattern, ListenPattern};
pub use phalanx_core::dispatch::hang::{Evidence, Frozen};
pub use phalanx_core::fleet;
pub use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};
pub use phalanx_core::policy::{InvalidWeights, PolicyName, UnknownPolicy, Weights};
pub use phalanx_core::wire::splice::Serialization;
pub use phalanx_sys::signal::Signal;
pub use primary::{Cluster, Worker, working_directory};
pub use publish::{BadPublish, Publish};
pub use role::{Role, init, is_primary, is_worker};
pub use settings::{Adoption, DispatchChoice, InspectPort, Readiness, Settings, Stdio, UnixFile};
pub use share::{BadShare, Share};
pub use subscribers::Events;
pub use worker::{Listener, Meter, Stream, StreamKind, ThisWorker, Timed, UdpSocket};
#[cfg(feature = "tower")]
pub use worker::{Metered, MeteredFuture};
#[cfg(feature = "serve")]
pub use worker::{serve, serve_with};
