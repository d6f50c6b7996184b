//! As whom a command runs: a name, or who called sudo, in; user, groups and environment out.

use std::{env, ffi::OsString, io, path::PathBuf, process::Command};

use uzers::os::unix::UserExt as _;

use crate::error::{Error, Result};

/// Variables by which programs that make others root say who called them: user and, where it is told, group.
const CALLERS: [(&str, Option<&str>); 2] = [("SUDO_UID", Some("SUDO_GID")), ("PKEXEC_UID", None)];
/// What they leave in the environment, which is no business of the command.
const TRACES: [&str; 6] = ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "PKEXEC_UID", "MAIL"];

/// Another user than the one who runs tcptrace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Name, home directory and shell; None: the system does not know the number.
    known: Option<(OsString, PathBuf, PathBuf)>,
}

impl User {
    /// The user that is `asked` for, by name or number, or, if tcptrace is run by root for somebody, that one; None: who runs it.
    ///
    /// # Errors
    /// There is none of that name, or only root can become it.
    pub fn wanted(asked: Option<&str>) -> Result<Option<Self>> {
        let own = rustix::process::geteuid().as_raw();
        let user = match asked {
            Some(name) => Some(Self::named(name).ok_or_else(|| Error::Usage(format!("--user: no user `{name}`")))?),
            None if own == 0 => Self::of_caller()?,
            None => None,
        };
        let user = user.filter(|user| user.uid != own);
        if own != 0 && user.is_some() {
            return Err(Error::NotPermitted {
                operation: "running a command as another user".to_owned(),
                capability: "CAP_SETUID".to_owned(),
            });
        }
        Ok(user)
    }

    fn named(name: &str) -> Option<Self> {
        let user = match name.parse() {
            Ok(uid) => uzers::get_user_by_uid(uid),
            Err(_) => uzers::get_user_by_name(name),
        };
        user.map(|user| Self::of(&user))
    }

    /// None: nobody says that it called.
    fn of_caller() -> Result<Option<Self>> {
        let Some((uid, gid)) = CALLERS.iter().find(|(uid, _)| env::var_os(uid).is_some()) else { return Ok(None) };
        let user = number(uid).and_then(|number_of| Self::caller(number_of, gid.and_then(number)));
        // It must not run as root because of that.
        user.map(Some)
            .ok_or_else(|| Error::Usage(format!("{uid} names no user: say with --user who COMMAND is to run as")))
    }

    fn caller(uid: u32, gid: Option<u32>) -> Option<Self> {
        match uzers::get_user_by_uid(uid) {
            Some(user) => Some(Self::of(&user)),
            None => gid.map(|gid| Self { uid, gid, groups: vec![gid], known: None }),
        }
    }

    fn of(user: &uzers::User) -> Self {
        let gid = user.primary_group_id();
        let groups = user.groups().map_or_else(|| vec![gid], |groups| groups.iter().map(uzers::Group::gid).collect());
        let known = (user.name().to_owned(), user.home_dir().to_owned(), user.shell().to_owned());
        Self { uid: user.uid(), gid, groups, known: Some(known) }
    }

    /// Give a command the environment of its user.
    pub fn prepare(&self, command: &mut Command) {
        for name in TRACES {
            command.env_remove(name);
        }
        if let Some((name, home, shell)) = &self.known {
            command.env("USER", name).env("LOGNAME", name).env("HOME", home).env("SHELL", shell);
        }
    }

    /// Become it, for good. System calls alone: for use between fork and exec.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn become_it(&self) -> io::Result<()> {
        // SAFETY: a list of groups and its length; numbers.
        unsafe {
            for done in [
                libc::setgroups(self.groups.len(), self.groups.as_ptr()),
                libc::setresgid(self.gid, self.gid, self.gid),
                libc::setresuid(self.uid, self.uid, self.uid),
            ] {
                if done != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    }
}

fn number(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = User::named("root").expect("every system has one");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(User::named("0"), Some(root));
        assert_eq!(User::named("no such user"), None);
    }

    #[test]
    fn a_caller_without_an_account_has_the_group_that_was_told() {
        let user = User::caller(3_999_999, Some(7)).expect("a group was told");
        assert_eq!((user.uid, user.gid, user.groups, user.known), (3_999_999, 7, vec![7], None));
        assert_eq!(User::caller(3_999_999, None), None);
    }
}
