//! All end-to-end tests of the command in one program: one link instead of seventy, and one pool of threads. Most tests
//! wait for processes rather than compute, so many of them run at once (`.cargo/config.toml`).

mod cluster;
mod matrix;
mod support;

mod activation;
mod bad_input;
mod batches;
mod broken_releases;
mod capabilities;
mod config_file;
mod control_bounds;
mod control_socket;
mod counted_load;
mod deploys;
mod drill;
mod drill_ends;
mod drill_far;
mod drill_ports;
mod early_listeners;
mod elastic;
mod eleven_ways;
mod failed_starts;
mod far_clients;
mod floods;
mod hang;
mod http2_drain;
mod inherited;
mod intercept;
mod intercept_sockets;
mod io_uring;
mod kernel_dispatch;
mod launchers;
mod leaving;
mod library_apps;
mod liveness;
mod log_files;
mod log_time;
mod logs;
mod metrics;
mod metrics_port;
mod node_addresses;
mod node_advanced;
mod node_dropin;
mod node_dropin_failures;
mod node_dropin_packages;
mod node_full_workers;
mod node_messages;
mod node_options;
mod node_packages;
mod node_primary;
mod node_servers;
mod node_workers;
mod otlp;
mod polite_drain;
mod preload_unseen;
mod privileges;
mod programs;
mod python_metrics;
mod rebalance;
mod recycling;
mod reloads;
mod run;
mod secrets;
mod service;
mod signals;
mod slow_exec;
mod spares;
mod staged;
mod status_pages;
mod supervision;
mod top;
mod trees;
mod trust;
mod unbound;
mod under_load;
mod unit;
mod unix_paths;
mod up;
mod verbs;
mod watch;
mod web_page;
mod web_view;
mod web_view_bounds;
mod worker_output;

#[test]
fn every_file_of_tests_is_part_of_this_program() {
    let directory = phalanx_testkit::fixtures::root().join("crates/phalanx-cli/tests");
    let source = include_str!("e2e.rs");
    for entry in std::fs::read_dir(directory).expect("the tests lie here") {
        let path = entry.expect("a readable directory").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let is_named = source.contains(&format!("\nmod {name};\n"));
        assert!(
            is_named || name == "e2e",
            "tests/e2e.rs does not name {name}"
        );
    }
}
