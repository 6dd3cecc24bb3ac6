//! Policies of your own: what chooses the worker for a connection.
//!
//! A [`Policy`] sees the positions that may have a connection now, their loads and the client's
//! address, and picks one. Give it to [`Builder::custom_policy`](crate::Builder::custom_policy) or
//! [`Cluster::set_custom_policy`](crate::Cluster::set_custom_policy); connections are handed over then. The
//! policies that phalanx brings are here too, to build upon: [`PolicyName::create`].
//!
//! ```
//! use phalanx::Position;
//! use phalanx::policy::{Field, Policy};
//!
//! /// The lowest position that has fewer than ten connections open, else the first.
//! #[derive(Debug)]
//! struct FillUp;
//!
//! impl Policy for FillUp {
//!     fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
//!         let mut eligible = field.eligible.iter();
//!         let free = eligible.find(|&position| field.loads.load(position).open < 10);
//!         free.or_else(|| field.eligible.first())
//!     }
//! }
//!
//! let builder = phalanx::builder().custom_policy(|| Box::new(FillUp));
//! ```

use std::sync::Arc;

pub use phalanx_core::policy::{
    ClientHash, Field, Load, Loads, Policy, PolicyName, PositionSet, Weights,
};

/// Makes a policy, for each listener one.
pub type MakePolicy = Arc<dyn Fn() -> Box<dyn Policy> + Send + Sync>;
