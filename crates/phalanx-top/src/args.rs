//! What `phalanx top` can be told.

use std::time::Duration;

use clap::Args;
use phalanx_control::names::Name;
use phalanx_control::values;

/// Watch an app live in the terminal, and act on it
///
/// Shows its workers, what they do and why they were replaced, reloads as they go on, and what happens. The key ? lists the keys
/// that reload, roll back, scale, stop a worker and change the policy. Without NAME it offers the running apps. `NO_COLOR` is
/// respected.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Name of the app; not needed if only one is running
    #[arg(value_name = "NAME")]
    app: Option<Name>,

    /// The same, as for the other commands
    #[arg(
        long = "name",
        value_name = "NAME",
        env = "PHALANX_NAME",
        hide_env_values = true
    )]
    name: Option<Name>,

    /// How often to ask the app
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
}

impl TopArgs {
    pub(crate) fn name(&self) -> Option<&Name> {
        self.app.as_ref().or(self.name.as_ref())
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = values::duration(text)?;
    if interval < Duration::from_millis(200) {
        return Err("it must be at least 200ms".to_owned());
    }
    Ok(interval)
}
