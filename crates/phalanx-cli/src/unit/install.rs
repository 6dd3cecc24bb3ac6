//! Units written where systemd finds them, and enabled.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use phalanx_sys::identity;

use super::text::{MARK, Service};
use crate::report::{self, Failure, Outcome};
use phalanx_control::exit::Exit;

/// Where an administrator's units lie (`systemd.unit(5)`).
const SYSTEM: &str = "/etc/systemd/system";

/// Writes the units, has systemd read them, and enables them.
pub(super) fn install(service: &Service, force: bool) -> Outcome {
    let directory = if service.is_users {
        users_directory()?
    } else if identity::is_root() {
        PathBuf::from(SYSTEM)
    } else {
        let phalanx = service.phalanx.display();
        let reason = format!(
            "only root installs a unit for the system: sudo env PATH=\"$PATH\" {phalanx} unit --install …, or --user for a unit of your own"
        );
        return Err(Failure::new(Exit::Refused, reason));
    };
    let written = write(service, &directory, force)?;
    systemctl(service, &["daemon-reload"])?;
    // The socket is enabled with the service, which names it as belonging to it.
    systemctl(service, &["enable", &format!("{}.service", service.name)])?;
    let user = if service.is_users { "--user " } else { "" };
    let first = if written.len() > 1 {
        "socket"
    } else {
        "service"
    };
    report::print(&format!(
        "enabled: it runs from the next boot on; now: systemctl {user}start {}.{first}\n",
        service.name
    ))?;
    if service.is_users {
        report::print(
            "a user's services end with the last session unless they linger: loginctl enable-linger\n",
        )?;
    }
    Ok(())
}

/// Writes the units into the directory, which is made if it is missing, and tells their paths.
///
/// # Errors
/// When there are units of somebody else's, and before anything was written.
pub(super) fn write(service: &Service, directory: &Path, force: bool) -> Outcome<Vec<PathBuf>> {
    fs::create_dir_all(directory).map_err(|error| cannot(directory, &error))?;
    let path = |suffix: &str| directory.join(format!("{}.{suffix}", service.name));
    let mut units = vec![(path("service"), service.service())];
    units.extend(service.socket().map(|text| (path("socket"), text)));
    for (path, _) in &units {
        if !force && !may_replace(path)? {
            let reason = format!(
                "{} is there already, and `phalanx unit` has not written it: --force replaces it, --name NAME takes another name",
                path.display()
            );
            return Err(Failure::new(Exit::CannotCreate, reason));
        }
    }
    let mut written = Vec::new();
    for (path, text) in units {
        replace(directory, &path, &text).map_err(|error| cannot(&path, &error))?;
        report::print(&format!("written: {}\n", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::caused(
        Exit::CannotCreate,
        &format!("cannot write {}", path.display()),
        error,
    )
}

fn may_replace(path: &Path) -> Outcome<bool> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.starts_with(MARK)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        // A link that leads to /dev/null is what `systemctl mask` makes; bytes that are no text are not ours.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(Failure::caused(
            Exit::CannotCreate,
            &format!("cannot read {}", path.display()),
            &error,
        )),
    }
}

/// A reader sees the old unit or the new one, never a part.
fn replace(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn users_directory() -> Outcome<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    config
        .map(|config| config.join("systemd/user"))
        .ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                "neither HOME nor XDG_CONFIG_HOME is set: where your units lie cannot be told",
            )
        })
}

fn systemctl(service: &Service, words: &[&str]) -> Outcome {
    let mut command = Command::new("systemctl");
    if service.is_users {
        command.arg("--user");
    }
    let shown = format!(
        "systemctl {}{}",
        if service.is_users { "--user " } else { "" },
        words.join(" ")
    );
    let output = command.args(words).output().map_err(|error| {
        Failure::caused(
            Exit::Failed,
            &format!("the units are written, but {shown} cannot be run"),
            &error,
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = format!("the units are written, but {shown} failed: {}", said.trim());
    Err(Failure::new(Exit::Failed, reason))
}
