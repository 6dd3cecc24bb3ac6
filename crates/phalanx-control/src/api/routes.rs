//! The paths of the control socket. docs/status-schema.md and docs/commands.md describe what lies there.

/// `GET`: the app's state.
pub const STATUS: &str = "/v1/status";
/// `GET`: its workers alone.
pub const WORKERS: &str = "/v1/workers";
/// `GET`: the app's figures as text, in Prometheus' format or `OpenMetrics`, as `Accept` says.
pub const METRICS: &str = "/v1/metrics";
/// `GET`: the app's figures, an object (docs/metrics.md).
pub const METRICS_JSON: &str = "/v1/metrics.json";
/// `POST`: replaces all workers.
pub const RELOAD: &str = "/v1/reload";
/// `POST`: back to the release before.
pub const ROLLBACK: &str = "/v1/rollback";
/// `POST`: changes the number of workers.
pub const SCALE: &str = "/v1/scale";
/// `POST`: replaces workers by others of their release.
pub const RECYCLE: &str = "/v1/recycle";
/// `POST`: has connections that are kept open spread evenly.
pub const REBALANCE: &str = "/v1/rebalance";
/// `POST`: changes the policy.
pub const POLICY: &str = "/v1/policy";
/// `GET`: what a reload would change, of an app that a file describes.
pub const DIFF: &str = "/v1/diff";
/// `POST`: stops the app.
pub const STOP: &str = "/v1/stop";
/// `POST`: sends a message to workers.
pub const MESSAGES: &str = "/v1/messages";
/// `GET`: the last output of the workers, one JSON object a line; with `?follow=true` also what comes, as server-sent events.
pub const LOGS: &str = "/v1/logs";
/// `GET`: the events from now on, as server-sent events.
pub const EVENTS: &str = "/v1/events";
