//! The server that `just bench` measures: the same axum app, alone or clustered in several ways.
//!
//! ```text
//! bench_server bare ADDRESS              # one process, without phalanx
//! bench_server reuseport ADDRESS COUNT   # COUNT processes, each with a SO_REUSEPORT socket of its own
//! bench_server worker ADDRESS [MS]       # a worker, for `phalanx run`, that takes so long to get ready
//! bench_server timed ADDRESS             # the same, and it times its requests, for the policy `fastest`
//! ```
//! `/` answers with the process id, `/burn` first burns 200 ms of CPU time. One thread a process, everywhere.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a program says what it cannot do, and plays one that starts slowly"
)]

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use phalanx::ThisWorker;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpSocket};

const BURN: Duration = Duration::from_millis(200);
const BACKLOG: u32 = 511;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["bare", address] => on_one_thread(bare(address.parse()?)),
        ["reuseport", address, count] => own_processes(address, count.parse()?),
        ["copy", address] => on_one_thread(copy(address.parse()?)),
        ["worker" | "timed", _] | ["worker", _, _] => Ok(phalanx::builder().run(worker)?),
        _ => {
            eprintln!("usage: bench_server bare|reuseport|worker|timed ADDRESS [COUNT]");
            Err("that is not how it is called".into())
        }
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || pid()))
        .route("/burn", get(async || burn()))
}

fn pid() -> String {
    format!("hello, pid = {}\n", std::process::id())
}

fn burn() -> String {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let until = used() + BURN;
    while used() < until {}
    pid()
}

fn on_one_thread(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

async fn bare(address: SocketAddr) -> Result<()> {
    Ok(axum::serve(TcpListener::bind(address).await?, app()).await?)
}

/// What people write by hand: each process binds the address for itself, the kernel's hash decides.
async fn copy(address: SocketAddr) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(axum::serve(socket.listen(BACKLOG)?, app()).await?)
}

fn own_processes(address: &str, count: usize) -> Result<()> {
    let program = std::env::current_exe()?;
    let copy = || Command::new(&program).args(["copy", address]).spawn();
    let copies = (0..count)
        .map(|_| copy())
        .collect::<std::io::Result<Vec<Child>>>()?;
    for mut copy in copies {
        copy.wait()?;
    }
    Ok(())
}

async fn worker(worker: ThisWorker) -> Result<()> {
    let mut words = std::env::args().skip(1);
    let is_timed = words.next().as_deref() == Some("timed");
    let address = words.next().unwrap_or_default();
    if let Some(start) = words.next() {
        tokio::time::sleep(Duration::from_millis(start.parse()?)).await;
    }
    let app = if is_timed {
        app().layer(worker.meter())
    } else {
        app()
    };
    let listener = worker.listen(address).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(worker.draining())
        .await?;
    Ok(())
}
