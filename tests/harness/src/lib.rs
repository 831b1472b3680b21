//! Private MariaDB servers and random load for the tests.
