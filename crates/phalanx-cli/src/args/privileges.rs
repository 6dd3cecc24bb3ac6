//! The options of `phalanx run` that say as whom workers run, and what that lets them have.

use clap::Args;
use phalanx::{ListenPattern, Settings};
use phalanx_sys::accounts::{self, User};

#[derive(Args, Debug)]
#[command(next_help_heading = "Privileges")]
pub(crate) struct PrivilegeArgs {
    /// Run the workers as this user, without supplementary groups: a name or a number
    #[arg(long, value_name = "USER", value_parser = user)]
    pub(crate) user: Option<Account>,

    /// Run the workers as this group [default: the user's]
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub(crate) group: Option<u32>,

    /// Let workers listen only on matching addresses; can be repeated
    ///
    /// PATTERN is [HOST:]PORT, [HOST:]FIRST-LAST, [HOST:]*, `unix:/PATH`, `unix:@NAME` (with `*`) or fd:N. Without
    /// this option, workers of --user and --group may use the addresses that the first generation opens while it starts, but no
    /// privileged port and no path outside the working directory.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) allow_listen: Vec<ListenPattern>,

    /// Permissions of the files of Unix listeners, such as 660 [default: by the umask]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) unix_mode: Option<u32>,

    /// Owner of the files of Unix listeners
    #[arg(long, value_name = "USER", value_parser = user)]
    pub(crate) unix_owner: Option<Account>,

    /// Group of the files of Unix listeners
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub(crate) unix_group: Option<u32>,
}

/// A user, as far as the system knows it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) known: Option<User>,
}

impl PrivilegeArgs {
    /// Adds what these options say.
    ///
    /// # Errors
    /// When it is not clear which group a user has.
    pub(crate) fn apply(&self, mut settings: Settings) -> Result<Settings, String> {
        if let Some(account) = &self.user {
            let known = account.known.as_ref();
            let gid = self.group.or(known.map(|user| user.gid)).ok_or_else(|| {
                let uid = account.uid;
                format!("the system knows no user {uid}: say its group by --group")
            })?;
            settings = settings.uid(account.uid).gid(gid);
            for (key, value) in known.into_iter().flat_map(variables) {
                settings = settings.env(key, value);
            }
        } else if let Some(gid) = self.group {
            settings = settings.gid(gid);
        }
        for pattern in &self.allow_listen {
            settings = settings.allow_listen(pattern.clone());
        }
        if let Some(mode) = self.unix_mode {
            settings = settings.unix_mode(mode);
        }
        let owner = self.unix_owner.as_ref().map(|account| account.uid);
        Ok(settings.unix_owner(owner, self.unix_group))
    }
}

/// As a login would set them.
fn variables(user: &User) -> [(&'static str, &std::ffi::OsStr); 3] {
    [
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
    ]
}

fn user(text: &str) -> Result<Account, String> {
    let by_name = accounts::user_by_name(text).map_err(|error| error.to_string())?;
    if let Some(user) = by_name {
        return Ok(Account {
            uid: user.uid,
            known: Some(user),
        });
    }
    let uid = number(text).ok_or_else(|| format!("there is no user {text:?}"))?;
    let known = accounts::user_by_uid(uid).map_err(|error| error.to_string())?;
    Ok(Account { uid, known })
}

fn group(text: &str) -> Result<u32, String> {
    let by_name = accounts::group_by_name(text).map_err(|error| error.to_string())?;
    by_name
        .or_else(|| number(text))
        .ok_or_else(|| format!("there is no group {text:?}"))
}

/// The highest number means "unchanged" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("{text:?} is no mode: use octal digits, as 660"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_groups_and_modes_are_read() {
        assert_eq!(user("root").unwrap().uid, 0);
        assert_eq!(user("0").unwrap().known.unwrap().gid, 0);
        assert!(user("no such user").is_err() && user("4294967295").is_err());
        assert_eq!(group("0"), Ok(0));
        assert_eq!(mode("660"), Ok(0o660));
        assert!(mode("888").is_err() && mode("7777").is_err());
    }
}
