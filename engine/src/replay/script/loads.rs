//! LOAD DATA: the log has what was in the file, and the server is given it as a file of the client.

use std::io::{Seek, SeekFrom, Write};

use binlog::event::load::{Block, Duplicates, ExecuteLoad};
use binlog::{Event, EventType};
use tempfile::SpooledTempFile;

use super::super::source::malformed;
use super::super::walk::{Flow, Group, Place};
use super::Builder;
use crate::{Error, ErrorKind, Result};

/// Bytes of a file that are kept in memory.
const LOAD_MEMORY: usize = 4 << 20;

impl Builder<'_> {
    pub(super) fn execute_load(&mut self, group: &Group, event: &Event<'_>) -> Result<Flow> {
        let place = Place { log: group.place.log, offset: event.offset };
        let load = ExecuteLoad::parse(event.body())
            .map_err(|what| malformed(self.name(place), event, what))?;
        let key = (event.header.server_id, load.file_id);
        let Some(mut file) = self.loads.remove(&key) else {
            let message = format!(
                "{} at {}: the file that a LOAD DATA statement reads is not in the log",
                self.name(place),
                place.offset
            );
            return Err(Error::new(ErrorKind::Damage, message));
        };
        file.seek(SeekFrom::Start(0)).map_err(cannot_spool)?;
        let text = &load.query.text;
        let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
        let (front, behind) = (part(0..load.name.start), part(load.name.end..text.len()));
        // Alone, because the server asks for the file in the middle of it.
        self.open(group);
        self.push_set(group.gtid, place);
        if self.flush() == Flow::Stop {
            return Ok(Flow::Stop);
        }
        self.text(group, event, &load.query, |sql| {
            sql.extend_from_slice(front);
            sql.extend_from_slice(b" LOCAL INFILE 'x'");
            if load.duplicates == Duplicates::Replace {
                sql.extend_from_slice(b" REPLACE");
            }
            sql.extend_from_slice(b" INTO");
            sql.extend_from_slice(behind);
        })?;
        self.batch.load = Some(file);
        Ok(self.flush())
    }

    pub(super) fn block(&mut self, event: &Event<'_>, place: Place) -> Result<()> {
        let block =
            Block::parse(event.body()).map_err(|what| malformed(self.name(place), event, what))?;
        let key = (event.header.server_id, block.file_id);
        if event.header.kind == EventType::BEGIN_LOAD_QUERY {
            self.loads.insert(key, SpooledTempFile::new(LOAD_MEMORY));
        }
        if let Some(file) = self.loads.get_mut(&key) {
            file.write_all(block.data).map_err(cannot_spool)?;
        }
        Ok(())
    }
}

fn cannot_spool(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "cannot keep a file of LOAD DATA").caused_by(error)
}
