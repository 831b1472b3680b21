//! A web server on loopback whose answers a test makes up: services that give credentials.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::Result;

/// A request, as far as tests care.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `GET` and its like.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The content.
    pub body: String,
}

/// A running server. It ends with this value.
pub struct CannedServer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl CannedServer {
    /// Answers with a status and content.
    pub fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes away is no business of the server's.
                let _ = client.map_err(Into::into).and_then(|client| serve(&client, &answer));
            }
        });
        Ok(Self { address, stopped })
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for CannedServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the one who accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(client: &TcpStream, answer: &dyn Fn(&Asked) -> (u16, String)) -> Result<()> {
    let mut from = BufReader::new(client.take(1 << 20));
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut asked = Asked {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        ..Asked::default()
    };
    loop {
        let mut header = String::new();
        from.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = asked.headers.get("content-length").map_or(Ok(0), |len| len.parse())?;
    from.take(len).read_to_string(&mut asked.body)?;
    let (status, body) = answer(&asked);
    let head = format!(
        "HTTP/1.1 {status} Canned\r\ncontent-length: {}\r\nx-aws-ec2-metadata-token-ttl-seconds: \
         600\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut to = client;
    to.write_all(format!("{head}{body}").as_bytes())?;
    Ok(())
}
