//! How to reach the server.
//!
//! Settings come, from weak to strong, from the client's environment variables, the option
//! files, `HAULOUT_PASSWORD`, and the command line. A socket wins over a port of the same
//! strength, because the option files of distributions name both and mean the socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::TlsOptions;
use super::option_file::{OptionFiles, OptionValue};
use crate::{Error, ErrorKind, Result};

/// Option groups of every client program.
pub const CLIENT_GROUPS: &[&str] = &["client", "client-server", "client-mariadb"];
/// Option groups of the backup tool. They win over those of clients, wherever they stand.
pub const TOOL_GROUPS: &[&str] = &["xtrabackup", "mariabackup", "mariadb-backup", "haulout"];

/// Where servers of the common distributions listen.
const DEFAULT_SOCKETS: &[&str] =
    &["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"];

/// This machine, where a name could mean another one.
const LOOPBACK: &str = "127.0.0.1";
/// The port that a server listens on unless told otherwise.
const DEFAULT_PORT: u16 = 3306;

/// How to reach the server.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Host name or address; `localhost` means the socket unless a port was asked for.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// Unix socket.
    pub socket: Option<PathBuf>,
    /// Socket or TCP, where the user insists.
    pub protocol: Option<Protocol>,
    /// User name; the operating system's user when unset.
    pub user: Option<String>,
    /// Password. Never printed.
    pub password: Option<String>,
    /// TLS settings.
    pub tls: TlsOptions,
    /// No TLS, whatever the settings say (`--skip-ssl`).
    pub skip_tls: bool,
    /// How long connecting may take; ten seconds when unset.
    pub connect_timeout: Option<Duration>,
}

/// `--protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, also to `localhost`.
    Tcp,
    /// The Unix socket.
    Socket,
}

/// Everything but the password.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("socket", &self.socket)
            .field("protocol", &self.protocol)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("tls", &self.tls)
            .field("skip_tls", &self.skip_tls)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// The one place that a connection goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Socket(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

/// As messages name it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Tcp(host, port) => write!(f, "{host} port {port}"),
        }
    }
}

impl ConnectOptions {
    /// What the option files and the environment of this process say.
    pub fn from_option_files(files: &OptionFiles) -> Result<Self> {
        Self::from_sources(files, &|name| std::env::var(name).ok())
    }

    /// What the option files and the environment say, with the environment as a function.
    pub fn from_sources(
        files: &OptionFiles,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        Self::from_groups(files, &[CLIENT_GROUPS, TOOL_GROUPS], environment)
    }

    /// The same for programs that read other groups, the stronger ones last.
    pub fn from_groups(
        files: &OptionFiles,
        groups: &[&[&str]],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut found = Self {
            password: environment("MYSQL_PWD"),
            socket: environment("MYSQL_UNIX_PORT").filter(|v| !v.is_empty()).map(PathBuf::from),
            ..Self::default()
        };
        if let Some(text) = environment("MYSQL_TCP_PORT").filter(|v| !v.is_empty()) {
            found.port = Some(parse_port(&text, "the variable MYSQL_TCP_PORT")?);
        }
        for option in groups.iter().flat_map(|groups| files.options(groups)) {
            found.set(&option)?;
        }
        if let Some(password) = environment("HAULOUT_PASSWORD") {
            found.password = Some(password);
        }
        // A port in an option file is the server's port; it does not mean TCP to localhost.
        if found.port.is_some() && found.socket.is_none() && found.is_local_host() {
            found.socket = Some(default_socket());
        }
        Ok(found)
    }

    /// Takes over one option of an option file. Options that do not concern the connection are
    /// left to others.
    fn set(&mut self, option: &OptionValue) -> Result<()> {
        let text = || option.value.clone().unwrap_or_default();
        let path = || Some(PathBuf::from(text())).filter(|p| !p.as_os_str().is_empty());
        match option.name.as_str() {
            "host" => self.host = Some(text()).filter(|v| !v.is_empty()),
            "port" => {
                let port = parse_port(&text(), &format!("port in {}", option.origin))?;
                self.port = Some(port).filter(|p| *p != 0);
            }
            "socket" => self.socket = path(),
            "protocol" => self.protocol = parse_protocol(&text(), &option.origin.to_string())?,
            "user" => self.user = Some(text()).filter(|v| !v.is_empty()),
            "password" => self.password = option.value.clone(),
            "ssl" => {
                self.tls.enabled = option.is_on();
                self.skip_tls = !option.is_on();
            }
            "ssl-verify-server-cert" => self.tls.verify = option.is_on(),
            "connect-timeout" => {
                let seconds = text().parse().map_err(|_| {
                    Error::new(
                        ErrorKind::Usage,
                        format!("{}: '{}' is not a number of seconds", option.origin, text()),
                    )
                })?;
                self.connect_timeout = Some(Duration::from_secs(seconds));
            }
            name => {
                self.tls.set(name, &text());
                self.skip_tls &= !TlsOptions::asks(name) || text().is_empty();
            }
        }
        Ok(())
    }

    /// These settings with those of the command line on top.
    #[must_use]
    pub fn overlaid_with(mut self, command_line: Self) -> Self {
        let asks_for_tcp = command_line.socket.is_none()
            && (command_line.port.is_some() || !command_line.is_local_host());
        if asks_for_tcp {
            // Whoever types a port or another host does not want the socket of the option files.
            self.socket = None;
        }
        if command_line.socket.is_some() && command_line.host.is_none() {
            self.host = None;
        }
        if asks_for_tcp || command_line.socket.is_some() {
            self.protocol = None;
        }
        self.host = command_line.host.or(self.host);
        self.port = command_line.port.or(self.port);
        self.socket = command_line.socket.or(self.socket);
        self.protocol = command_line.protocol.or(self.protocol);
        self.user = command_line.user.or(self.user);
        self.password = command_line.password.or(self.password);
        self.connect_timeout = command_line.connect_timeout.or(self.connect_timeout);
        self.skip_tls = command_line.skip_tls || (self.skip_tls && !command_line.tls.wanted());
        self.tls = self.tls.overlaid_with(command_line.tls);
        self
    }

    /// Where these settings lead to.
    pub fn endpoint(&self) -> Endpoint {
        let socket = || self.socket.clone().unwrap_or_else(default_socket);
        let tcp = || {
            let host = self.host.clone().unwrap_or_else(|| LOOPBACK.to_owned());
            Endpoint::Tcp(host, self.port.unwrap_or(DEFAULT_PORT))
        };
        match self.protocol {
            Some(Protocol::Socket) => Endpoint::Socket(socket()),
            Some(Protocol::Tcp) => tcp(),
            None if !self.is_local_host() => tcp(),
            None if self.socket.is_none() && self.port.is_some() => tcp(),
            None => Endpoint::Socket(socket()),
        }
    }

    /// The account to log in with: as given, else the operating system's user.
    pub fn user_name(&self) -> Result<String> {
        match &self.user {
            Some(user) => Ok(user.clone()),
            None => operating_system_user().ok_or_else(|| {
                Error::new(ErrorKind::Usage, "no user name given and the system user has no name")
                    .advise("give --user")
            }),
        }
    }

    /// The TLS settings of a TCP connection; `None` without TLS.
    pub(crate) fn wanted_tls(&self) -> Option<&TlsOptions> {
        (!self.skip_tls && self.tls.wanted()).then_some(&self.tls)
    }

    /// The way to a server behind a socket for an account that must use TLS: its port on this
    /// machine. `None` if these settings ask for no TLS.
    pub(crate) fn over_tls(&self) -> Option<Self> {
        self.wanted_tls().map(|_| Self {
            host: Some(LOOPBACK.to_owned()),
            port: Some(self.port.unwrap_or(DEFAULT_PORT)),
            socket: None,
            protocol: Some(Protocol::Tcp),
            ..self.clone()
        })
    }

    fn is_local_host(&self) -> bool {
        self.host.as_deref().is_none_or(|host| host.eq_ignore_ascii_case("localhost"))
    }
}

/// The first of the usual sockets that exists, else the Debian one, so that messages name it.
fn default_socket() -> PathBuf {
    let known = || DEFAULT_SOCKETS.iter().map(Path::new);
    known().find(|path| path.exists()).or_else(|| known().next()).unwrap_or(Path::new("")).into()
}

fn parse_port(text: &str, origin: &str) -> Result<u16> {
    text.trim().parse().map_err(|_| {
        Error::new(ErrorKind::Usage, format!("{origin}: '{text}' is not a port number"))
    })
}

fn parse_protocol(text: &str, origin: &str) -> Result<Option<Protocol>> {
    match text.to_ascii_lowercase().as_str() {
        "" | "default" => Ok(None),
        "tcp" => Ok(Some(Protocol::Tcp)),
        "socket" => Ok(Some(Protocol::Socket)),
        _ => Err(Error::new(ErrorKind::Usage, format!("{origin}: unknown protocol '{text}'"))
            .advise("known are tcp and socket")),
    }
}

/// `root` for user id 0, else the name in `/etc/passwd`, else what the environment says.
fn operating_system_user() -> Option<String> {
    let id = rustix::process::geteuid();
    if id.is_root() {
        return Some("root".to_owned());
    }
    let id = id.as_raw().to_string();
    let from_passwd = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == id).then(|| name.to_owned())
        })
    });
    from_passwd
        .or_else(|| ["USER", "LOGNAME", "LOGIN"].iter().find_map(|name| std::env::var(name).ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn from(text: &str) -> ConnectOptions {
        ConnectOptions::from_sources(&OptionFiles::from_text(text).unwrap(), &nothing).unwrap()
    }

    #[test]
    fn socket_of_the_option_file_wins_over_its_port() {
        let found = from("[client]\nport=3306\nsocket=/run/x.sock\n");
        assert_eq!(found.endpoint(), Endpoint::Socket("/run/x.sock".into()));
    }

    #[test]
    fn port_alone_in_an_option_file_still_means_the_socket() {
        assert!(matches!(from("[client]\nport=3306\n").endpoint(), Endpoint::Socket(_)));
    }

    #[test]
    fn typed_port_means_tcp() {
        let typed = ConnectOptions { port: Some(3307), ..Default::default() };
        let found = from("[client]\nsocket=/run/x.sock\n").overlaid_with(typed);
        assert_eq!(found.endpoint(), Endpoint::Tcp("127.0.0.1".into(), 3307));
    }

    #[test]
    fn typed_socket_means_the_socket_whatever_host_the_files_name() {
        let typed = ConnectOptions { socket: Some("/s".into()), ..Default::default() };
        let found = from("[client]\nhost=db1\nprotocol=tcp\n").overlaid_with(typed);
        assert_eq!(found.endpoint(), Endpoint::Socket("/s".into()));
    }

    #[test]
    fn tool_groups_win_over_client_groups() {
        let found = from("[mariadb-backup]\nuser=b\n[client]\nuser=a\npassword='p#1'\n");
        assert_eq!(found.user.as_deref(), Some("b"));
        assert_eq!(found.password.as_deref(), Some("p#1"));
    }

    #[test]
    fn environment_is_weaker_than_files_but_for_our_own_password() {
        let environment = |name: &str| match name {
            "MYSQL_PWD" => Some("weak".to_owned()),
            "MYSQL_UNIX_PORT" => Some("/env.sock".to_owned()),
            "MYSQL_TCP_PORT" => Some("3399".to_owned()),
            _ => None,
        };
        let files = OptionFiles::from_text("[client]\npassword=strong\n").unwrap();
        let found = ConnectOptions::from_sources(&files, &environment).unwrap();
        assert_eq!(found.password.as_deref(), Some("strong"));
        assert_eq!(found.endpoint(), Endpoint::Socket("/env.sock".into()));
        let ours = |name: &str| (name == "HAULOUT_PASSWORD").then(|| "strongest".to_owned());
        let found = ConnectOptions::from_sources(&files, &ours).unwrap();
        assert_eq!(found.password.as_deref(), Some("strongest"));
    }

    #[test]
    fn tls_can_be_switched_off_and_on_again() {
        let files = "[client]\nssl-ca=/ca.pem\n[haulout]\nskip-ssl\n";
        assert!(from(files).wanted_tls().is_none());
        let mut typed = ConnectOptions::default();
        typed.tls.enabled = true;
        assert!(from(files).overlaid_with(typed).wanted_tls().is_some());
        let typed = ConnectOptions { skip_tls: true, ..Default::default() };
        let found = from("[client]\nssl\n").overlaid_with(typed);
        assert!(found.wanted_tls().is_none());
    }

    #[test]
    fn what_says_whom_to_trust_asks_for_tls() {
        for (line, is_wanted) in [
            ("ssl-capath=/x", true),
            ("ssl_fp=ab", true),
            ("ssl-cipher=TLS_AES_128_GCM_SHA256", true),
            ("ssl-crl=/x", true),
            ("ssl-key=/x", true),
            ("ssl-key=/x\nskip-ssl", false),
            ("skip-ssl\nssl-ca=/x", true),
            ("skip-ssl\ntls-version=TLSv1.2", false),
            ("tls-version=TLSv1.2", false),
            ("ssl-capath=/x\nssl-capath=", false),
        ] {
            assert_eq!(
                from(&format!("[client]\n{line}\n")).wanted_tls().is_some(),
                is_wanted,
                "{line}"
            );
        }
        for name in TlsOptions::TEXTS {
            let mut options = TlsOptions::default();
            options.set(name, "x");
            assert_ne!(options, TlsOptions::default(), "{name}");
            assert_eq!(TlsOptions::default().overlaid_with(options.clone()), options, "{name}");
            assert_eq!(options.clone().overlaid_with(TlsOptions::default()), options, "{name}");
        }
    }

    #[test]
    fn bad_port_names_its_line() {
        let files = OptionFiles::from_text("[client]\nport=none\n").unwrap();
        let error = ConnectOptions::from_sources(&files, &nothing).unwrap_err();
        assert!(error.to_string().contains(":2"), "{error}");
    }

    #[test]
    fn password_is_never_shown() {
        let options = ConnectOptions { password: Some("geheim".into()), ..Default::default() };
        assert!(!format!("{options:?}").contains("geheim"));
    }
}
