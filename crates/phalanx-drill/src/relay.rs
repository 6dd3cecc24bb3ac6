//! A TCP port in front of a server's Unix socket, as a proxy would be: passes bytes on and knows no HTTP.
//!
//! What ends on one side ends on the other. Where the server refuses a connection, or resets it, the client's is reset.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// Ends with its value, and its connections with it.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens at a free port of this address of the calling thread's network.
    pub(super) fn start(ip: IpAddr, path: PathBuf) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((ip, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(serve(listener, path));
        Ok(Self { address, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, path: PathBuf) {
    let mut connections = JoinSet::new();
    loop {
        // A connection that was aborted before it was accepted is no concern of anybody's.
        if let Ok((mut client, _)) = listener.accept().await {
            let path = path.clone();
            connections.spawn(async move {
                if pass_on(&mut client, &path).await.is_err() {
                    drop(client.set_zero_linger());
                }
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn pass_on(client: &mut TcpStream, path: &Path) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = UnixStream::connect(path).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        // What the server does not want to hear is no reason to keep its answer from the client.
        drop(copy(&mut from_client, &mut to_server).await);
        drop(to_server.shutdown().await);
        Ok(())
    };
    let down = async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::target::LOOPBACK;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_server_says_and_how_it_ends_reaches_the_client() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let relay = Relay::start(LOOPBACK, path).unwrap();
        let address = relay.address();
        let client = move |ask: &'static [u8]| {
            tokio::task::spawn_blocking(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(ask).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).map(|_| answer)
            })
        };
        let answered = client(b"ask");
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 3];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"answer").unwrap();
        drop(stream);
        assert_eq!(
            (&asked, answered.await.unwrap().unwrap()),
            (b"ask", b"answer".to_vec())
        );

        // Closed with what it has not read, and without an answer.
        let reset = client(b"ask");
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut asked[..1]).unwrap();
        drop(stream);
        let error = reset.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
