//! The server as the engine sees it: option files, connection, profile, locks, positions.

use std::path::PathBuf;

/// How to reach the server.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Host name or address; `localhost` means the socket unless a port was asked for.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// Unix socket.
    pub socket: Option<PathBuf>,
    /// User name; the operating system's user when unset.
    pub user: Option<String>,
    /// Password. Never printed.
    pub password: Option<String>,
    /// TLS settings.
    pub tls: TlsOptions,
}

/// TLS settings, in the client's own words.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Use TLS (`--ssl`).
    pub enabled: bool,
    /// Certificate authority file (`--ssl-ca`).
    pub ca: Option<PathBuf>,
    /// Client certificate (`--ssl-cert`).
    pub cert: Option<PathBuf>,
    /// Client key (`--ssl-key`).
    pub key: Option<PathBuf>,
    /// Check the server's certificate and name (`--ssl-verify-server-cert`).
    pub verify: bool,
}
