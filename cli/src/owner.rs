//! `user:group` as numbers.
//!
//! Names are looked up in `/etc/passwd` and `/etc/group`; users that only a directory service
//! knows are given by number.

use std::fs;

/// Reads `user:group` or `user` (with that user's own group); names or numbers.
pub fn parse(text: &str) -> Result<(u32, u32), String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    resolve(text, &read("/etc/passwd"), &read("/etc/group"))
}

/// [`parse`] with the texts of both files.
fn resolve(text: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let entry = entry_of(passwd, user);
    let uid = user
        .parse()
        .ok()
        .or_else(|| entry.as_ref()?.get(2)?.parse().ok())
        .ok_or_else(|| format!("there is no user '{user}'; a number works too"))?;
    let gid = match group_name {
        Some(name) => name
            .parse()
            .ok()
            .or_else(|| entry_of(group, name)?.get(2)?.parse().ok())
            .ok_or_else(|| format!("there is no group '{name}'; a number works too"))?,
        None => entry
            .as_ref()
            .and_then(|fields| fields.get(3)?.parse().ok())
            .ok_or_else(|| format!("name a group too, as in '{user}:GROUP'"))?,
    };
    Ok((uid, gid))
}

/// The fields of the line that begins with `name`.
fn entry_of<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nmysql:x:106:113:MariaDB:/x:/bin/false\n";
    const GROUP: &str = "root:x:0:\nbackup:x:34:mysql\n";

    #[test]
    fn names_and_numbers() {
        assert_eq!(resolve("mysql:backup", PASSWD, GROUP), Ok((106, 34)));
        assert_eq!(resolve("mysql", PASSWD, GROUP), Ok((106, 113)));
        assert_eq!(resolve("999:34", PASSWD, GROUP), Ok((999, 34)));
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (text, named) in [("nobody:root", "nobody"), ("mysql:x", "'x'"), ("999", "999:GROUP")] {
            let message = resolve(text, PASSWD, GROUP).err().unwrap_or_default();
            assert!(message.contains(named), "{text}: {message}");
        }
        assert!(resolve("", PASSWD, GROUP).is_err());
    }
}
