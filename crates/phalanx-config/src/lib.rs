//! The configuration file of phalanx, `phalanx.toml`: finding it, reading it, telling what is wrong with it, comparing
//! what it says with what runs, its schema, and making one from the files of other tools.
//!
//! Nothing here starts, stops or knows a process. The keys of an app are not listed here either: they are the long flags of
//! `phalanx run`, handed over as [`Keys`] by whoever has their definitions, so that the two cannot drift apart. Only the
//! keys that no flag stands for are known here ([`keys::OWN`]).
//!
//! INVARIANT: no text, however broken, makes anything here panic. A file is read whole, and all that is wrong with it is
//! told at once, each with its line and column.

pub mod app;
pub mod diff;
pub mod dotenv;
pub mod expand;
pub mod file;
pub mod find;
pub mod import;
pub mod keys;
pub mod problem;
pub mod schema;
pub mod toml_text;

mod near;
mod read;

pub use app::{App, Program, Setting};
pub use diff::{Change, compare};
pub use file::{Context, File};
pub use find::{FILE_NAME, find};
pub use keys::{Key, Keys, Kind};
pub use problem::{Place, Problem, Problems};
