//! Put any server on every core, and never drop a request.
//!
//! phalanx is the `cluster` module of Node.js, rethought in Rust. A **primary** process starts **workers**, by default one a core. It gives
//! each its share of the incoming connections, carries messages between them, and replaces workers that crash. On request it replaces all
//! of them, one by one, without losing a request.
//!
//! Primary and workers are the same program. [`Builder::run`] decides which this process is, before any async runtime exists: in
//! the primary it supervises, in a worker it calls your code. So it is the first thing in `main`.
//!
//! # A web server
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! fn main() -> phalanx::Result<()> {
//!     phalanx::builder().run(|worker| async move {
//!         let app = Router::new().route("/", get(|| async { "hello\n" }));
//!         let listener = worker.listen("127.0.0.1:3000").await?;
//!         let served = phalanx::serve(listener, app).await;
//!         eprintln!("{} connections", served.connections);
//!         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//!     })
//! }
//! ```
//!
//! [`serve`] speaks HTTP/1 and HTTP/2 for every `tower` service. It returns when this worker has left and its connections are answered.
//! [`Listener`] is also a plain stream of connections: [`Listener::accept`] is enough for any other protocol.
//! SIGUSR2, and `phalanx reload` from another terminal, replace all workers. A successor has to serve before its predecessor is
//! asked to leave; if it does not, the predecessor stays and the command says why.
//!
//! # Background jobs
//!
//! A worker without a listener is ready when its program runs. It works until it is asked to leave:
//!
//! ```no_run
//! use phalanx::{Readiness, Settings, Workers};
//!
//! fn main() -> phalanx::Result<()> {
//!     phalanx::builder()
//!         .workers(Workers::Exactly(2))
//!         .settings(Settings::new().readiness(Readiness::Exec))
//!         .run(|worker| async move {
//!             let mut pause = tokio::time::interval(std::time::Duration::from_secs(1));
//!             loop {
//!                 tokio::select! {
//!                     () = worker.draining() => return Ok::<_, phalanx::Error>(()),
//!                     _ = pause.tick() => println!("worker {} does a job", worker.id()),
//!                 }
//!             }
//!         })
//! }
//! ```
//!
//! # A policy of your own
//!
//! Eight policies come with phalanx ([`PolicyName`]). Another one is a type that picks a position; see [`policy`]:
//!
//! ```
//! use phalanx::policy::{Field, Policy};
//!
//! /// Every client of an even port goes to the first worker that takes connections.
//! #[derive(Debug)]
//! struct First;
//!
//! impl Policy for First {
//!     fn choose(&mut self, field: &Field<'_>) -> Option<phalanx::Position> {
//!         field.eligible.first()
//!     }
//! }
//!
//! let builder = phalanx::builder().custom_policy(|| Box::new(First));
//! ```
//!
//! # Messages, and supervision of your own
//!
//! The low-level style reads like Node's documentation: [`init`] gives a [`Cluster`] to the primary and a [`ThisWorker`] to a worker.
//!
//! ```no_run
//! use phalanx::{Event, Role};
//!
//! fn main() -> phalanx::Result<()> {
//!     match phalanx::init()? {
//!         Role::Primary(cluster) => tokio::runtime::Runtime::new().unwrap().block_on(async {
//!             let mut events = cluster.events();
//!             cluster.fork()?;
//!             while let Some(event) = events.next().await {
//!                 match event {
//!                     Event::Online { worker } => cluster.worker(worker).unwrap().send("hello")?,
//!                     Event::Message { message, .. } => println!("{}", message.parse::<String>()?),
//!                     Event::Exit { .. } => break,
//!                     _ => {}
//!                 }
//!             }
//!             Ok(())
//!         }),
//!         Role::Worker(worker) => tokio::runtime::Runtime::new().unwrap().block_on(async {
//!             let greeting: String = worker.message().await.unwrap()?;
//!             worker.send(&format!("{greeting} yourself"))?;
//!             worker.disconnect().await?;
//!             Ok(())
//!         }),
//!     }
//! }
//! ```
//!
//! [`supervisor`] lies between the two styles: it keeps an app of N workers alive as the builder does, and gives a handle for
//! commands and questions.
//!
//! # When something fails
//!
//! Each concern has its error: [`RoleError`], [`StartError`], [`ListenError`], [`MessageError`]; [`Error`] is any of them, and what
//! else can fail. [`Error::reach`] says how much of the cluster a failure concerns, and [`Error::is_transient`] whether it may pass. A worker can
//! harm only itself: its panics, leaks and floods of messages cost the primary nothing but a respawn.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `control` | yes | the control socket: `phalanx status`, `reload`, `scale`, `drill --name` work on the program |
//! | `kernel` | yes | dispatch in the kernel by eBPF, where the process has the privilege |
//! | `serve` | yes | [`serve`] for `tower` services, with hyper |
//! | `tower` | with `serve` | [`Meter`] is a layer |
//! | `axum` | no | [`Listener`] works with `axum::serve`; handlers find the peer as `ConnectInfo` |
//!
//! Features only add. Linux 5.4 or newer; the oldest Rust that compiles it is 1.95, and a newer one is asked for in a minor version only.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod bind;
mod builder;
pub mod describe;
mod error;
mod event;
pub mod fleet;
mod handle;
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
pub use error::{
    Error, ListenError, MessageError, Reach, Result, RoleError, StartError, StartFailure,
    StartFailureKind,
};
pub use event::Event;
pub use handle::{Handle, Unsent};
pub use hang::Hang;
pub use keeper::keep_if_asked;
pub use message::Message;
pub use phalanx_core::dispatch::allow::{BadPattern, ListenPattern};
pub use phalanx_core::dispatch::hang::{Evidence, Frozen};
pub use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};
pub use phalanx_core::policy::{InvalidWeights, PolicyName, UnknownPolicy, Weights};
pub use phalanx_core::wire::splice::Serialization;
pub use phalanx_sys::signal::Signal;
pub use primary::{Cluster, RebalanceError, Rebalanced, Streams, Worker, working_directory};
pub use publish::{BadPublish, Publish};
pub use role::{Role, init, is_primary, is_worker};
pub use settings::{Adoption, DispatchChoice, InspectPort, Readiness, Settings, Stdio, UnixFile};
pub use share::{BadShare, Share};
pub use subscribers::Events;
pub use worker::{
    Dismissal, Listener, Meter, OpenStream, Stream, StreamKind, ThisWorker, Timed, UdpSocket,
};
#[cfg(feature = "tower")]
pub use worker::{Metered, MeteredFuture};
#[cfg(feature = "serve")]
pub use worker::{Plainly, Serve, Served, serve, serve_with};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
