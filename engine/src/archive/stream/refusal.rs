//! What a server refuses whoever asks again: logins and privileges.

use crate::server::failure::{ServerError, code};
use crate::{Error, ErrorKind};

/// Refusals of the account, in the order of their numbers: of a database, of the password, of the host, of
/// a table, of a column, of a privilege, of an old way to log in (two), of a plugin, of a socket's user, of
/// an expired password (two), of a connection without TLS, of an account that is locked.
const REFUSALS: [u16; 14] = [
    1044,
    code::ACCESS_DENIED,
    1130,
    1142,
    1143,
    code::PRIVILEGE_MISSING,
    1251,
    1275,
    1524,
    1698,
    1820,
    1862,
    3159,
    4151,
];

/// Whether the server refused the account: trying again does not help until somebody changes it.
pub(super) fn is_final(error: &Error) -> bool {
    let code = error.cause().and_then(|cause| cause.downcast_ref::<ServerError>());
    error.kind() == ErrorKind::Server && code.is_some_and(|it| REFUSALS.contains(&it.code))
}

/// The error with what the account needs.
pub(super) fn explained(error: Error, hold: bool) -> Error {
    if !is_final(&error) {
        return error;
    }
    let needed = match hold {
        true => "REPLICATION SLAVE, BINLOG MONITOR, REPLICATION MASTER ADMIN, BINLOG ADMIN",
        false => "REPLICATION SLAVE, BINLOG MONITOR",
    };
    let before = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
    error.advise(format!("{before}the account of a stream needs GRANT {needed} ON *.* TO it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_account_is_told_from_a_server_that_is_away() {
        let refused = |code| {
            let cause = ServerError { code, state: "HY000".to_owned(), message: "no".to_owned() };
            Error::new(ErrorKind::Server, "cannot connect").caused_by(cause).context("stream")
        };
        for code in REFUSALS {
            assert!(is_final(&refused(code)), "{code}");
        }
        // Too many connections, a host that is blocked for now, a server that stops, a log that is gone.
        for code in [1040, 1129, 1053, 1236] {
            assert!(!is_final(&refused(code)), "{code}");
            assert_eq!(explained(refused(code), false).advice(), None);
        }
        assert!(!is_final(&Error::new(ErrorKind::Server, "lost the connection")));
        let advice = explained(refused(1227).advise("look"), false);
        let advice = advice.advice().unwrap_or_default();
        assert!(advice.starts_with("look; ") && advice.contains("REPLICATION SLAVE"), "{advice}");
    }
}
