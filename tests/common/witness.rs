//! What a source held at a place in its log, to compare copies with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use harness::compare::Contents;
use harness::{Client, Result, Server};

use super::replay::state;

/// What there was at a place in the log.
pub struct Witness {
    pub contents: Contents,
    pub state: Vec<String>,
    pub file: String,
    pub offset: u64,
    /// The first whole second behind everything before, at which nothing had happened yet.
    pub second: u64,
}

impl Witness {
    pub fn take(source: &Server) -> Result<Self> {
        let mut client = source.client()?;
        let contents = Contents::read(&mut client)?;
        let status = client.text("SHOW MASTER STATUS")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let second = now.as_secs() + 1;
        std::thread::sleep(Duration::from_secs(second) - now);
        Ok(Self {
            contents,
            state: state(&mut client)?,
            file: status[0][0].clone(),
            offset: status[0][1].parse()?,
            second,
        })
    }

    /// The transactions around the place: the last one before it in its log, the first one behind it.
    pub fn around(&self, client: &mut Client) -> Result<(Option<String>, Option<String>)> {
        let events = client.text(&format!("SHOW BINLOG EVENTS IN '{}'", self.file))?;
        let (mut last, mut next) = (None, None);
        for event in events.iter().filter(|event| event[2] == "Gtid") {
            let words = event[5].split_whitespace();
            let gtid = words.skip_while(|word| *word != "GTID").nth(1).map(str::to_owned);
            ensure!(gtid.is_some(), "no GTID in {event:?}");
            if event[1].parse::<u64>()? < self.offset {
                last = gtid;
            } else {
                next = gtid;
                break;
            }
        }
        Ok((last, next))
    }
}
