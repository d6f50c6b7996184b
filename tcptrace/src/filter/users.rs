//! Users by name and by number, as the system's own look-up (nsswitch.conf) has them.

use std::path::PathBuf;

/// A user's number, given as such or by name.
///
/// # Errors
/// There is no such user.
pub(super) fn uid(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    uzers::get_user_by_name(text)
        .map(|user| user.uid())
        .ok_or_else(|| format!("no user `{text}` on this system; give the number"))
}

/// Where a user is at home; None where the system does not tell.
#[must_use]
pub fn home(uid: u32) -> Option<PathBuf> {
    use uzers::os::unix::UserExt as _;
    uzers::get_user_by_uid(uid).map(|user| user.home_dir().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number() {
        assert_eq!((uid("0"), uid("4294967295"), uid("root")), (Ok(0), Ok(u32::MAX), Ok(0)));
        for wrong in ["no-such-user", "", "-1", "4294967296", "a\0b"] {
            assert_eq!(uid(wrong), Err(format!("no user `{wrong}` on this system; give the number")));
        }
        assert!(home(0).is_some_and(|home| home.is_absolute()) && home(3_999_999).is_none());
    }
}
