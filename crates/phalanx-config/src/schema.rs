//! The JSON schema of the file, by which editors complete and check it, and the page of its keys.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::keys::{Key, Keys, Kind, OWN};

/// Where the schema lies.
pub const ADDRESS: &str =
    "https://raw.githubusercontent.com/phalanx-rs/phalanx/main/docs/phalanx.schema.json";

/// The schema of files with these keys, as JSON text.
#[must_use]
pub fn schema(keys: &Keys) -> String {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": ADDRESS,
        "title": "phalanx.toml",
        "description": "The apps that phalanx runs",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "app": apps("The apps, by their names"),
            "profile": {
                "description": "Profiles, by their names: what is otherwise under --profile",
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {"app": apps("What is otherwise, by the names of the apps")},
                },
            },
        },
        "definitions": {"app": app(keys)},
    });
    format!("{schema:#}\n")
}

fn apps(description: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": {"$ref": "#/definitions/app"},
    })
}

fn app(keys: &Keys) -> Value {
    let mut properties = Map::new();
    for (name, help) in OWN {
        let mut of_key = own(name);
        of_key["description"] = json!(help);
        properties.insert(name.to_owned(), of_key);
    }
    for key in keys.iter() {
        properties.insert(key.name.clone(), property(key));
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn own(name: &str) -> Value {
    let words = || json!({"type": "array", "items": {"type": "string"}});
    match name {
        "script" => json!({"type": "string"}),
        "env_file" => json!({"anyOf": [{"type": "string"}, words()]}),
        "env" => {
            json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
        }
        _ => words(),
    }
}

fn property(key: &Key) -> Value {
    let mut one = match key.kind {
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Text if !key.choices.is_empty() => {
            // A variable may stand in the place of each.
            json!({"anyOf": [{"enum": key.choices}, {"type": "string", "pattern": "\\$\\{"}]})
        }
        Kind::Text => json!({"type": "string"}),
        Kind::NumberOrText => json!({"type": ["integer", "string"]}),
    };
    if key.is_list {
        one = json!({"anyOf": [one, {"type": "array", "items": one}]});
    }
    one["description"] = json!(key.help);
    if let Some(default) = &key.default {
        one["default"] = match key.kind {
            Kind::Switch => json!(default == "true"),
            Kind::Text | Kind::NumberOrText => json!(default),
        };
    }
    one
}

/// The page of the keys, as Markdown. `is_applied` says whether a reload applies a change of a key.
#[must_use]
pub fn page(keys: &Keys, is_applied: &dyn Fn(&str) -> bool) -> String {
    let mut page = "# The keys of an app\n\nMade by `phalanx generate keys`; how to use them: [configuration.md](configuration.md). \
        What each means in full: `phalanx help run`.\n\n| key | value | without it | meaning | at a reload |\n|---|---|---|---|---|\n"
        .to_owned();
    for key in keys.iter() {
        let value = match key.kind {
            Kind::Switch => "`true` or `false`".to_owned(),
            Kind::Text if !key.choices.is_empty() => key.choices.join(", "),
            Kind::Text => "text".to_owned(),
            Kind::NumberOrText => "number or text".to_owned(),
        };
        let list = if key.is_list { ", or a list" } else { "" };
        let default = key
            .default
            .as_ref()
            .map_or(String::new(), |text| format!("`{text}`"));
        let reload = if is_applied(&key.name) {
            "applied"
        } else {
            "needs a stop and a start"
        };
        let row = [
            format!("`{}`", key.name),
            format!("{value}{list}"),
            default,
            key.help.clone(),
            reload.to_owned(),
        ];
        let row = row.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        writeln!(page, "| {} |", row.join(" | ")).unwrap_or_default();
    }
    page
}
