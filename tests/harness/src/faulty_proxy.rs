//! A proxy on loopback that does to requests what networks and busy stores do to them.
//!
//! It stands in front of a server that speaks HTTP without TLS, and handles one request for each
//! connection. [`Rule`]s say which requests are hit, and by which [`Fault`]; all others go through.
//! What was asked is written down, so that tests can count tries and look at headers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};

use crate::Result;

/// Longest head of a request or an answer.
const HEAD_MAX: u64 = 64 << 10;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is taken whole, and refused.
    Refuse(Refusal),
    /// The connection is reset after so many bytes of its content.
    ResetRequest(usize),
    /// It is done, and the connection reset after so many bytes of the answer.
    ResetAnswer(usize),
    /// It is done, and the connection closed after so many bytes of the answer.
    CutAnswer(usize),
    /// It is done, but nothing answers, and the connection is closed.
    LoseAnswer,
    /// It is taken whole; nothing happens and nothing answers for so long.
    Silence(Duration),
    /// It is done, and the answer stops for so long after so many bytes.
    Stall(usize, Duration),
    /// It is done so much later.
    Delay(Duration),
    /// A bit of its content is flipped.
    FlipRequest(usize),
    /// A bit of the answer's content is flipped.
    FlipAnswer(usize),
    /// The answer has one more header.
    AddHeader(&'static str, &'static str),
    /// The store's clock is so many seconds ahead of ours; requests that are not signed by it are
    /// refused, all others answered with an empty success.
    Clock(i64),
}

/// How a request is refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP's status.
    pub status: u16,
    /// S3's code.
    pub code: &'static str,
    /// S3's message.
    pub message: &'static str,
    /// Headers beyond those that every answer has.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A refusal without more headers.
    pub fn new(status: u16, code: &'static str) -> Self {
        Self { status, code, message: "said by the faulty proxy", headers: Vec::new() }
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Which requests are hit.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    method: Option<&'static str>,
    path: Option<String>,
    header: Option<(&'static str, &'static str)>,
    skip: usize,
    times: usize,
    until: Option<Instant>,
}

impl Rule {
    /// All requests.
    pub fn all(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            path: None,
            header: None,
            skip: 0,
            times: usize::MAX,
            until: None,
        }
    }

    /// Only those of a method.
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Only those whose path and query contain this.
    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Only those with this header; its name in small letters.
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// Not the first ones of them.
    pub fn skip(mut self, first: usize) -> Self {
        self.skip = first;
        self
    }

    /// Only so many of them.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Only those that come within this time from now.
    pub fn within(mut self, time: Duration) -> Self {
        self.until = Some(Instant::now() + time);
        self
    }

    /// Whether it hits this request; counts.
    fn hits(&mut self, request: &Request) -> bool {
        let fits = self.method.is_none_or(|method| method == request.method)
            && self.path.as_ref().is_none_or(|part| request.target.contains(part))
            && self.header.is_none_or(|(name, value)| {
                request.headers.get(name).is_some_and(|has| has == value)
            })
            && self.until.is_none_or(|until| Instant::now() < until);
        if !fits || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` and its like.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// When it came.
    pub at: Instant,
    /// Whether a rule hit it.
    pub hit: bool,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<Request>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Bytes of answers that went through whole.
    answered: AtomicU64,
    stopped: AtomicBool,
}

/// A running proxy. It ends with this value.
pub struct FaultyProxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl FaultyProxy {
    /// Starts a proxy in front of `server`; everything goes through.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let state = shared.clone();
                std::thread::spawn(move || {
                    let now = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    state.most_at_once.fetch_max(now, Ordering::SeqCst);
                    // Broken connections are what this is about.
                    let _ = handle(&client, server, &state);
                    state.at_once.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// The address for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule. The first one that hits a request decides.
    pub fn add(&self, rule: Rule) {
        lock(&self.state.rules).push(rule);
    }

    /// Lets everything through again, and forgets what was asked.
    pub fn clear(&self) {
        lock(&self.state.rules).clear();
        lock(&self.state.requests).clear();
        self.state.most_at_once.store(0, Ordering::SeqCst);
        self.state.answered.store(0, Ordering::SeqCst);
    }

    /// What was asked, in the order in which it came.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    /// Bytes of content in answers since [`FaultyProxy::clear`], as far as nothing broke them.
    pub fn bytes_answered(&self) -> u64 {
        self.state.answered.load(Ordering::SeqCst)
    }

    /// The most connections at the same time.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the one who accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request and its answer.
fn handle(client: &TcpStream, server: SocketAddr, state: &State) -> Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut from_client = BufReader::new(client);
    let (first, head) = read_head(&mut from_client)?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let mut request = Request {
        method: words.next().context("no method")?,
        target: words.next().context("no path")?,
        headers: head,
        at: Instant::now(),
        hit: false,
    };
    let fault = {
        let mut rules = lock(&state.rules);
        let mut hit = None;
        for rule in rules.iter_mut() {
            if rule.hits(&request) {
                hit = Some(rule.fault.clone());
                break;
            }
        }
        hit
    };
    request.hit = fault.is_some();
    lock(&state.requests).push(request.clone());
    let len = request.headers.get("content-length").map_or(Ok(0), |len| len.parse::<usize>())?;

    match &fault {
        Some(Fault::ResetRequest(after)) => {
            copy(&mut from_client, &mut std::io::sink(), len.min(*after))?;
            return reset(client);
        }
        Some(Fault::Refuse(refusal)) => {
            copy(&mut from_client, &mut std::io::sink(), len)?;
            return refuse(client, &request, refusal, SystemTime::now());
        }
        Some(Fault::Silence(time)) => {
            copy(&mut from_client, &mut std::io::sink(), len)?;
            std::thread::sleep(*time);
            return Ok(());
        }
        Some(Fault::Clock(ahead)) => {
            copy(&mut from_client, &mut std::io::sink(), len)?;
            return by_clock(client, &request, *ahead);
        }
        Some(Fault::Delay(time)) => std::thread::sleep(*time),
        _ => {}
    }

    let upstream = TcpStream::connect(server)?;
    upstream.set_nodelay(true)?;
    upstream.set_read_timeout(Some(PATIENCE))?;
    let mut to_server = &upstream;
    let mut text = format!("{first}\r\n");
    for (name, value) in request.headers.iter().filter(|(name, _)| *name != "connection") {
        text += &format!("{name}: {value}\r\n");
    }
    to_server.write_all(format!("{text}connection: close\r\n\r\n").as_bytes())?;
    match fault {
        Some(Fault::FlipRequest(at)) if at < len => {
            copy(&mut from_client, &mut to_server, at)?;
            copy_flipped(&mut from_client, &mut to_server)?;
            copy(&mut from_client, &mut to_server, len - at - 1)?;
        }
        _ => copy(&mut from_client, &mut to_server, len)?,
    }
    let bytes = answer(client, &upstream, fault.as_ref())?;
    state.answered.fetch_add(bytes, Ordering::SeqCst);
    Ok(())
}

/// Passes on what the server says; tells the bytes of its content.
fn answer(client: &TcpStream, upstream: &TcpStream, fault: Option<&Fault>) -> Result<u64> {
    let mut from_server = BufReader::new(upstream);
    let (first, head) = read_head(&mut from_server)?;
    if matches!(fault, Some(Fault::LoseAnswer)) {
        return Ok(0);
    }
    let mut to_client = client;
    let mut text = format!("{first}\r\n");
    for (name, value) in head.iter().filter(|(name, _)| *name != "connection") {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(Fault::AddHeader(name, value)) = fault {
        text += &format!("{name}: {value}\r\n");
    }
    to_client.write_all(format!("{text}connection: close\r\n\r\n").as_bytes())?;
    match fault {
        Some(Fault::ResetAnswer(after)) => {
            copy_up_to(&mut from_server, &mut to_client, *after)?;
            reset(client)?;
            return Ok(0);
        }
        Some(Fault::CutAnswer(after)) => {
            copy_up_to(&mut from_server, &mut to_client, *after)?;
            client.shutdown(Shutdown::Both)?;
            return Ok(0);
        }
        Some(Fault::Stall(after, time)) => {
            copy_up_to(&mut from_server, &mut to_client, *after)?;
            std::thread::sleep(*time);
        }
        Some(Fault::FlipAnswer(at)) => {
            copy_up_to(&mut from_server, &mut to_client, *at)?;
            copy_flipped(&mut from_server, &mut to_client)?;
        }
        _ => {}
    }
    Ok(std::io::copy(&mut from_server, &mut to_client)?)
}

/// The first line, and the headers by their names in small letters.
fn read_head(from: &mut impl BufRead) -> Result<(String, BTreeMap<String, String>)> {
    let mut from = from.take(HEAD_MAX);
    let mut line = || -> Result<String> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the head is cut off or too long");
        Ok(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut headers = BTreeMap::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            return Ok((first, headers));
        }
        let (name, value) = header.split_once(':').context("a header without a colon")?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write, len: usize) -> Result<()> {
    let copied = copy_up_to(from, to, len)?;
    ensure!(copied == len, "ended early");
    Ok(())
}

fn copy_up_to(from: &mut impl Read, to: &mut impl Write, len: usize) -> Result<usize> {
    Ok(usize::try_from(std::io::copy(&mut from.take(len as u64), to)?)?)
}

fn copy_flipped(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    to.write_all(&[byte[0] ^ 4])?;
    Ok(())
}

/// Closes a connection the hard way.
fn reset(socket: &TcpStream) -> Result<()> {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
    Ok(())
}

/// Answers as S3 does when it refuses.
fn refuse(
    client: &TcpStream,
    request: &Request,
    refusal: &Refusal,
    date: SystemTime,
) -> Result<()> {
    let Refusal { status, code, message, headers } = refusal;
    let body = match request.method.as_str() {
        "HEAD" => String::new(),
        _ if *status == 200 => String::new(),
        _ => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}\
             </Message><RequestId>faulty</RequestId></Error>"
        ),
    };
    let mut text = format!(
        "HTTP/1.1 {status} Refused\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\
         date: {}\r\nx-amz-request-id: faulty\r\nconnection: close\r\n",
        body.len(),
        http_date(date)
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let mut to_client = client;
    to_client.write_all(format!("{text}\r\n{body}").as_bytes())?;
    Ok(())
}

/// Answers by a clock that is ahead of ours.
fn by_clock(client: &TcpStream, request: &Request, ahead: i64) -> Result<()> {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
    let signed = request.headers.get("x-amz-date").context("no date")?;
    let signed = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", signed)?.to_datetime()?;
    let signed = signed.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
    let refusal = match now.duration_since(signed).abs() <= jiff::SignedDuration::from_mins(15) {
        true => Refusal::new(200, ""),
        false => Refusal::new(403, "RequestTimeTooSkewed"),
    };
    refuse(client, request, &refusal, now.into())
}

fn http_date(date: SystemTime) -> String {
    let date = jiff::Timestamp::try_from(date).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
