//! Events other than those of rows.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use super::options::Base64;
use super::problem::Problem;
use super::text::{general, push_base64, push_escaped, push_hexdump, push_int, push_name, put};
use super::{DELIMITER, Dump, skips_replication};
use crate::bytes::Malformed;
use crate::collation::Collation;
use crate::crypt::StartEncryption;
use crate::event::control::{self, XaPrepare};
use crate::event::gtid::{extra, flag as group};
use crate::event::load::{Block, Duplicates, ExecuteLoad};
use crate::event::variables::UserValue;
use crate::event::{GtidEvent, GtidList, Incident, IntVar, Query, Rand, Rotate, UserVar, Xid};
use crate::gtid::Gtid;
use crate::header::{EventType, Header, flag};
use crate::reader::Event;
use crate::row::decimal;

impl<W: Write> Dump<'_, W> {
    /// Appends `#TIME server id N  end_log_pos N CRC32 0x… `, and the bytes if they are wanted.
    pub(super) fn push_header(&mut self, out: &mut Vec<u8>, event: &Event<'_>) {
        let header = &event.header;
        out.push(b'#');
        self.clock.push(out, header.timestamp);
        put!(out, " server id {}  end_log_pos {} ", header.server_id, header.end_position);
        if let Some(checksum) = event.checksum {
            put!(out, "CRC32 0x{checksum:08x} ");
        }
        if self.options.hexdump {
            push_hexdump(out, event.offset, event.bytes);
        }
    }

    /// Prints an event that is wanted.
    pub(super) fn print(&mut self, event: &Event<'_>) -> Result<(), Problem> {
        let kind = event.header.kind;
        let ignorable = event.header.has(flag::IGNORABLE);
        if kind.name().is_none() && !ignorable && !self.options.force_read {
            return Err(Problem::Unknown(kind));
        }
        let start = self.out.len();
        if self.options.positions {
            put!(self.out, "# at {}\n", event.offset);
        }
        let begun = self.out.len();
        let what = match kind {
            EventType::TABLE_MAP => self.table_map(event),
            _ if kind.rows().is_some() => self.rows(event),
            EventType::ANNOTATE_ROWS => {
                if self.options.annotations {
                    self.file.annotation = Some((event.bytes.to_vec(), event.checksum));
                }
                Ok(())
            }
            _ => {
                // Rows of a statement that did not end wait here, and go out first.
                let mut text = std::mem::take(&mut self.file.statement.head);
                let printed = self.plain(&mut text, event);
                let held = self.options.flashback && is_undone(kind);
                match () {
                    () if !held => self.out.append(&mut text),
                    () if kind == EventType::STOP => self.undo_stop = std::mem::take(&mut text),
                    () if !text.is_empty() => self.undo.push(std::mem::take(&mut text)),
                    () => {}
                }
                text.clear();
                self.file.statement.head = text;
                printed
            }
        };
        match what {
            Err(Problem::Malformed(..) | Problem::Unknown(_)) if self.options.force_read => {
                if !self.options.short_form {
                    let mut out = std::mem::take(&mut self.out);
                    self.push_header(&mut out, event);
                    out.extend_from_slice(b"\n# Unknown event\n");
                    self.out = out;
                }
                Ok(())
            }
            Err(problem) => {
                // Of an event that nothing is printed of it is not said where it is either.
                if self.out.len() == begun {
                    self.out.truncate(start);
                }
                Err(problem)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Prints an event that is not about rows.
    fn plain(&mut self, out: &mut Vec<u8>, event: &Event<'_>) -> Result<(), Problem> {
        let kind = event.header.kind;
        let malformed = |what| Problem::Malformed(kind, what);
        let short = self.options.short_form;
        let body = event.body();
        match kind {
            EventType::QUERY | EventType::QUERY_COMPRESSED => {
                let query = Query::parse(body, kind).map_err(malformed)?;
                return self.query(out, event, &query);
            }
            EventType::EXECUTE_LOAD_QUERY => {
                let load = ExecuteLoad::parse(body).map_err(malformed)?;
                return self.execute_load(out, event, &load);
            }
            EventType::BEGIN_LOAD_QUERY | EventType::APPEND_BLOCK => {
                let block = Block::parse(body).map_err(malformed)?;
                return self.load_block(out, event, &block);
            }
            EventType::FORMAT_DESCRIPTION => {
                self.format(out, event);
                return Ok(());
            }
            _ => {}
        }
        self.skip_replication(event);
        match kind {
            EventType::GTID => {
                let gtid = GtidEvent::parse(body, event.header.server_id).map_err(malformed)?;
                self.gtid(out, event, &gtid);
            }
            EventType::XID => {
                let Xid(xid) = Xid::parse(body).map_err(malformed)?;
                if !short {
                    self.push_header(out, event);
                    put!(out, "\tXid = {xid}\n");
                }
                let word = if self.options.flashback { "START TRANSACTION" } else { "COMMIT" };
                put!(out, "{word}{DELIMITER}\n");
            }
            EventType::XA_PREPARE => {
                let xa = XaPrepare::parse(body).map_err(malformed)?.name.text();
                if !short {
                    self.push_header(out, event);
                    put!(out, "\tXID = {xa}\n");
                }
                put!(out, "XA PREPARE {xa}\n{DELIMITER}\n");
            }
            EventType::INTVAR => {
                let variable = IntVar::parse(body).map_err(malformed)?;
                if !short {
                    self.push_header(out, event);
                    out.extend_from_slice(b"\tIntvar\n");
                }
                put!(out, "SET {}=", variable.name());
                push_int(out, variable.value.cast_signed());
                put!(out, "{DELIMITER}\n");
            }
            EventType::RAND => {
                let Rand(first, second) = Rand::parse(body).map_err(malformed)?;
                if !short {
                    self.push_header(out, event);
                    out.extend_from_slice(b"\tRand\n");
                }
                let (first, second) = (first.cast_signed(), second.cast_signed());
                put!(out, "SET @@RAND_SEED1={first}, @@RAND_SEED2={second}{DELIMITER}\n");
            }
            EventType::USER_VAR => {
                let variable = UserVar::parse(body).map_err(malformed)?;
                if !short {
                    self.push_header(out, event);
                    out.extend_from_slice(b"\tUser_var\n");
                }
                push_user_variable(out, &variable);
            }
            EventType::START_ENCRYPTION => {
                let start = StartEncryption::parse(body).map_err(malformed)?;
                put!(
                    out,
                    "# Encryption scheme: {}, key_version: {}, nonce: ",
                    start.scheme,
                    start.key_version
                );
                start.nonce.iter().for_each(|byte| put!(out, "{byte:02x}"));
                out.extend_from_slice(b"\n# The rest of the binlog is encrypted!\n");
            }
            // What is wrong with an event is told in any form.
            _ if short => return self.comment(&mut Vec::new(), event),
            _ => return self.comment(out, event),
        }
        Ok(())
    }

    /// Prints an event that is nothing but a comment.
    fn comment(&mut self, out: &mut Vec<u8>, event: &Event<'_>) -> Result<(), Problem> {
        let (kind, body) = (event.header.kind, event.body());
        let malformed = |what| Problem::Malformed(kind, what);
        match kind {
            EventType::ROTATE => {
                let rotate = Rotate::parse(body).map_err(malformed)?;
                self.push_header(out, event);
                out.extend_from_slice(b"\tRotate to ");
                out.extend_from_slice(rotate.file);
                put!(out, "  pos: {}\n", rotate.position.cast_signed());
            }
            EventType::BINLOG_CHECKPOINT => {
                let file = control::checkpoint(body).map_err(malformed)?;
                self.push_header(out, event);
                out.extend_from_slice(b"\tBinlog checkpoint ");
                out.extend_from_slice(file);
                out.push(b'\n');
            }
            EventType::GTID_LIST => {
                let mut list = GtidList::parse(body).map_err(malformed)?;
                list.entries.sort_by_key(|gtid| (gtid.domain, gtid.sequence));
                self.push_header(out, event);
                out.extend_from_slice(b"\tGtid list [");
                for (index, gtid) in list.entries.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ",\n# " };
                    put!(out, "{comma}{gtid}");
                }
                out.extend_from_slice(b"]\n");
            }
            EventType::STOP => {
                self.push_header(out, event);
                out.extend_from_slice(b"\tStop\n");
            }
            EventType::DELETE_FILE => {
                let block = Block::parse(body).map_err(malformed)?;
                self.push_header(out, event);
                put!(out, "\n#Delete_file: file_id={}\n", block.file_id);
            }
            EventType::INCIDENT => {
                let incident = Incident::parse(body).map_err(malformed)?;
                let name = incident.known_name().ok_or(malformed(Malformed("incident")))?;
                self.push_header(out, event);
                put!(out, "\n# Incident: {name}\nRELOAD DATABASE; # Shall generate syntax error\n");
            }
            EventType::HEARTBEAT => {}
            _ if event.header.has(flag::IGNORABLE)
                || (28..=29).contains(&kind.0)
                || (33..=37).contains(&kind.0) =>
            {
                self.push_header(out, event);
                let name = kind.name().unwrap_or("Unknown");
                put!(out, "\tIgnorable\n# Ignorable event type {} ({name})\n", kind.0);
            }
            _ => return Err(Problem::Unknown(kind)),
        }
        Ok(())
    }

    fn format(&mut self, out: &mut Vec<u8>, event: &Event<'_>) {
        let Some(format) = &self.file.format else { return };
        let (version, created) = (format.server_version.clone(), format.created);
        if !self.options.short_form {
            self.push_header(out, event);
            put!(out, "\tStart: binlog v 4, server v {version} created ");
            self.clock.push(out, event.header.timestamp);
            out.extend_from_slice(if created != 0 { b" at startup\n" } else { b"\n" });
            if event.header.has(flag::IN_USE) {
                out.extend_from_slice(
                    b"# Warning: this binlog is either in use or was not closed properly.\n",
                );
            }
        }
        if !event.header.has(flag::ARTIFICIAL) && created != 0 {
            put!(out, "ROLLBACK{DELIMITER}\n");
        }
        if self.options.base64 != Base64::Never && !self.options.short_form {
            if self.encodes() {
                out.extend_from_slice(b"BINLOG '\n");
                push_base64(out, event.bytes);
                put!(out, "'{DELIMITER}\n");
            }
            self.file.format_printed = true;
        }
    }

    /// Whether base64 is printed.
    pub(super) fn encodes(&self) -> bool {
        self.options.base64 == Base64::Auto && !self.options.short_form
    }

    /// Prints `SET skip_replication` where it changes.
    fn skip_replication(&mut self, event: &Event<'_>) {
        let skips = skips_replication(event);
        if self.file.skip_replication != skips {
            put!(self.out, "/*!50521 SET skip_replication={}*/{DELIMITER}\n", u8::from(skips));
            self.file.skip_replication = skips;
        }
    }

    fn in_xa(&self) -> bool {
        self.file.group_flags & (group::PREPARED_XA | group::COMPLETED_XA) != 0
    }

    fn skips_database(&self, database: &[u8]) -> bool {
        self.options.database.as_deref().is_some_and(|wanted| wanted != database)
    }

    /// Prints `use` for a database that gets another name.
    fn rewritten_use(&mut self, header: &Header, database: &[u8]) {
        if header.has(flag::SUPPRESS_USE) || self.file.known.database == database {
            return;
        }
        if let Some(new) = self.options.rewritten(database) {
            self.out.extend_from_slice(b"use ");
            push_name(&mut self.out, new);
            put!(self.out, "{DELIMITER}\n");
            self.file.known.database = database.to_vec();
        }
    }

    /// What stands before the text of a statement.
    fn query_head(
        &mut self,
        out: &mut Vec<u8>,
        event: &Event<'_>,
        header: &Header,
        query: &Query<'_>,
    ) -> Result<(), Problem> {
        if !self.options.short_form {
            self.push_header(out, event);
            put!(
                out,
                "\t{}\tthread_id={}\texec_time={}\terror_code={}\txid={}\n",
                header.kind,
                query.thread_id,
                query.seconds,
                query.error_code,
                query.session.xid
            );
        }
        let in_xa = self.in_xa();
        let short_form = self.options.short_form;
        let format = self.file.format.as_ref().ok_or(Problem::NoFormat(header.kind))?;
        self.file.known.prepare(out, query, header, format, in_xa, short_form);
        Ok(())
    }

    fn query(
        &mut self,
        out: &mut Vec<u8>,
        event: &Event<'_>,
        query: &Query<'_>,
    ) -> Result<(), Problem> {
        let mut header = event.header;
        if query.is_bracket(self.in_xa()) {
            header.flags |= flag::SUPPRESS_USE;
        } else if self.skips_database(query.database) {
            return Ok(());
        }
        self.rewritten_use(&header, query.database);
        self.skip_replication(event);
        self.query_head(out, event, &header, query)?;
        if self.options.flashback {
            match &*query.text {
                b"BEGIN" => put!(out, "COMMIT\n{DELIMITER}\n"),
                b"COMMIT" => put!(out, "START TRANSACTION\n{DELIMITER}\n"),
                b"ROLLBACK" => {}
                _ => self.notes.push(format!(
                    "The statement at {} cannot be undone and was left out",
                    event.offset
                )),
            }
            return Ok(());
        }
        let halves = extra::START_ALTER | extra::COMMIT_ALTER | extra::ROLLBACK_ALTER;
        if query.session.gtid_flags & halves == 0 {
            out.extend_from_slice(&query.text);
            put!(out, "\n{DELIMITER}\n");
            return Ok(());
        }
        if self.encodes() {
            let is_comment = query.session.gtid_flags & extra::COMMIT_ALTER == 0;
            out.extend_from_slice(if is_comment { b"/*!100600 BINLOG '\n" } else { b"BINLOG '\n" });
            push_base64(out, event.bytes);
            put!(out, "'{}{DELIMITER}\n", if is_comment { " */" } else { "" });
        }
        if self.options.verbose > 0 && !self.options.short_form {
            out.extend_from_slice(b"### ");
            out.extend_from_slice(&query.text);
            out.push(b'\n');
        }
        Ok(())
    }

    fn gtid(&mut self, out: &mut Vec<u8>, event: &Event<'_>, gtid: &GtidEvent<'_>) {
        if !self.options.short_form && !self.options.flashback {
            self.push_header(out, event);
            put!(out, "\tGTID {}", gtid.gtid);
            if let Some(commit) = gtid.commit_id {
                put!(out, " cid={commit}");
            }
            for (flag, word) in
                [(group::DDL, " ddl"), (group::TRANSACTIONAL, " trans"), (group::WAITED, " waited")]
            {
                if gtid.has(flag) {
                    out.extend_from_slice(word.as_bytes());
                }
            }
            if gtid.has_extra(extra::START_ALTER) {
                out.extend_from_slice(b" START ALTER");
            }
            let start = gtid.start_alter.unwrap_or(0);
            if gtid.has_extra(extra::COMMIT_ALTER) {
                put!(out, " COMMIT ALTER id= {start}");
            }
            if gtid.has_extra(extra::ROLLBACK_ALTER) {
                put!(out, " ROLLBACK ALTER id= {start}");
            }
            if let Some(thread) = gtid.thread_id {
                put!(out, " thread_id={thread}");
            }
            out.push(b'\n');
            let parallel = gtid.has(group::ALLOW_PARALLEL);
            if self.file.parallel.replace(parallel) != Some(parallel) {
                let skip = u8::from(!parallel);
                put!(
                    out,
                    "/*M!100101 SET @@session.skip_parallel_replication={skip}*/{DELIMITER}\n"
                );
            }
            let Gtid { domain, server, sequence } = gtid.gtid;
            if self.file.domain.replace(domain) != Some(domain) {
                put!(out, "/*M!100001 SET @@session.gtid_domain_id={domain}*/{DELIMITER}\n");
            }
            if self.file.server.replace(server) != Some(server) {
                put!(out, "/*M!100001 SET @@session.server_id={server}*/{DELIMITER}\n");
            }
            put!(out, "/*M!100001 SET @@session.gtid_seq_no={sequence}*/{DELIMITER}\n");
        }
        match &gtid.xa {
            Some(xa) if gtid.has(group::PREPARED_XA) && !self.options.flashback => {
                put!(out, "XA START {}{DELIMITER}\n", xa.text());
            }
            _ if gtid.has(group::STANDALONE) => {}
            _ => {
                let word = if self.options.flashback { "COMMIT" } else { "START TRANSACTION" };
                put!(out, "{word}\n{DELIMITER}\n");
            }
        }
        self.file.group_flags = gtid.flags;
    }

    fn load_block(
        &mut self,
        out: &mut Vec<u8>,
        event: &Event<'_>,
        block: &Block<'_>,
    ) -> Result<(), Problem> {
        let Block { file_id, data } = *block;
        if !self.options.short_form {
            self.push_header(out, event);
            let kind = event.header.kind;
            put!(out, "\n#{kind}: file_id: {file_id}  block_len: {}\n", data.len());
        }
        let failed = |(path, error)| Problem::LoadFile(path, error);
        if event.header.kind == EventType::BEGIN_LOAD_QUERY {
            return self.load.begin(&self.options.local_load, file_id, data).map_err(failed);
        }
        if !self.load.append(file_id, data).map_err(failed)? {
            self.notes.push(format!(
                "Ignoring Append_block as there is no Create_file event for file_id: {file_id}"
            ));
        }
        Ok(())
    }

    fn execute_load(
        &mut self,
        out: &mut Vec<u8>,
        event: &Event<'_>,
        load: &ExecuteLoad<'_>,
    ) -> Result<(), Problem> {
        let path = self.load.take(load.file_id);
        let query = &load.query;
        if self.skips_database(query.database) {
            return Ok(());
        }
        self.rewritten_use(&event.header, query.database);
        let Some(path) = path else {
            self.notes.push(format!(
                "Ignoring Execute_load_query since there is no Begin_load_query event for \
                 file_id: {}",
                load.file_id
            ));
            return Ok(());
        };
        self.skip_replication(event);
        self.query_head(out, event, &event.header, query)?;
        out.extend_from_slice(query.text.get(..load.name.start).unwrap_or_default());
        out.extend_from_slice(b" LOCAL INFILE ");
        push_escaped(out, path.as_os_str().as_bytes(), b'\'');
        if load.duplicates == Duplicates::Replace {
            out.extend_from_slice(b" REPLACE");
        }
        out.extend_from_slice(b" INTO");
        out.extend_from_slice(query.text.get(load.name.end..).unwrap_or_default());
        put!(out, "\n{DELIMITER}\n");
        if !self.options.short_form {
            put!(out, "# file_id: {} \n", load.file_id);
        }
        Ok(())
    }
}

/// Events whose text is held back until everything before them is undone.
fn is_undone(kind: EventType) -> bool {
    matches!(
        kind,
        EventType::QUERY
            | EventType::QUERY_COMPRESSED
            | EventType::XID
            | EventType::STOP
            | EventType::GTID
            | EventType::XA_PREPARE
    )
}

fn push_user_variable(out: &mut Vec<u8>, variable: &UserVar<'_>) {
    out.extend_from_slice(b"SET @");
    push_name(out, variable.name);
    out.extend_from_slice(b":=");
    match variable.value {
        UserValue::Null => out.extend_from_slice(b"NULL"),
        UserValue::Real(value) => out.extend_from_slice(general(value, 14).as_bytes()),
        UserValue::Int { bits, unsigned: true } => put!(out, "{bits}"),
        UserValue::Int { bits, unsigned: false } => push_int(out, bits.cast_signed()),
        UserValue::Decimal { precision, scale, packed } => {
            decimal::write(packed, precision, scale, out);
        }
        UserValue::Text(text, collation) => match Collation::of(collation) {
            None => out.extend_from_slice(b"???"),
            Some(collation) => {
                put!(out, "_{} X'", collation.charset);
                text.iter().for_each(|byte| put!(out, "{byte:02X}"));
                put!(out, "' COLLATE `{}`", collation.name);
            }
        },
    }
    put!(out, "{DELIMITER}\n");
}
