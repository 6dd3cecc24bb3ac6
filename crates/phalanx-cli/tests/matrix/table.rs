//! The programs of `docs/programs.md`: what each needs, how it becomes a worker, and how it is started.

#![allow(clippy::unwrap_used, reason = "a table of tests")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster;
use phalanx_testkit::{fixtures, free_port, missing, require};

/// How the program becomes a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Node's channel.
    Channel,
    /// Its listener is given to it; what proves that it serves.
    Activation(&'static str),
    /// Its own bind(2) is answered with the listener.
    Intercept,
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
        Self {
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
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

/// Runs a build to its end.
#[track_caller]
fn build(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A program of an npm package that `just programs` has fetched.
fn of_npm(name: &str) -> Option<OsString> {
    let modules = fixtures::root().join("target/programs/node_modules/.bin");
    let path = modules.join(name);
    if path.exists() {
        return Some(path.into());
    }
    missing!("the npm package {name} in target/programs: just programs fetches it");
    None
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

pub(crate) const GUNICORN: Row = intercepted("gunicorn, two workers of its own", |place| {
    let options = ["-w", "2", "--bind", "127.0.0.1:PORT", "--chdir"];
    let mut command = words(place, program("gunicorn")?, &options);
    command.extend([directory_of("wsgi.py").into(), "wsgi:app".into()]);
    Some(command)
});

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

const fn intercepted(name: &'static str, command: fn(&Place) -> Option<Vec<OsString>>) -> Row {
    Row {
        name,
        way: Way::Intercept,
        options: &[],
        command,
    }
}

pub(crate) const NODE_INTERCEPTED: Row = intercepted("Node http, intercepted", |place| {
    let mut command = vec!["env".into(), format!("PORT={}", place.port).into()];
    command.extend([program("node")?, fixtures::fixture("http.js").into()]);
    Some(command)
});

pub(crate) const BUN: Row = intercepted("Bun.serve", |place| {
    let mut command = vec![of_npm("bun")?, fixture("bun.ts")];
    command.push(place.port.to_string().into());
    Some(command)
});

pub(crate) const DENO: Row = intercepted("Deno.serve", |place| {
    let mut command = words(place, of_npm("deno")?, &["run", "--allow-net", "--quiet"]);
    command.extend([fixture("deno.ts"), place.port.to_string().into()]);
    Some(command)
});

pub(crate) const HTTP_SERVER: Row = intercepted("python3 -m http.server", |place| {
    let options = ["-m", "http.server", "--bind", "127.0.0.1", "--directory"];
    let mut command = words(place, program("python3")?, &options);
    command.push(directory_of("www/index.html").into());
    command.push(place.port.to_string().into());
    Some(command)
});

pub(crate) const UVICORN: Row = intercepted("uvicorn --port", |place| {
    let options = ["--port", "PORT", "--log-level", "warning"];
    Some(asgi(place, program("uvicorn")?, &options))
});

pub(crate) const HYPERCORN: Row = intercepted("hypercorn --bind", |place| {
    Some(asgi(
        place,
        program("hypercorn")?,
        &["--bind", "127.0.0.1:PORT"],
    ))
});

pub(crate) const GRANIAN: Row = intercepted("granian", |place| {
    let options = [
        "--interface",
        "asgi",
        "--port",
        "PORT",
        "--log-level",
        "warning",
    ];
    Some(asgi(place, program("granian")?, &options))
});

pub(crate) const WEBRICK: Row = intercepted("Ruby WEBrick", |place| {
    let mut command = vec![program("ruby")?, fixture("webrick.rb")];
    command.push(place.port.to_string().into());
    Some(command)
});

pub(crate) const PUMA: Row = intercepted("Puma", |place| {
    let options = [
        "--quiet",
        "--bind",
        "tcp://127.0.0.1:PORT",
        "--environment",
        "production",
    ];
    let mut command = words(place, program("puma")?, &options);
    command.push(fixture("config.ru"));
    Some(command)
});

pub(crate) const GO: Row = intercepted("Go net/http, statically linked", |place| {
    let go = program("go")?;
    let server = place.path().join("http");
    build(
        Command::new(go)
            .env("CGO_ENABLED", "0")
            .args(["build", "-o"])
            .arg(&server)
            .arg(fixture("http.go")),
    );
    Some(words(place, server.into(), &["PORT"]))
});

pub(crate) const JAVA: Row = intercepted("Java com.sun.net.httpserver", |place| {
    let java = program("java")?;
    let compiler = program("javac")?;
    build(
        Command::new(compiler)
            .arg("-d")
            .arg(place.path())
            .arg(fixture("Http.java")),
    );
    let mut command = words(place, java, &["-XX:+UseSerialGC", "-Xmx64m", "-cp"]);
    command.extend([
        place.path().into(),
        "Http".into(),
        place.port.to_string().into(),
    ]);
    Some(command)
});

pub(crate) const PHP: Row = intercepted("php -S", |place| {
    let mut command = words(place, program("php")?, &["-S", "127.0.0.1:PORT"]);
    command.push(fixture("router.php"));
    Some(command)
});

pub(crate) const NGINX: Row = Row {
    name: "nginx, daemon off, --stop-signal QUIT",
    way: Way::Intercept,
    options: &["--stop-signal", "QUIT"],
    command: |place| {
        let nginx = program("nginx")?;
        let text = fs::read_to_string(fixture("nginx.conf")).unwrap();
        let conf = place.path().join("nginx.conf");
        fs::write(&conf, text.replace("PORT", &place.port.to_string())).unwrap();
        let mut command = words(place, nginx, &["-e", "stderr", "-p"]);
        command.extend([place.path().into(), "-c".into(), conf.into()]);
        Some(command)
    },
};

pub(crate) const AXUM: Row = intercepted("axum", |place| {
    let server = cluster::example("plain_axum");
    Some(words(place, server.into(), &["127.0.0.1:PORT"]))
});

pub(crate) const C: Row = intercepted("C, raw sockets", |place| {
    let server = place.path().join("http");
    build(
        Command::new(program("cc")?)
            .arg("-o")
            .arg(&server)
            .arg(fixture("http.c")),
    );
    Some(words(place, server.into(), &["PORT"]))
});

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
