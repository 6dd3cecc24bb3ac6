//! Writes docs/openapi.json from the types, and holds it against them. `just openapi` writes it anew.

use std::path::PathBuf;

use axum::http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{
    ChangePolicy, ErrorKind, Event, Failed, GetDifferences, GetSnapshot, GetStatus, GetWorkers,
    Method, Rebalance, Recycle, Reload, Request, Rollback, Scale, SendMessage, Stop, routes,
};

fn document() -> Value {
    use ErrorKind as E;
    let mut api = Writer::new();
    api.question::<GetStatus>("The app's state.", &[]);
    api.question::<GetWorkers>("The app's workers alone.", &[]);
    api.question::<GetSnapshot>("The app's figures (docs/metrics.md).", &[]);
    api.question::<GetDifferences>(
        "What a reload would change, of an app that a file describes.",
        &[E::NoFile, E::DescriptionWrong, E::Lost],
    );
    api.metrics();
    api.events();
    api.logs();
    let command = [E::Stopping, E::Ended, E::Superseded, E::Lost];
    let with = |more: &[E]| [more, &command].concat();
    api.verb::<Reload>(
        "Replaces all workers, one after the other; answers when all are replaced.",
        &with(&[E::RolloutFailed, E::DescriptionWrong]),
    );
    api.verb::<Rollback>(
        "Returns to the release before the present one; a reload under way is undone instead.",
        &with(&[E::NoEarlierRelease, E::RolloutFailed]),
    );
    api.verb::<Scale>("Changes the number of workers.", &with(&[E::ScaleFailed]));
    api.verb::<Recycle>(
        "Replaces workers by others of their release.",
        &with(&[E::RecycleFailed]),
    );
    api.verb::<Rebalance>(
        "Spreads the connections that are kept open evenly; answers when that is so, or after 10 s.",
        &[E::NotRebalanced],
    );
    api.verb::<ChangePolicy>("Changes the policy.", &[E::PolicyNotHere]);
    api.verb::<Stop>(
        "Stops the app; answers when all workers are gone.",
        &with(&[]),
    );
    api.verb::<SendMessage>(
        "Sends a message to workers.",
        &[E::NoSuchWorker, E::NotSent],
    );
    api.finish()
}

struct Writer {
    /// What is sent: a field that may be left out is optional.
    asked: SchemaGenerator,
    /// What comes back: a field that is always written is required.
    answered: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Writer {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            asked: settings.clone().for_deserialize().into_generator(),
            answered: settings.for_serialize().into_generator(),
            paths: Map::new(),
        }
    }

    fn question<R>(&mut self, summary: &str, errors: &[ErrorKind])
    where
        R: Request,
        R::Answer: JsonSchema,
    {
        assert_eq!(R::METHOD, Method::Get);
        let answer = json_of::<R::Answer>(&mut self.answered);
        let responses = self.responses(&answer, errors);
        let operation = json!({"summary": summary, "responses": responses});
        self.add(R::PATH, "get", &operation);
    }

    fn verb<R>(&mut self, summary: &str, errors: &[ErrorKind])
    where
        R: Request + JsonSchema,
        R::Answer: JsonSchema,
    {
        assert_eq!(R::METHOD, Method::Post);
        let general = [ErrorKind::Invalid, ErrorKind::TooSlow, ErrorKind::TooLarge];
        let answer = json_of::<R::Answer>(&mut self.answered);
        let responses = self.responses(&answer, &[&general, errors].concat());
        let is_required = serde_json::from_value::<R>(json!({})).is_err();
        let body = json!({"required": is_required, "content": json_of::<R>(&mut self.asked)});
        let operation = json!({"summary": summary, "requestBody": body, "responses": responses});
        self.add(R::PATH, "post", &operation);
    }

    fn events(&mut self) {
        let event = self.answered.subschema_for::<Event>();
        let about = "Server-sent events from now on: each `data:` line is one event, with more fields than are named here \
                     (docs/events.md).";
        let content = json!({"text/event-stream": {"schema": {
            "type": "string", "contentMediaType": "application/json", "contentSchema": event,
        }}});
        let responses = self.responses(&content, &[ErrorKind::TooManyStreams]);
        let operation =
            json!({"summary": "What happens.", "description": about, "responses": responses});
        self.add(routes::EVENTS, "get", &operation);
    }

    fn metrics(&mut self) {
        let text = json!({"schema": {"type": "string"}});
        let content = json!({"text/plain": text, "application/openmetrics-text": text});
        let responses = self.responses(&content, &[]);
        let summary =
            "The app's figures as text, in Prometheus' format or OpenMetrics (docs/metrics.md).";
        let operation = json!({"summary": summary, "responses": responses});
        self.add(routes::METRICS, "get", &operation);
    }

    fn logs(&mut self) {
        let about =
            "One object for each line (docs/logs.md); followed, one server-sent event for each.";
        let parameter = |(name, about): (&str, &str)| {
            let kind = if name == "follow" {
                "boolean"
            } else {
                "integer"
            };
            json!({"name": name, "in": "query", "description": about, "schema": {"type": kind}})
        };
        let parameters = [
            ("follow", "Go on with what comes, until the app ends."),
            ("lines", "Begin with so many of the last lines."),
            (
                "since",
                "Only lines that were read from then on, in milliseconds since the Unix epoch.",
            ),
            ("position", "Only lines of the workers at this position."),
            ("worker", "Only lines of the worker with this id."),
        ];
        let content = json!({
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/event-stream": {"schema": {"type": "string"}},
        });
        let errors = [
            ErrorKind::Invalid,
            ErrorKind::NoLogs,
            ErrorKind::TooManyStreams,
        ];
        let responses = self.responses(&content, &errors);
        let operation = json!({
            "summary": "The last output of the workers.", "description": about,
            "parameters": parameters.map(parameter), "responses": responses,
        });
        self.add(routes::LOGS, "get", &operation);
    }

    fn responses(&mut self, answer: &Value, errors: &[ErrorKind]) -> Value {
        let mut responses = Map::new();
        responses.insert(
            "200".to_owned(),
            json!({"description": "It is done.", "content": answer}),
        );
        let failed = json_of::<Failed>(&mut self.answered);
        for kind in errors {
            let code = kind.status_code();
            let other = responses.get(&code.to_string());
            let told = other.and_then(|other| other["description"].as_str());
            let told = told.map_or_else(String::new, |told| format!("{told}, "));
            let response = json!({"description": format!("{told}`{kind}`"), "content": failed});
            responses.insert(code.to_string(), response);
        }
        Value::Object(responses)
    }

    fn add(&mut self, path: &str, method: &str, operation: &Value) {
        let before = self
            .paths
            .insert(path.to_owned(), json!({method: operation}));
        assert_eq!(before, None, "{path} is there twice");
    }

    fn finish(mut self) -> Value {
        let mut schemas = self.asked.take_definitions(true);
        schemas.append(&mut self.answered.take_definitions(true));
        let about = "HTTP/1.1 over the Unix socket of a running app. Only the user who runs the app, and root, may connect. \
                     Fields and words are added; none is removed, and none changes its meaning.";
        json!({
            "openapi": "3.1.0",
            "info": {"title": "phalanx control socket", "version": "1", "description": about,
                     "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}},
            "servers": [{"url": "http://localhost", "description": "any host; the socket is what matters"}],
            "paths": self.paths,
            "components": {"schemas": schemas},
        })
    }
}

fn json_of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": schemas.subschema_for::<T>()}})
}

#[test]
fn the_openapi_document_is_that_of_the_types() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let now = format!("{:#}\n", document());
    if std::env::var_os("PHALANX_WRITE_DOCS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "{} is out of date: run 'just openapi'",
        path.display()
    );
}

#[test]
fn every_path_is_in_the_openapi_document() {
    let document = document();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    let source = include_str!("routes.rs");
    let mut routes: Vec<_> = source
        .split('"')
        .filter(|text| text.starts_with("/v1/"))
        .collect();
    routes.sort_unstable();
    assert_eq!(routes, paths);
}

#[test]
fn every_kind_of_error_has_a_status_code() {
    for word in ErrorKind::WORDS {
        let code = StatusCode::from_u16(ErrorKind::from(*word).status_code()).unwrap();
        assert!(code.is_client_error() || code.is_server_error(), "{word}");
    }
}
