//! Every key of PM2's schema (`lib/API/schema.json` of PM2 7.0.4), and what becomes of it.

use super::Fate::{self, Key, Otherwise, Refused};

/// The pattern of the schema for `env_production` and the like.
pub(super) const ENV_OF_PROFILE: &str = "^env_\\S*$";

const BACKOFF: Fate = Refused(
    "workers that fail are started again by exponential backoff with jitter, and never given up",
);
const MONITORING: Fate =
    Refused("it is for PM2's paid monitoring; `phalanx status` and `phalanx events` are free");
const OUTPUT: Fate =
    Refused("there is one file for both streams: `log-file`; under systemd they go to the journal");
const SOURCE_MAPS: Fate =
    Refused("phalanx loads no source maps: put --enable-source-maps into NODE_OPTIONS");

/// The keys, their other names, and what becomes of them.
pub const KEYS: &[(&str, &[&str], Fate)] = &[
    ("script", &["exec"], Key("script")),
    (
        "name",
        &[],
        Otherwise("the name of the table: `[app.NAME]`"),
    ),
    ("name_prefix", &[], Refused("write the whole name")),
    (
        "filter_env",
        &[],
        Refused(
            "workers have the environment of phalanx: start it with the one that they shall have",
        ),
    ),
    (
        "namespace",
        &[],
        Refused("`phalanx up` and `phalanx down` take names of apps"),
    ),
    ("install_url", &[], Refused("phalanx installs nothing")),
    ("cwd", &[], Key("cwd")),
    ("args", &[], Key("args")),
    (
        "exec_interpreter",
        &["interpreter"],
        Otherwise("`node`, or the first word of `command`"),
    ),
    (
        "node_args",
        &["interpreterArgs", "interpreter_args"],
        Otherwise("words of `command`, before the script"),
    ),
    ("out_file", &["out", "output", "out_log"], OUTPUT),
    (
        "error_file",
        &["error", "err", "err_file", "err_log"],
        OUTPUT,
    ),
    ("log_file", &["log"], Key("log-file")),
    (
        "disable_logs",
        &[],
        Refused(
            "there is a file only where `log-file` says so; `log-memory = \"0\"` keeps nothing in memory either",
        ),
    ),
    (
        "log_type",
        &[],
        Refused("the form of the log is an option of the command: `phalanx up --log-format json`"),
    ),
    (
        "log_date_format",
        &[],
        Refused("`phalanx up --log-time always` puts the time in front of each line"),
    ),
    (
        "time",
        &[],
        Refused("`phalanx up --log-time always` puts the time in front of each line"),
    ),
    ("env", &[], Otherwise("`[app.NAME.env]`")),
    (
        ENV_OF_PROFILE,
        &[],
        Otherwise("`[profile.P.app.NAME.env]`, with `--profile P`"),
    ),
    ("max_memory_restart", &[], Key("max-memory")),
    ("pid_file", &["pid"], Key("pid-file")),
    ("restart_delay", &[], BACKOFF),
    ("exp_backoff_restart_delay", &[], BACKOFF),
    ("source_map_support", &[], SOURCE_MAPS),
    ("disable_source_map_support", &[], SOURCE_MAPS),
    ("wait_ready", &[], Otherwise("`ready = \"message\"`")),
    (
        "instances",
        &[],
        Otherwise("`workers`; 0 and max are `\"auto\"`"),
    ),
    ("kill_timeout", &[], Key("drain-timeout")),
    (
        "shutdown_with_message",
        &[],
        Refused(
            "a Node worker learns by the event 'disconnect' of process that it is to leave, and gets --stop-signal if that takes too long",
        ),
    ),
    ("listen_timeout", &[], Key("ready-timeout")),
    (
        "cron_restart",
        &["cron"],
        Refused("let cron(8) or a timer of systemd run `phalanx reload --name NAME`"),
    ),
    (
        "merge_logs",
        &["combine_logs"],
        Refused("there is one log of all workers anyway"),
    ),
    ("vizion", &[], Refused("phalanx looks into no repository")),
    (
        "autostart",
        &[],
        Refused("`phalanx up NAME…` says which apps to start"),
    ),
    (
        "autorestart",
        &[],
        Refused(
            "a worker that ends is always replaced; run a program that is to end by other means",
        ),
    ),
    (
        "stop_exit_codes",
        &[],
        Refused("a worker that ends is always replaced, whatever its status"),
    ),
    ("watch_delay", &[], Key("watch-delay")),
    ("watch", &[], Key("watch")),
    ("ignore_watch", &[], Key("watch-ignore")),
    ("watch_options", &[], Refused("they are chokidar's")),
    ("min_uptime", &[], BACKOFF),
    ("max_restarts", &[], BACKOFF),
    (
        "execute_command",
        &[],
        Refused("a program is written as `command`"),
    ),
    (
        "exec_mode",
        &[],
        Otherwise("nothing: all workers share their listeners, as in cluster mode"),
    ),
    ("force", &[], Refused("give the second app another name")),
    (
        "append_env_to_name",
        &[],
        Refused("name the app in the profile"),
    ),
    (
        "post_update",
        &[],
        Refused("phalanx pulls no code: run `phalanx reload` after it was deployed"),
    ),
    ("trace", &[], MONITORING),
    ("disable_trace", &[], MONITORING),
    ("v8", &[], MONITORING),
    ("event_loop_inspector", &[], MONITORING),
    ("deep_monitoring", &[], MONITORING),
    (
        "increment_var",
        &[],
        Refused("add PHALANX_POSITION (0, 1, …) to a number in the app"),
    ),
    (
        "instance_var",
        &[],
        Refused("the position is in NODE_APP_INSTANCE and PHALANX_POSITION"),
    ),
    ("pmx", &[], MONITORING),
    ("automation", &[], MONITORING),
    (
        "treekill",
        &[],
        Refused("what a worker has started ends with it, always"),
    ),
    ("port", &[], Otherwise("`PORT` in `[app.NAME.env]`")),
    (
        "username",
        &[],
        Refused("PM2 notes the user who started the app there; for another one, use user"),
    ),
    ("uid", &["user"], Key("user")),
    ("gid", &[], Key("group")),
    ("windowsHide", &[], Refused("phalanx runs on Linux")),
    (
        "kill_retry_time",
        &[],
        Refused("the end of a process is waited for, not looked after"),
    ),
    ("write", &[], Refused("phalanx writes no file of its own")),
    ("io", &[], MONITORING),
];
