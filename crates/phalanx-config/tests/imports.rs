//! Files of other tools become files of ours, and what cannot is named.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "this whole file is a test"
)]

mod support;

use phalanx_config::File;
use phalanx_config::import::{gunicorn, pm2, procfile, puma};
use serde_json::json;
use support::{Reading, keys, read};

/// What was made of it, and that it can be read.
fn file(toml: &str) -> File {
    read(toml).unwrap_or_else(|problems| panic!("{problems}\n{toml}"))
}

/// The keys of `lib/API/schema.json` of PM2 7.0.4.
const PM2_SCHEMA: &str = "script name name_prefix filter_env namespace install_url cwd args exec_interpreter node_args out_file \
    error_file log_file disable_logs log_type log_date_format time env ^env_\\S*$ max_memory_restart pid_file restart_delay \
    exp_backoff_restart_delay source_map_support disable_source_map_support wait_ready instances kill_timeout \
    shutdown_with_message listen_timeout cron_restart merge_logs vizion autostart autorestart stop_exit_codes watch_delay watch \
    ignore_watch watch_options min_uptime max_restarts execute_command exec_mode force append_env_to_name post_update trace \
    disable_trace v8 event_loop_inspector deep_monitoring increment_var instance_var pmx automation treekill port username uid \
    gid windowsHide kill_retry_time write io";

#[test]
fn each_of_the_65_keys_of_pm2_becomes_something_or_is_refused_with_a_reason() {
    let schema: Vec<_> = PM2_SCHEMA.split_whitespace().collect();
    assert_eq!(schema.len(), 65);
    let known: Vec<_> = pm2::KEYS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(known, schema);
    for (name, _, fate) in pm2::KEYS {
        assert!(fate.words().len() > 3, "{name}");
        assert!(pm2::instead(name).is_some(), "{name}");
    }
    // Each of them, set to something, is taken over or named in the output.
    for name in schema
        .iter()
        .filter(|name| !name.starts_with('^') && !["script", "io"].contains(name))
    {
        let value = match *name {
            "env" => json!({"A": "b"}),
            "name" => json!("other"),
            "vizion" | "autostart" | "autorestart" | "pmx" | "automation" | "treekill"
            | "windowsHide" => json!(false),
            "instances" | "port" | "kill_timeout" | "listen_timeout" | "watch_delay" => json!(7),
            _ => json!("7"),
        };
        let plain = pm2::import(&json!({"script": "a.js"}), &keys())
            .unwrap()
            .to_toml();
        let with = pm2::import(&json!({"script": "a.js", (*name): value}), &keys())
            .unwrap()
            .to_toml();
        let may_be_silent =
            ["exec_mode", "vizion", "pmx", "automation", "windowsHide"].contains(name);
        assert!(
            plain != with || may_be_silent,
            "{name} was passed over:\n{with}"
        );
        file(&with);
    }
}

#[test]
fn what_pm2_watches_is_watched() {
    let flags = |app: serde_json::Value| {
        let toml = pm2::import(&app, &keys()).unwrap().to_toml();
        (file(&toml).apps[0].flags(&|key| key == "workers"), toml)
    };
    let (all, toml) = flags(json!({
        "script": "a.js", "watch": ["src", "lib"], "ignore_watch": ["uploads", "[\\/\\\\]\\./"], "watch_delay": 500,
    }));
    let wanted = [
        "--watch",
        "--watch-delay=500ms",
        "--watch-ignore=uploads",
        "--watch-path=src",
        "--watch-path=lib",
    ];
    assert_eq!(all, wanted);
    assert!(toml.contains("# ignore_watch: "), "{toml}");
    let (on, _) = flags(json!({"script": "a.js", "watch": true}));
    assert_eq!(on, ["--watch"]);
    let (off, _) = flags(json!({"script": "a.js", "watch": false, "ignore_watch": ["uploads"]}));
    assert!(off.is_empty(), "{off:?}");
}

#[test]
fn an_ecosystem_becomes_apps() {
    let exported = json!({"apps": [
        {
            "name": "api server", "script": "./server.js", "args": "--port 80 'a b'", "instances": "max", "exec_mode": "cluster",
            "wait_ready": true, "kill_timeout": 3000, "listen_timeout": 10_000, "uid": "www", "cwd": "/srv",
            "env": {"NODE_ENV": "development", "N": 1, "RAW": "${X}"}, "env_production": {"NODE_ENV": "production"},
            "max_restarts": 10, "out_file": "/var/log/x", "merge_logs": true, "autorestart": true, "frobnicate": 1,
        },
        {"script": "jobs.py", "interpreter": "python3.11", "instances": -1, "node_args": []},
        {"script": "w.js", "node_args": "--max-old-space-size=200"},
    ]});
    let imported = pm2::import(&exported, &keys()).unwrap();
    let toml = imported.to_toml();
    let read = file(&toml);
    let names: Vec<_> = read.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["api-server", "jobs", "w"]);
    let api = read.app("api-server").unwrap();
    assert_eq!(api.program.words, ["./server.js", "--port", "80", "a b"]);
    assert_eq!(
        api.flags(&|_| false),
        [
            "--cwd=/srv",
            "--drain-timeout=3000ms",
            "--ready=message",
            "--ready-timeout=10000ms",
            "--user=www",
            "--workers=auto"
        ]
    );
    assert_eq!(api.env["RAW"], "${X}");
    assert_eq!(api.env["N"], "1");
    assert_eq!(
        read.app("jobs").unwrap().program.words,
        ["python3.11", "jobs.py"]
    );
    assert_eq!(
        read.app("w").unwrap().program.words,
        ["node", "--max-old-space-size=200", "w.js"]
    );
    for named in [
        "# max_restarts: ",
        "# out_file: ",
        "# merge_logs: ",
        "# frobnicate: ",
    ] {
        assert!(toml.contains(named), "{named}\n{toml}");
    }
    let production = Reading {
        profile: Some("production"),
        ..Reading::default()
    };
    let production = production.read(&toml).unwrap();
    assert_eq!(
        production.app("api-server").unwrap().env["NODE_ENV"],
        "production"
    );
}

#[test]
fn a_limit_of_memory_keeps_its_size() {
    for (theirs, ours) in [
        (json!("300M"), "300M"),
        (json!(314_572_800), "307200K"),
        (json!("1G"), "1G"),
    ] {
        let app = json!({"script": "a.js", "max_memory_restart": theirs});
        let toml = pm2::import(&app, &keys()).unwrap().to_toml();
        let setting = &file(&toml).apps[0].settings["max-memory"];
        assert_eq!(setting.values, [ours]);
    }
}

#[test]
fn what_is_no_ecosystem_is_refused() {
    for exported in [
        json!(null),
        json!({}),
        json!({"apps": 1}),
        json!({"apps": []}),
        json!([1]),
    ] {
        assert!(pm2::import(&exported, &keys()).is_err(), "{exported}");
    }
}

#[test]
fn a_procfile_becomes_apps() {
    let text = "# what runs\nweb: node server.js --port $PORT\nworker: bundle exec sidekiq\nrelease: a && b > c\nnonsense\n";
    let toml = procfile::import(text, &keys()).to_toml();
    let read = file(&toml);
    assert_eq!(
        read.app("web").unwrap().program.words,
        ["server.js", "--port", "8080"]
    );
    assert_eq!(
        read.app("worker").unwrap().flags(&|_| false),
        ["--adopt=none", "--workers=1"]
    );
    assert_eq!(
        read.app("release").unwrap().program.words,
        ["sh", "-c", "a && b > c"]
    );
    assert!(toml.contains("# line 5: "), "{toml}");
}

#[test]
fn a_configuration_of_gunicorn_becomes_an_app() {
    let text = "import multiprocessing\nbind = ['127.0.0.1:8000',\n  'unix:/run/g.sock']  # two\nworkers = multiprocessing.cpu_count() * 2 + 1\n\
        wsgi_app = \"site.wsgi:app\"\nworker_class = 'gthread'\ngraceful_timeout = 20\nraw_env = [\"A=b\"]\ndaemon = True\n\
        pidfile = None\nuser = find_user()\n\ndef post_fork(server, worker):\n    x = 1\ndef pre_exec(server):\n    pass\n";
    let toml = gunicorn::import("gunicorn.conf.py", text, &keys()).to_toml();
    let read = file(&toml);
    let app = read.app("web").unwrap();
    assert_eq!(
        app.program.words,
        [
            "gunicorn",
            "-c",
            "gunicorn.conf.py",
            "-w",
            "1",
            "site.wsgi:app"
        ]
    );
    assert_eq!(
        app.flags(&|_| false),
        [
            "--bind=127.0.0.1:8000",
            "--bind=unix:/run/g.sock",
            "--drain-timeout=20s",
            "--ready=listen",
            "--workers=auto"
        ]
    );
    assert_eq!(app.env["A"], "b");
    for named in ["# daemon: ", "# user: it is find_user()", "# pre_exec: "] {
        assert!(toml.contains(named), "{named}\n{toml}");
    }
    assert!(
        !toml.contains("pidfile") && !toml.contains("post_fork"),
        "{toml}"
    );
}

#[test]
fn a_configuration_of_puma_becomes_an_app() {
    let text = "workers ENV.fetch(\"WEB_CONCURRENCY\") { 2 }\nthreads 5, 5\nport ENV.fetch(\"PORT\", 3000)\nbind \"unix:///run/p.sock?umask=0111\"\n\
        bind 'ssl://0.0.0.0:443?key=x'\nenvironment \"production\"\npreload_app!\npidfile \"tmp/pid\"\n\non_worker_boot do\n  connect\nend\n";
    let toml = puma::import("config/puma.rb", text, &keys()).to_toml();
    let read = file(&toml);
    let app = read.app("web").unwrap();
    assert_eq!(
        app.program.words[..5],
        ["bundle", "exec", "puma", "-C", "config/puma.rb"]
    );
    assert_eq!(
        app.flags(&|_| false),
        [
            "--bind=0.0.0.0:8080",
            "--bind=unix:/run/p.sock",
            "--workers=2"
        ]
    );
    assert_eq!(app.env["RACK_ENV"], "production");
    for named in ["# bind: it is neither", "# pidfile: ", "# on_worker_boot: "] {
        assert!(toml.contains(named), "{named}\n{toml}");
    }
}

/// `PHALANX_WRITE_DOCS=1` writes the tables instead.
#[test]
fn the_pages_have_the_tables() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, table) in [
        ("migration-pm2.md", pm2::table()),
        ("migration-gunicorn.md", gunicorn::table()),
        ("migration-puma.md", puma::table()),
    ] {
        let page = std::fs::read_to_string(docs.join(name)).unwrap();
        let (before, rest) = page.split_once("<!-- generated -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        let fresh = format!("{before}<!-- generated -->\n{table}<!-- end -->{after}");
        if std::env::var_os("PHALANX_WRITE_DOCS").is_some() {
            std::fs::write(docs.join(name), fresh).unwrap();
        } else {
            assert!(page == fresh, "docs/{name} is stale: run `just schema`");
        }
    }
}

#[test]
fn every_key_that_something_becomes_is_one_that_could_be() {
    for table in [pm2::table(), gunicorn::table(), puma::table()] {
        assert!(table.lines().count() > 30, "{table}");
    }
}
