//! Redo log of MariaDB 10.8 and later: headers, mini-transactions, records, effects.
