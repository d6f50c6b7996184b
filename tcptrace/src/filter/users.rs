//! Users by name and by number, as /etc/passwd has them.

use std::fs;

const PASSWD: &str = "/etc/passwd";

/// A user's number, given as such or by name.
///
/// # Errors
/// There is no such user.
pub(super) fn uid(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    // Without the file there are no names.
    let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
    let found = users(&passwd).find(|user| user.name == text).map(|user| user.uid);
    found.ok_or_else(|| format!("no user `{text}` in {PASSWD}; give the number"))
}

/// Where a user is at home; None where /etc/passwd does not tell.
#[must_use]
pub fn home(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string(PASSWD).ok()?;
    users(&passwd).find(|user| user.uid == uid).map(|user| user.home.to_owned())
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    home: &'a str,
}

/// passwd(5): name, password, uid, gid, comment, home, shell.
fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some(User { name, uid, home: fields.nth(2)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number() {
        assert_eq!((uid("0"), uid("4294967295"), uid("root")), (Ok(0), Ok(u32::MAX), Ok(0)));
        for wrong in ["no-such-user", "", "-1", "4294967296"] {
            assert_eq!(uid(wrong), Err(format!("no user `{wrong}` in /etc/passwd; give the number")));
        }
    }

    #[test]
    fn lines_that_are_no_users_are_passed_over() {
        let text = "# a comment\n+::::::\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:33:,,,:/var/www:/usr/sbin/nologin\n";
        let found: Vec<_> = users(text).map(|u| (u.name, u.uid, u.home)).collect();
        assert_eq!(found, [("root", 0, "/root"), ("web", 33, "/var/www")]);
    }
}
