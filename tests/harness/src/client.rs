//! A blocking SQL connection.
//!
//! The asynchronous client is in the build anyway; each connection drives it on a small
//! runtime of its own, which keeps the tests free of `async`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};

use crate::Result;

/// One connection. Dropping it closes the socket.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    conn: Conn,
    timeout: Duration,
}

impl Client {
    /// Connects through the socket as `user`, with a password if there is one.
    pub fn connect(socket: &Path, user: &str, password: Option<&str>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let opts = OptsBuilder::default()
            .socket(Some(socket.to_string_lossy()))
            .user(Some(user))
            .pass(password)
            .max_allowed_packet(Some(64 << 20));
        let conn = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), Conn::new(opts)).await
        });
        let conn = conn.context("no answer within 10 s")??;
        Ok(Self { runtime, conn, timeout: Duration::from_secs(120) })
    }

    /// Limits how long one statement may take before it counts as failed.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs a statement and returns all rows of its first result.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let Self { runtime, conn, timeout } = self;
        runtime.block_on(async {
            match tokio::time::timeout(*timeout, conn.query(sql)).await {
                Ok(result) => result.map_err(|cause| SqlError::new(sql, cause)),
                Err(_) => Err(SqlError::timed_out(sql, *timeout)),
            }
        })
    }

    /// Runs a statement for its effect.
    pub fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        self.rows(sql).map(drop)
    }

    /// All rows of a statement as text; NULL becomes the word `NULL`.
    pub fn text(&mut self, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
        Ok(self.rows(sql)?.into_iter().map(cells).collect())
    }

    /// The first column of the first row as text.
    pub fn scalar(&mut self, sql: &str) -> Result<Option<String>, SqlError> {
        Ok(self.text(sql)?.into_iter().next().and_then(|row| row.into_iter().next()))
    }

    /// One row as pairs of column name and text, as `SHOW SLAVE STATUS` needs it.
    pub fn named(&mut self, sql: &str) -> Result<Vec<(String, String)>, SqlError> {
        let Some(row) = self.rows(sql)?.into_iter().next() else { return Ok(Vec::new()) };
        let names: Vec<String> =
            row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
        Ok(names.into_iter().zip(cells(row)).collect())
    }
}

fn cells(row: Row) -> Vec<String> {
    row.unwrap()
        .into_iter()
        .map(|value| match value {
            Value::NULL => "NULL".to_owned(),
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => other.as_sql(true).trim_matches('\'').to_owned(),
        })
        .collect()
}

/// A statement that failed, with the statement.
#[derive(Debug)]
pub struct SqlError {
    /// The server's error number; 0 when the connection failed.
    pub code: u16,
    message: String,
}

impl SqlError {
    fn new(sql: &str, cause: mysql_async::Error) -> Self {
        let code = match &cause {
            mysql_async::Error::Server(error) => error.code,
            _ => 0,
        };
        Self { code, message: format!("{cause}: {}", shorten(sql)) }
    }

    fn timed_out(sql: &str, limit: Duration) -> Self {
        Self { code: 0, message: format!("no answer within {limit:?}: {}", shorten(sql)) }
    }
}

/// Statements with long literals are cut, so that a failure stays readable.
fn shorten(sql: &str) -> String {
    match sql.char_indices().nth(400) {
        Some((cut, _)) => format!("{}…", &sql[..cut]),
        None => sql.to_owned(),
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}
