//! The engine: takes workers of Node's primary in, and lives as long as that does.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::{ExitStatus, WorkerId};
use phalanx_core::policy::{PolicyName, Weights};
use phalanx_core::wire::DrainLimits;
use phalanx_core::wire::splice::Serialization;
use phalanx_sys::process::Pid;
use serde::Deserialize;
use tokio::io::unix::AsyncFd;

use super::CONTROL_NUMBER;
use super::hello::{Hello, LINE_MAX, VERSION, Welcome, line};
use super::holder::{HOLDER_NUMBER, LISTENER_NUMBER};
use super::record::Record;
use crate::error::{Error, Result};
use crate::primary::{Cluster, Estate, Guest};
use crate::role::raise_open_files;
use crate::settings::{DispatchChoice, Settings};
use crate::supervisor::{Control, Order, Orders};
use crate::watched::watch;

/// How long a shim may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// How long to leave off accepting when there is no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// What an engine is.
#[derive(Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The name of the app, if it is to be found by one; then [`Engine::control`] has something to give.
    pub name: Option<String>,
    /// The name of its abstract socket.
    pub socket: String,
    /// What its workers have to know.
    pub token: String,
    /// Who gets a connection; unless given, round robin or what each worker's `cluster.schedulingPolicy` says.
    pub policy: Option<PolicyName>,
    /// Weights by position, for the policy `weighted`.
    pub weights: Weights,
    /// How it gets there.
    pub dispatch: DispatchChoice,
    /// Leave all listeners, and the dispatch of their connections, to Node's primary.
    pub leaves_listeners: bool,
    /// How long workers are told they may take to leave; as long again for streams. Default: as long as they like.
    pub drain_timeout: Option<Duration>,
    /// Leave out the script that lets workers drain politely.
    pub no_preload: bool,
    /// The how-many-eth engine of its holder it is, if it has one; then its socket is there already.
    pub held: Option<u32>,
}

impl EngineOptions {
    /// An engine with every default.
    #[must_use]
    pub fn new(socket: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            name: None,
            socket: socket.into(),
            token: token.into(),
            policy: None,
            weights: Weights::default(),
            dispatch: DispatchChoice::Auto,
            leaves_listeners: false,
            drain_timeout: None,
            no_preload: false,
            held: None,
        }
    }
}

/// What the program that has started it says.
#[derive(Debug, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
enum Word {
    /// `cluster.disconnect()` was called: newcomers are refused, and the listeners close with the last worker.
    Close,
    /// A worker's process was reaped.
    Exit {
        worker: u32,
        code: Option<u8>,
        /// By its number.
        signal: Option<u8>,
    },
    /// An order was carried out, or was not.
    Done { number: u64, error: Option<String> },
    #[serde(other)]
    Unknown,
}

/// An engine that runs.
#[derive(Debug)]
pub struct Engine {
    cluster: Cluster,
    options: EngineOptions,
    primary: AsyncFd<OwnedFd>,
    listener: AsyncFd<OwnedFd>,
    control: Option<(Control, Orders)>,
    holder: Option<AsyncFd<OwnedFd>>,
}

impl Engine {
    /// Starts one. Needs a runtime.
    ///
    /// # Errors
    /// [`Error::Setup`] when its socket or the one to Node's primary cannot be used.
    pub fn start(options: EngineOptions) -> Result<Self> {
        let setup = |what| move |source| Error::Setup { what, source };
        let primary = phalanx_sys::channel::take_over(CONTROL_NUMBER).and_then(watch);
        let primary = primary.map_err(setup("the socket to Node's primary"))?;
        raise_open_files();
        let cluster = Cluster::new();
        cluster.set_scheduling_policy(options.policy.unwrap_or(PolicyName::RoundRobin));
        cluster.set_weights(options.weights.clone());
        cluster.set_dispatch(options.dispatch);
        cluster.leave_listeners(options.leaves_listeners);
        if let Some(drain) = options.drain_timeout {
            cluster.set_drain_limits(DrainLimits {
                drain,
                stream: drain,
            });
        }
        cluster.setup(Settings::new().preload(!options.no_preload));
        let listener = match options.held {
            Some(_) => phalanx_sys::socket::inherited_socket(LISTENER_NUMBER).and_then(watch),
            None => listen(&options.socket),
        };
        let listener = listener.map_err(setup("the engine's socket"))?;
        let holder = options.held.map(|_| {
            phalanx_sys::channel::take_over(HOLDER_NUMBER)
                .and_then(watch)
                .map_err(setup("the socket to its holder"))
        });
        let name = options.name.as_deref();
        let control = name
            .map(|name| Control::of_guests(&cluster, name))
            .transpose()?;
        Ok(Self {
            cluster,
            options,
            primary,
            listener,
            control,
            holder: holder.transpose()?,
        })
    }

    /// The handle for commands and questions; nothing without a name.
    #[must_use]
    pub fn control(&self) -> Option<Control> {
        self.control.as_ref().map(|(control, _)| control.clone())
    }

    /// Runs until Node's primary ends.
    ///
    /// # Errors
    /// [`Error::Setup`] when its socket breaks.
    pub async fn finished(self) -> Result<()> {
        self.cluster.number_from(self.options.held.unwrap_or(0));
        if let Some(holder) = self.holder {
            let estate = inherit(&holder).await.map_err(|source| Error::Setup {
                what: "what its holder has",
                source,
            })?;
            self.cluster.go_on(estate, Arc::new(holder)).await;
        }
        let orders = self.control.map(|(_, orders)| orders);
        let accepting = accept(&self.listener, &self.cluster, &self.options);
        tokio::select! {
            () = converse(&self.primary, &self.cluster, orders) => Ok(()),
            result = accepting => result.map_err(|source| Error::Setup {
                what: "the engine's socket",
                source,
            }),
        }
    }
}

/// Reads what the engine before this one has left.
async fn inherit(holder: &AsyncFd<OwnedFd>) -> io::Result<Estate> {
    let (mut estate, mut text) = (Estate::default(), Vec::new());
    let (mut handles, mut room) = (VecDeque::new(), [0; LINE_MAX]);
    loop {
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                Record::Put { key, what, handle } => {
                    let handle = handle.then(|| handles.pop_front()).flatten();
                    estate.add(key, what, handle);
                }
                Record::End => return Ok(estate),
                Record::Drop { .. } | Record::Forget { .. } => {}
            }
        }
        let mut readable = holder.readable().await?;
        match phalanx_sys::channel::receive(holder.as_fd(), &mut room, &mut handles) {
            Ok(received) if received.bytes == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(received) => text.extend_from_slice(&room[..received.bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
            Err(error) => return Err(error),
        }
    }
}

/// Does what Node's primary says, and gives it orders, until it ends.
async fn converse(primary: &AsyncFd<OwnedFd>, cluster: &Cluster, mut orders: Option<Orders>) {
    let (mut text, mut none) = (Vec::new(), VecDeque::new());
    let mut given: BTreeMap<u64, Order> = BTreeMap::new();
    let mut room = [0; 512];
    loop {
        let mut readable = tokio::select! {
            readable = primary.readable() => match readable {
                Ok(readable) => readable,
                Err(_) => return,
            },
            Some(order) = next_order(&mut orders, cluster) => {
                give(primary, order, &mut given);
                continue;
            }
        };
        match phalanx_sys::channel::receive(primary.as_fd(), &mut room, &mut none) {
            Ok(received) if received.bytes == 0 => return,
            Ok(received) => text.extend_from_slice(&room[..received.bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
            Err(_) => return,
        }
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(word) => obey(word, cluster, &mut given),
                Err(error) => tracing::debug!(%error, "a word of the primary's cannot be read"),
            }
        }
    }
}

async fn next_order(orders: &mut Option<Orders>, cluster: &Cluster) -> Option<Order> {
    match orders {
        Some(orders) => orders.next(cluster).await,
        None => std::future::pending().await,
    }
}

fn obey(word: Word, cluster: &Cluster, given: &mut BTreeMap<u64, Order>) {
    match word {
        Word::Close => cluster.refuse_newcomers(),
        Word::Exit {
            worker,
            code,
            signal,
        } => {
            let status = signal.map_or(ExitStatus::Code(code.unwrap_or(0)), ExitStatus::Signal);
            cluster.guest_exited(WorkerId(worker), status);
        }
        Word::Done { number, error } => {
            if let Some(order) = given.remove(&number) {
                order.end(error);
            }
        }
        Word::Unknown => {}
    }
}

/// Sends an order to Node's primary. One that it cannot be told is refused.
fn give(primary: &AsyncFd<OwnedFd>, mut order: Order, given: &mut BTreeMap<u64, Order>) {
    let number = given.last_key_value().map_or(1, |(last, _)| last + 1);
    order.word["number"] = number.into();
    let sent =
        line(&order.word).and_then(|line| phalanx_sys::channel::send(primary.as_fd(), &line, None));
    match sent {
        Ok(_) => drop(given.insert(number, order)),
        Err(error) => order.end(Some(format!("Node's primary cannot be told: {error}"))),
    }
}

fn listen(name: &str) -> io::Result<AsyncFd<OwnedFd>> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    watch(OwnedFd::from(listener))
}

async fn accept(
    listener: &AsyncFd<OwnedFd>,
    cluster: &Cluster,
    options: &EngineOptions,
) -> io::Result<()> {
    loop {
        let mut readable = listener.readable().await?;
        match phalanx_sys::socket::accept(listener.as_fd()) {
            Ok(shim) => {
                let (cluster, token, policy) =
                    (cluster.clone(), options.token.clone(), options.policy);
                tokio::spawn(async move {
                    let heard =
                        tokio::time::timeout(HELLO_LIMIT, take_in(shim, &cluster, &token, policy));
                    match heard.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "a worker could not be taken in"),
                        Err(_) => tracing::debug!("a shim did not say who it is"),
                    }
                });
            }
            Err(phalanx_sys::socket::AcceptError::WouldBlock) => readable.clear_ready(),
            Err(phalanx_sys::socket::AcceptError::Connection(_)) => {}
            Err(_) => tokio::time::sleep_until((phalanx_sys::clock::now() + PAUSE).into()).await,
        }
    }
}

async fn take_in(
    shim: OwnedFd,
    cluster: &Cluster,
    token: &str,
    policy: Option<PolicyName>,
) -> io::Result<()> {
    let shim = watch(shim)?;
    let credentials = phalanx_sys::socket::peer_credentials(shim.as_fd())?;
    let (text, mut handles) = hear(&shim).await?;
    let hello: Hello = serde_json::from_slice(&text)?;
    if hello.token != token {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let entered = enter(
        &hello,
        credentials.pid,
        handles.pop_front(),
        cluster,
        policy,
    );
    let (welcome, end) = match entered {
        Ok((end, preload)) => (
            Welcome {
                preload,
                error: None,
            },
            Some(end),
        ),
        Err(reason) => (
            Welcome {
                error: Some(reason),
                preload: None,
            },
            None,
        ),
    };
    // A short line on an empty socket is taken whole.
    phalanx_sys::channel::send(
        shim.as_fd(),
        &line(&welcome)?,
        end.as_ref().map(AsFd::as_fd),
    )?;
    Ok(())
}

/// The line of a shim, and what came with it.
async fn hear(shim: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, VecDeque<OwnedFd>)> {
    let (mut text, mut handles) = (Vec::new(), VecDeque::new());
    let mut room = [0; LINE_MAX];
    while !text.ends_with(b"\n") {
        let mut readable = shim.readable().await?;
        match phalanx_sys::channel::receive(shim.as_fd(), &mut room, &mut handles) {
            Ok(received) if received.bytes == 0 || text.len() > LINE_MAX => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(received) => text.extend_from_slice(&room[..received.bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
            Err(error) => return Err(error),
        }
    }
    Ok((text, handles))
}

fn enter(
    hello: &Hello,
    pid: Option<Pid>,
    upstream: Option<OwnedFd>,
    cluster: &Cluster,
    policy: Option<PolicyName>,
) -> std::result::Result<(OwnedFd, Option<String>), String> {
    if hello.v != VERSION {
        return Err(format!(
            "the engine speaks version {VERSION}, not {}",
            hello.v
        ));
    }
    let serialization =
        Serialization::from_name(&hello.mode).ok_or("has an unknown serialization")?;
    let upstream = upstream.ok_or("came without its channel")?;
    let pid = pid.ok_or("runs in another namespace of processes")?;
    if policy.is_none() && hello.policy == "none" {
        // As Node: it counts from the next listener on.
        cluster.set_scheduling_policy(PolicyName::None);
    }
    let guest = Guest {
        id: WorkerId(hello.id),
        pid,
        serialization,
        upstream,
    };
    let (end, preload) = cluster.splice(guest).map_err(|error| error.to_string())?;
    Ok((end, preload.and_then(|option| option.into_string().ok())))
}
