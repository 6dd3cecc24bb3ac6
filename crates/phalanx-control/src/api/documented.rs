//! Holds the pages about the API against its types.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;

use super::{ErrorKind, ListenerStatus, PositionFigures, Snapshot, Status, WorkerStatus};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in the first column of the table below a heading, with whether the row says that they may be absent.
fn table(page: &str, heading: &str) -> BTreeSet<(String, bool)> {
    let section = page.split(&format!("## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((
            name.to_owned(),
            rest.split(" | ").next()?.contains("absent"),
        ))
    };
    section.lines().filter_map(row).collect()
}

/// The fields of a type, with whether they may be absent from what is written.
fn fields<T: JsonSchema>() -> BTreeSet<(String, bool)> {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let required = schema.get("required").and_then(|list| list.as_array());
    let is_required = |name: &str| {
        let mut names = required.into_iter().flatten();
        names.any(|one| one == name)
    };
    let properties = schema.get("properties").and_then(|map| map.as_object());
    let names = properties.unwrap().keys();
    names
        .map(|name| (name.clone(), !is_required(name)))
        .collect()
}

#[test]
fn the_page_about_the_status_tells_every_field_and_no_other() {
    let page = page("status-schema.md");
    let mut app = fields::<Status>();
    // Absent in the status of an older primary only.
    assert!(app.remove(&("adoption".to_owned(), true)));
    app.insert(("adoption".to_owned(), false));
    assert_eq!(table(&page, "The app"), app);
    assert_eq!(table(&page, "A listener"), fields::<ListenerStatus>());
    assert_eq!(table(&page, "A worker"), fields::<WorkerStatus>());
}

#[test]
fn the_page_about_the_socket_tells_every_path_and_every_kind_of_error() {
    let page = page("commands.md");
    let section = page.split("\n## The control socket\n").nth(1).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let (mut paths, mut errors) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let first = row.split(" | ").next().unwrap().trim_matches('`');
        if let Some((_, path)) = first.split_once(' ') {
            paths.insert(path.to_owned());
        } else if let Ok(code) = first.parse::<u16>() {
            let kinds = row.split('`').skip(1).step_by(2);
            errors.extend(kinds.map(|kind| (kind.to_owned(), code)));
        }
    }
    let source = include_str!("routes.rs").split('"');
    let routes = source.filter(|text| text.starts_with("/v1/"));
    assert_eq!(paths, routes.map(str::to_owned).collect());
    let kinds = ErrorKind::WORDS.iter().map(|word| {
        let kind = ErrorKind::from(*word);
        (kind.to_string(), kind.status_code())
    });
    assert_eq!(errors, kinds.collect());
}

#[test]
fn the_page_about_the_figures_tells_every_field_and_no_other() {
    let page = page("metrics.md");
    let names = |fields: BTreeSet<(String, bool)>| -> BTreeSet<String> {
        fields.into_iter().map(|(name, _)| name).collect()
    };
    let told = |heading| {
        let rows = names(table(&page, heading)).into_iter();
        let names = rows.flat_map(|row| row.split("`, `").map(str::to_owned).collect::<Vec<_>>());
        names.collect::<BTreeSet<String>>()
    };
    assert_eq!(told("The snapshot"), names(fields::<Snapshot>()));
    assert_eq!(told("A position"), names(fields::<PositionFigures>()));
}
