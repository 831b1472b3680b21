//! How to reach the server: arguments over variables over the usual option files.
//!
//! There is no password argument, because anyone on the machine can read the arguments of a
//! process: it comes from an option file or from a variable.

use std::path::PathBuf;

use clap::Args;
use engine::server::option_file::{DefaultsChoice, OptionFiles};
use engine::server::{ConnectOptions, TlsOptions};
use engine::{Reporter, Result};

/// Connection arguments. Option files are read as the server's own client programs read them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Read only this option file [env: HAULOUT_DEFAULTS_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "no_defaults")]
    defaults_file: Option<PathBuf>,
    /// Read this option file too, after the global ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_defaults", "defaults_file"])]
    defaults_extra_file: Option<PathBuf>,
    /// Read no option file
    #[arg(long)]
    no_defaults: bool,
    /// Host of the server; the server's files must be readable here
    #[arg(long, value_name = "NAME", env = "HAULOUT_HOST")]
    host: Option<String>,
    /// TCP port
    #[arg(long, value_name = "NUMBER", env = "HAULOUT_PORT")]
    port: Option<u16>,
    /// Unix socket
    #[arg(long, value_name = "FILE", env = "HAULOUT_SOCKET")]
    socket: Option<PathBuf>,
    /// User name; the password comes from an option file (group [client] or [haulout]) or from
    /// HAULOUT_PASSWORD
    #[arg(long, value_name = "NAME", env = "HAULOUT_USER")]
    user: Option<String>,
    /// Use TLS; naming a certificate implies it
    #[arg(long)]
    ssl: bool,
    /// Certificate authority that must have signed the server's certificate
    #[arg(long, value_name = "FILE", env = "HAULOUT_SSL_CA")]
    ssl_ca: Option<PathBuf>,
    /// Client certificate
    #[arg(long, value_name = "FILE", env = "HAULOUT_SSL_CERT")]
    ssl_cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", env = "HAULOUT_SSL_KEY")]
    ssl_key: Option<PathBuf>,
    /// Check the server's certificate and name
    #[arg(long)]
    ssl_verify_server_cert: bool,
}

impl Connection {
    /// Everything that was said about the connection, by any means.
    pub fn resolve(self, reporter: &dyn Reporter) -> Result<ConnectOptions> {
        let files = OptionFiles::load(&self.choice(std::env::var_os("HAULOUT_DEFAULTS_FILE")))?;
        for warning in files.warnings() {
            reporter.warn(warning.clone());
        }
        Ok(ConnectOptions::from_option_files(&files)?.overlaid_with(self.typed()))
    }

    /// Which option files to read. The variable counts only when no argument decides.
    fn choice(&self, variable: Option<std::ffi::OsString>) -> DefaultsChoice {
        let decided = self.no_defaults || self.defaults_extra_file.is_some();
        let variable = variable.filter(|file| !decided && !file.is_empty()).map(PathBuf::from);
        DefaultsChoice {
            no_defaults: self.no_defaults,
            file: self.defaults_file.clone().or(variable),
            extra_file: self.defaults_extra_file.clone(),
            group_suffix: None,
        }
    }

    /// The settings of arguments and `HAULOUT_*` variables.
    fn typed(self) -> ConnectOptions {
        ConnectOptions {
            host: self.host,
            port: self.port,
            socket: self.socket,
            user: self.user,
            tls: TlsOptions {
                enabled: self.ssl,
                ca: self.ssl_ca,
                cert: self.ssl_cert,
                key: self.ssl_key,
                verify: self.ssl_verify_server_cert,
                ..TlsOptions::default()
            },
            ..ConnectOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_an_option_file_unless_an_argument_decides() {
        let variable = || Some("/v.cnf".into());
        let file = |connection: Connection| connection.choice(variable()).file;
        assert_eq!(file(Connection::default()), Some("/v.cnf".into()));
        let named = Connection { defaults_file: Some("/f.cnf".into()), ..Connection::default() };
        assert_eq!(file(named), Some("/f.cnf".into()));
        assert_eq!(file(Connection { no_defaults: true, ..Connection::default() }), None);
    }
}
