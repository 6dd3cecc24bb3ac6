//! The pages that show and describe the status say what it is.
#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

use crate::cluster;

use std::collections::BTreeSet;
use std::fs;

use cluster::{app, get};
use phalanx_testkit::{App, fixtures, node, require};
use serde_json::Value;

fn page(name: &str) -> String {
    fs::read_to_string(fixtures::root().join("docs").join(name)).unwrap()
}

/// Apps whose status have as many fields as can be had without trouble: Node, which tells its load, and an intercepted program.
fn apps() -> Vec<App> {
    let mut apps = Vec::new();
    if node::require().is_some() {
        let builder = app().workers(2).options(["--policy", "least-connections"]);
        apps.push(builder.script("http.js").start_ready());
    }
    if let Some(python) = require("python3") {
        let script = fixtures::fixture("programs/binds.py");
        let builder = app().workers(1).command([python]).arg(script);
        let port = cluster::free_port().to_string();
        apps.push(builder.arg("everywhere").arg(port).start_ready());
    }
    apps
}

/// The fields of the tables below a heading.
fn fields(page: &str, heading: &str) -> BTreeSet<String> {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split_once('`').map(|(name, _)| name.to_owned()));
    names.collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_field_of_a_status_is_described() {
    let page = page("status-schema.md");
    for mut app in apps() {
        get(&app.address(), "/");
        let status = app.status();
        let parts = [
            ("The app", vec![&status]),
            (
                "A listener",
                status["listeners"].as_array().unwrap().iter().collect(),
            ),
            (
                "A worker",
                status["workers"].as_array().unwrap().iter().collect(),
            ),
        ];
        for (heading, values) in parts {
            let described = fields(&page, heading);
            assert!(described.len() >= 4, "{heading}: {described:?}");
            for value in values {
                let unknown: Vec<_> = keys(value).difference(&described).cloned().collect();
                assert!(unknown.is_empty(), "{heading}: not described: {unknown:?}");
            }
        }
        assert!(app.stop().success());
    }
}

#[test]
fn the_example_of_a_status_has_the_fields_that_there_are() {
    let page = page("status-schema.md");
    let (_, rest) = page.split_once("\n\n    {\n").unwrap();
    let example = format!("{{{}}}", rest.split("\n    }\n").next().unwrap());
    let example: Value = serde_json::from_str(&example).unwrap();
    let Some(mut app) = apps().into_iter().next() else {
        return;
    };
    let status = app.status();
    let missing = |shown: &Value, real: &Value| -> Vec<String> {
        keys(shown).difference(&keys(real)).cloned().collect()
    };
    assert!(missing(&example, &status).is_empty(), "{status}");
    for part in ["listeners", "workers"] {
        for shown in example[part].as_array().unwrap() {
            let not_there = missing(shown, &status[part][0]);
            assert!(not_there.is_empty(), "{part}: {not_there:?}: {status}");
        }
    }
}

/// The heads of the tables of workers in a text.
fn heads(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.split_whitespace().collect());
    let is_head = |words: &Vec<&str>| words.first() == Some(&"POSITION");
    lines.filter(is_head).collect()
}

#[test]
fn the_examples_of_the_table_have_its_columns() {
    let Some(app) = apps().into_iter().next() else {
        return;
    };
    let shown = app.verb(["status"]).expect_success().stdout;
    let real = heads(&shown);
    assert_eq!(real.len(), 1, "{shown}");
    for name in ["commands.md", "first-five-minutes.md"] {
        let text = page(name);
        let examples = heads(&text);
        assert!(!examples.is_empty(), "{name}");
        for example in examples {
            assert_eq!(example, real[0], "{name}");
        }
    }
}
