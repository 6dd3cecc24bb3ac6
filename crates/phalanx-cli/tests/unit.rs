//! `phalanx unit`: what it prints is a unit that systemd understands, and what it installs is enabled.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use phalanx_testkit::process::Output;
use phalanx_testkit::{LIMIT, Process, missing, require};
use support::{PHALANX, directory, fixture};

const APP: &str = "workers = 2\ndrain-timeout = \"20s\"\nkill-timeout = \"4s\"\n";

fn place(apps: &[&str]) -> tempfile::TempDir {
    let place = directory();
    let app = |name: &&str| format!("[app.{name}]\nscript = {:?}\n{APP}", fixture("http.js"));
    let file: Vec<String> = apps.iter().map(app).collect();
    fs::write(place.path().join("phalanx.toml"), file.concat()).unwrap();
    place
}

fn ask(place: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(PHALANX);
    command
        .arg("unit")
        .args(words)
        .current_dir(place)
        .env("HOME", place)
        .env("XDG_CONFIG_HOME", place.join("config"))
        .env_remove("PHALANX_PROFILE");
    if let Some(path) = std::env::var_os("PATH") {
        let mut all = vec![place.join("bin")];
        all.extend(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(all).unwrap());
    }
    Process::run(command, LIMIT)
}

fn values(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines();
    let values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

fn directory_of(place: &Path) -> String {
    fs::canonicalize(place).unwrap().display().to_string()
}

#[test]
fn systemd_understands_the_units_of_one_app_of_several_and_of_a_program() {
    if require("systemd-analyze").is_none() {
        return;
    }
    let verify = |place: &Path, words: &[&str], units: &[&str]| {
        let target = place.join("units");
        let words = [&["--directory", "units", "--force"], words].concat();
        ask(place, &words).expect_success();
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--recursive-errors=no"]);
        command.args(units.iter().map(|unit| target.join(unit)));
        let output = Process::run(command, LIMIT);
        assert!(output.status.success(), "{}", output.stderr);
        // What it does not know it tells, and goes on.
        let about_ours = |line: &&str| units.iter().any(|unit| line.contains(unit));
        let told: Vec<_> = output.stderr.lines().filter(about_ours).collect();
        assert!(told.is_empty(), "{told:?}");
    };
    let one = place(&["shop"]);
    verify(
        one.path(),
        &["--run-as", "daemon", "--kernel", "--low-ports"],
        &["shop.service"],
    );
    verify(
        one.path(),
        &["shop", "--listen", "127.0.0.1:8080"],
        &["shop.service", "shop.socket"],
    );
    verify(one.path(), &["--user"], &["shop.service"]);
    let script = fixture("http.js");
    verify(
        one.path(),
        &["--name", "odd", "--", &script, "100%", "two words", "$HOME"],
        &["odd.service"],
    );
    let two = place(&["shop", "mail"]);
    verify(two.path(), &["--name", "all"], &["all.service"]);
}

#[test]
fn a_unit_starts_reloads_and_stops_what_the_file_describes() {
    let place = place(&["shop", "mail"]);
    let here = directory_of(place.path());
    let one = ask(place.path(), &["shop"]).expect_success().stdout;
    let run = format!("run --config={here}/phalanx.toml shop");
    assert!(values(&one, "ExecStart")[0].ends_with(&run), "{one}");
    assert!(
        values(&one, "ExecReload")[0].ends_with("reload --name shop"),
        "{one}"
    );
    assert_eq!(
        values(&one, "WorkingDirectory"),
        std::slice::from_ref(&here)
    );
    // 20 s to drain, 5 s to settle, 4 s until it is killed, and 10 s.
    assert_eq!(values(&one, "TimeoutStopSec"), ["39s"]);
    let all = ask(place.path(), &["--name", "site"])
        .expect_success()
        .stdout;
    let up = format!("up --config={here}/phalanx.toml");
    assert!(values(&all, "ExecStart")[0].ends_with(&up), "{all}");
    assert_eq!(values(&all, "RuntimeDirectory"), ["site"]);
}

/// A service manager of a user, in namespaces that end with it, does what is asked of it on standard input.
const MANAGER: &str = r#"
set -eu
mount --make-rprivate /
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system
mkdir -m 700 "$XDG_RUNTIME_DIR"
# A manager that does not know where the bus is does without.
unset DBUS_SESSION_BUS_ADDRESS NOTIFY_SOCKET
/lib/systemd/systemd --user --unit=basic.target </dev/null >"$HOME/manager.log" 2>&1 &
for _ in $(seq 600); do
    case $(systemctl --user is-system-running 2>/dev/null) in running|degraded) break;; esac
    kill -0 $! || { cat "$HOME/manager.log"; exit 1; }
    sleep 0.1
done
try() { status=0; "$@" || status=$?; echo "status $status: $1 $2 $3"; }
"$PHALANX" unit --user --install
try systemctl --user start shop.service
"$PHALANX" status --name shop --json | grep '"generation"' | tail -1
try systemctl --user reload shop.service
echo 'throw new Error("a bad release")' >server.js
try systemctl --user reload shop.service
try systemctl --user is-active shop.service
try systemctl --user stop shop.service
try systemctl --user is-failed shop.service
"#;

#[test]
fn systemd_starts_reloads_and_stops_the_app_and_is_told_of_a_reload_that_failed() {
    if !Path::new("/lib/systemd/systemd").exists() || phalanx_sys::identity::effective_uid() != 0 {
        missing!("systemd, and root to give it namespaces of its own");
        return;
    }
    let place = directory();
    let script = place.path().join("server.js");
    fs::copy(fixture("http.js"), script).unwrap();
    let file = "[app.shop]\nscript = \"server.js\"\nworkers = 2\n[app.shop.env]\nPORT = \"0\"\n";
    fs::write(place.path().join("phalanx.toml"), file).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["bash", "-c", MANAGER])
        .current_dir(place.path())
        .env("PHALANX", PHALANX)
        .env("HOME", place.path())
        .env("XDG_RUNTIME_DIR", place.path().join("xdg"))
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("PHALANX_RUNTIME_DIR");
    // Each step of the script has a deadline of its own.
    let output = Process::run(command, LIMIT * 4);
    let told: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| line.starts_with("status"))
        .collect();
    let wanted = [
        "status 0: systemctl --user start",
        "status 0: systemctl --user reload",
        "status 1: systemctl --user reload",
        "status 0: systemctl --user is-active",
        "status 0: systemctl --user stop",
        // It has stopped as it was told to.
        "status 1: systemctl --user is-failed",
    ];
    assert_eq!(told, wanted, "{}{}", output.stdout, output.stderr);
}

#[test]
fn what_is_installed_is_enabled_and_a_strangers_unit_stays() {
    let place = place(&["shop"]);
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let systemctl = bin.join("systemctl");
    let said = place.path().join("said");
    fs::write(
        &systemctl,
        format!("#!/bin/sh\necho \"$@\" >> {}\n", said.display()),
    )
    .unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();

    let installed = ask(place.path(), &["--user", "--install"]).expect_success();
    assert!(
        installed
            .stdout
            .contains("systemctl --user start shop.service"),
        "{}",
        installed.stdout
    );
    let calls = fs::read_to_string(&said).unwrap();
    assert_eq!(calls, "--user daemon-reload\n--user enable shop.service\n");
    let unit = place.path().join("config/systemd/user/shop.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert_eq!(values(&text, "WantedBy"), ["default.target"]);

    // Ours is written anew, somebody else's is not.
    ask(place.path(), &["--user", "--install"]).expect_success();
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let refused = ask(place.path(), &["--user", "--install"]);
    assert_eq!(refused.status.code(), Some(73), "{}", refused.stderr);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert!(fs::read_to_string(&unit).unwrap().contains("/bin/true"));
    ask(place.path(), &["--user", "--install", "--force"]).expect_success();
    assert_ne!(
        fs::read_to_string(&unit).unwrap(),
        "[Service]\nExecStart=/bin/true\n"
    );
}

#[test]
fn what_cannot_be_a_unit_is_refused_before_anything_is_written() {
    let place = place(&["shop"]);
    for (words, status, reason) in [
        (&["nothing"][..], 127, "nothing"),
        (&["--run-as", "a b"][..], 64, "USER:GROUP"),
        (&["--listen", "eighty"][..], 64, "ADDRESS:PORT"),
        (&["missing.js"][..], 127, "missing.js"),
        (&["--config", "other.toml"][..], 78, "other.toml"),
    ] {
        let words = [&["--directory", "units"], words].concat();
        let output = ask(place.path(), &words);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{words:?}: {}",
            output.stderr
        );
        assert!(
            output.stderr.contains(reason),
            "{words:?}: {}",
            output.stderr
        );
        assert!(!place.path().join("units").exists(), "{words:?}");
    }
}
