//! The text of units. Nothing here asks the system anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first line of what this command writes; by it a unit of ours is known.
pub(super) const MARK: &str = "# Written by `phalanx unit`";

/// What the units are to say.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Of the unit.
    pub(super) name: String,
    /// The apps of the control socket, which a reload is for.
    pub(super) reload: Reload,
    pub(super) phalanx: PathBuf,
    /// The words after `phalanx`.
    pub(super) words: Vec<String>,
    pub(super) directory: PathBuf,
    /// The user's own service manager runs it.
    pub(super) is_users: bool,
    /// As whom it runs, if not as root.
    pub(super) account: Option<String>,
    /// Directories that programs are found in besides the usual ones.
    pub(super) path: Vec<PathBuf>,
    pub(super) listen: Vec<String>,
    pub(super) capabilities: Vec<&'static str>,
    pub(super) start: Duration,
    pub(super) stop: Duration,
}

/// How the service is reloaded.
#[derive(Clone, Debug)]
pub(super) enum Reload {
    /// By the verb, which tells whether it went well.
    App(String),
    /// By a signal to `phalanx up`.
    Signal,
}

/// What systemd searches when a unit does not say otherwise.
pub(super) const USUAL_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What takes rights from the service that no server needs. What would forbid compiling while running (as JavaScript engines do), writing into
/// the app's directory, or a cgroup for each worker is left out.
const SYSTEM_HARDENING: &str = "\
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
";

/// A user's service manager has no right to change what the service sees of the file system.
const USER_HARDENING: &str = "\
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
";

impl Service {
    pub(super) fn service(&self) -> String {
        let name = &self.name;
        let mut text = format!(
            "{MARK}: {name}.service\n[Unit]\nDescription={}\n",
            self.description()
        );
        text += "Documentation=man:phalanx-run(1)\n";
        if !self.is_users {
            text += "Wants=network-online.target\nAfter=network-online.target\n";
        }
        if !self.listen.is_empty() {
            line(&mut text, "Requires", &format!("{name}.socket"));
            line(&mut text, "After", &format!("{name}.socket"));
        }
        text += "\n[Service]\n";
        self.process(&mut text);
        self.limits(&mut text);
        text += "\n";
        text += if self.is_users {
            USER_HARDENING
        } else {
            SYSTEM_HARDENING
        };
        text += "\n[Install]\n";
        text += if self.is_users {
            "WantedBy=default.target\n"
        } else {
            "WantedBy=multi-user.target\n"
        };
        if !self.listen.is_empty() {
            line(&mut text, "Also", &format!("{name}.socket"));
        }
        text
    }

    /// The socket unit, if systemd is to open listeners.
    pub(super) fn socket(&self) -> Option<String> {
        if self.listen.is_empty() {
            return None;
        }
        let name = &self.name;
        let mut text = format!(
            "{MARK}: {name}.socket\n[Unit]\nDescription=Listeners of {}\n\n[Socket]\n",
            escaped(name)
        );
        for address in &self.listen {
            line(&mut text, "ListenStream", &escaped(address));
        }
        text += "Backlog=4096\n\n[Install]\nWantedBy=sockets.target\n";
        Some(text)
    }

    fn description(&self) -> String {
        format!("{}, run by phalanx", escaped(&self.name))
    }

    fn process(&self, text: &mut String) {
        // The verb `reload` waits and tells by its exit status how it ended, which notify-reload cannot.
        text.push_str("Type=notify\nNotifyAccess=main\n");
        line(text, "WorkingDirectory", &directory(&self.directory));
        line(text, "ExecStart", &command(&self.phalanx, &self.words));
        let reload = match &self.reload {
            Reload::App(app) => command(
                &self.phalanx,
                &["reload".into(), "--name".into(), app.clone()],
            ),
            Reload::Signal => "/bin/kill -HUP $MAINPID".to_owned(),
        };
        line(text, "ExecReload", &reload);
        match &self.account {
            Some(account) => {
                let (user, group) = account.split_once(':').unwrap_or((account, ""));
                line(text, "User", user);
                if !group.is_empty() {
                    line(text, "Group", group);
                }
            }
            None if self.is_users => {}
            None => text.push_str("# The primary runs as root; `user` in phalanx.toml or --run-as USER names somebody with fewer rights.\n"),
        }
        if !self.capabilities.is_empty() {
            line(text, "AmbientCapabilities", &self.capabilities.join(" "));
        }
        line(text, "RuntimeDirectory", &self.name);
        if !self.is_users {
            text.push_str(
                "# Variables that phalanx.toml refers to, as PORT=3000; there need be none.\n",
            );
            line(
                text,
                "EnvironmentFile",
                &format!("-/etc/default/{}", self.name),
            );
        }
        if !self.path.is_empty() {
            let usual = USUAL_PATH.iter().map(Path::new);
            let unusual = self.path.iter().map(PathBuf::as_path);
            let all: Vec<String> = unusual.chain(usual).map(shown).collect();
            line(
                text,
                "Environment",
                &quoted(&format!("PATH={}", all.join(":")), false),
            );
        }
    }

    fn limits(&self, text: &mut String) {
        text.push_str("Restart=on-failure\nRestartSec=1s\n");
        line(text, "TimeoutStartSec", &seconds(self.start));
        line(text, "TimeoutStopSec", &seconds(self.stop));
        text.push_str("WatchdogSec=30s\nKillMode=mixed\nLimitNOFILE=65536\nDelegate=yes\n");
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    text.extend([key, "=", value, "\n"]);
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `%` begins a specifier everywhere (`systemd.unit(5)`).
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// A path is taken as it stands, blanks and quotes included.
fn directory(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

fn command(program: &Path, words: &[String]) -> String {
    let program = std::iter::once(program.to_string_lossy().into_owned());
    let words = program.chain(words.iter().cloned());
    let words: Vec<_> = words.map(|word| quoted(&word, true)).collect();
    words.join(" ")
}

/// A word as `systemd.syntax(7)` and `systemd.service(5)` want it: what is not plain is quoted; in a command, `$` begins a variable.
fn quoted(word: &str, is_command: bool) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=@,+".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for char in word.chars() {
        match char {
            '"' | '\\' => text.extend(['\\', char]),
            '%' => text.push_str("%%"),
            '$' if is_command => text.push_str("$$"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            char if char.is_control() => text.push_str(&unicode(char)),
            char => text.push(char),
        }
    }
    text.push('"');
    text
}

fn unicode(char: char) -> String {
    format!("\\u{:04x}", u32::from(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            name: "shop".into(),
            reload: Reload::App("shop".into()),
            phalanx: "/usr/bin/phalanx".into(),
            words: ["run", "shop"].map(String::from).to_vec(),
            directory: "/srv/my shop".into(),
            is_users: false,
            account: Some("shop:www".into()),
            path: Vec::new(),
            listen: Vec::new(),
            capabilities: Vec::new(),
            start: Duration::from_millis(90_500),
            stop: Duration::from_secs(45),
        }
    }

    fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
        let lines = text.lines();
        lines
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .collect()
    }

    #[test]
    fn a_service_says_how_the_app_starts_reloads_and_stops() {
        let text = service().service();
        assert_eq!(values(&text, "ExecStart"), ["/usr/bin/phalanx run shop"]);
        assert_eq!(
            values(&text, "ExecReload"),
            ["/usr/bin/phalanx reload --name shop"]
        );
        assert_eq!(values(&text, "WorkingDirectory"), ["/srv/my shop"]);
        assert_eq!(
            (values(&text, "User"), values(&text, "Group")),
            (vec!["shop"], vec!["www"])
        );
        assert_eq!(values(&text, "TimeoutStartSec"), ["91s"]);
        assert_eq!(values(&text, "TimeoutStopSec"), ["45s"]);
        assert!(values(&text, "AmbientCapabilities").is_empty());
        assert!(service().socket().is_none());
    }

    #[test]
    fn words_come_out_of_the_quotes_as_they_went_in() {
        for (word, written) in [
            ("--name=shop", "--name=shop"),
            ("two words", "\"two words\""),
            ("100%", "\"100%%\""),
            ("$HOME", "\"$$HOME\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("line\nbreak", "\"line\\nbreak\""),
            ("", "\"\""),
            (";", "\";\""),
        ] {
            assert_eq!(quoted(word, true), written);
        }
        assert_eq!(quoted("PATH=/a b:$x", false), "\"PATH=/a b:$x\"");
    }

    #[test]
    fn a_listener_of_systemd_has_a_socket_unit_that_the_service_needs() {
        let service = Service {
            listen: ["80", "/run/shop/web.sock"].map(String::from).to_vec(),
            ..service()
        };
        let socket = service.socket().unwrap();
        assert_eq!(
            values(&socket, "ListenStream"),
            ["80", "/run/shop/web.sock"]
        );
        let text = service.service();
        assert_eq!(values(&text, "Requires"), ["shop.socket"]);
        assert_eq!(values(&text, "Also"), ["shop.socket"]);
    }

    #[test]
    fn a_users_service_asks_for_nothing_that_only_the_system_can_give() {
        let service = Service {
            is_users: true,
            account: None,
            ..service()
        };
        let text = service.service();
        assert_eq!(values(&text, "WantedBy"), ["default.target"]);
        for key in [
            "User",
            "ProtectSystem",
            "PrivateTmp",
            "PrivateDevices",
            "AmbientCapabilities",
        ] {
            assert!(values(&text, key).is_empty(), "{key}");
        }
    }
}
