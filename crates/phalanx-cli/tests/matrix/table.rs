//! The programs of `docs/programs.md`: what each needs, how it becomes a worker, and how it is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use phalanx_testkit::{fixtures, require};

/// How the program becomes a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Node's channel.
    Channel,
    /// Its listener is given to it; what proves that it serves.
    Activation(&'static str),
}

/// One row of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// Options of `phalanx run`, beside those of the way.
    pub(crate) options: &'static [&'static str],
    /// The command; nothing where something is missing, which has been told.
    pub(crate) command: fn(&Place) -> Option<Vec<OsString>>,
}

/// Where a row runs: a directory for what it writes and builds, and a port that was free just now.
#[derive(Debug)]
pub(crate) struct Place {
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn new() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            port: free.local_addr().unwrap().port(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn program(name: &str) -> Option<OsString> {
    require(name).map(Into::into)
}

fn fixture(name: &str) -> OsString {
    fixtures::fixture(&format!("programs/{name}")).into()
}

/// `program` and `words`; `PORT` in a word stands for the port.
fn words(place: &Place, program: OsString, words: &[&str]) -> Vec<OsString> {
    let port = place.port.to_string();
    let words = words.iter().map(|word| word.replace("PORT", &port).into());
    std::iter::once(program).chain(words).collect()
}

fn directory_of(fixture: &str) -> PathBuf {
    fixtures::fixture(&format!("programs/{fixture}"))
        .parent()
        .unwrap()
        .to_owned()
}

pub(crate) const NODE_CHANNEL: Row = Row {
    name: "Node http, by its channel",
    way: Way::Channel,
    options: &[],
    command: |_| Some(vec![program("node")?, fixtures::fixture("http.js").into()]),
};

pub(crate) const NODE_DESCRIPTOR: Row = Row {
    name: "Node http, listen({ fd: 3 })",
    way: Way::Activation("auto"),
    options: &["--adopt", "activation"],
    command: |_| {
        Some(vec![
            program("node")?,
            fixtures::fixture("listen-fd.js").into(),
        ])
    },
};

pub(crate) const GUNICORN_ACTIVATED: Row = Row {
    name: "gunicorn, two workers of its own, LISTEN_FDS and READY=1",
    way: Way::Activation("auto"),
    options: &[],
    command: |place| {
        let directory = directory_of("wsgi.py");
        let mut command = words(place, program("gunicorn")?, &["-w", "2", "--chdir"]);
        command.extend([directory.into(), "wsgi:app".into()]);
        Some(command)
    },
};

pub(crate) const UVICORN_ACTIVATED: Row = Row {
    name: "uvicorn --fd 3",
    way: Way::Activation("auto"),
    options: &[],
    command: |place| {
        Some(asgi(
            place,
            program("uvicorn")?,
            &["--fd", "3", "--log-level", "warning"],
        ))
    },
};

pub(crate) const HYPERCORN_ACTIVATED: Row = Row {
    name: "hypercorn --bind fd://3",
    way: Way::Activation("auto"),
    options: &[],
    command: |place| Some(asgi(place, program("hypercorn")?, &["--bind", "fd://3"])),
};

pub(crate) const PUMA_ACTIVATED: Row = Row {
    name: "Puma, LISTEN_FDS",
    way: Way::Activation("auto"),
    options: &[],
    command: |place| {
        let mut command = words(
            place,
            program("puma")?,
            &[
                "--quiet",
                "--bind-to-activated-sockets",
                "only",
                "--environment",
                "production",
            ],
        );
        command.push(fixture("config.ru"));
        Some(command)
    },
};

pub(crate) const PYTHON_ACTIVATED: Row = Row {
    name: "Python on LISTEN_FDS that dies of SIGTERM, READY=1",
    way: Way::Activation("auto"),
    options: &[],
    command: |_| {
        let python = program("python3")?;
        Some(vec![
            python,
            fixture("activated.py"),
            "notify".into(),
            "rude".into(),
        ])
    },
};

/// An ASGI server: its program, its options, and the application.
fn asgi(place: &Place, program: OsString, options: &[&str]) -> Vec<OsString> {
    let mut command = words(place, "env".into(), &[]);
    let mut path = OsString::from("PYTHONPATH=");
    path.push(directory_of("asgi.py"));
    command.push(path);
    command.extend(words(place, program, options));
    command.push("asgi:app".into());
    command
}
