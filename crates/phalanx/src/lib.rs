//! Put any server on every core, and never drop a request.
