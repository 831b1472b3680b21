//! One line of JSON an event, for programs.
//!
//! Every line has `position`, `end`, `type`, `time` (seconds since 1970) and `server_id`; more depends
//! on the type. Text that is not UTF-8 is `{"base64": "…"}`. Whole numbers of columns have the sign
//! that the log tells; where it tells none they are signed.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use crate::bytes::Malformed;
use crate::compress::inflate_column;
use crate::dump::value::{push_date, push_fraction, push_time};
use crate::event::control::{self, XaPrepare};
use crate::event::load::{Block, ExecuteLoad};
use crate::event::rows::{self, Rows};
use crate::event::table_map::{Optional, TableMap};
use crate::event::variables::UserValue;
use crate::event::{GtidEvent, GtidList, Incident, IntVar, Query, Rand, Rotate, UserVar, Xid};
use crate::format::{Checksum, FormatDescription};
use crate::header::{EventType, Operation};
use crate::reader::Event;
use crate::row::{Column, Image, Misfit, Value, decimal};

/// Most tables that are kept.
const TABLES_MAX: usize = 4096;

/// Tells events as JSON. Begins anew with each file.
#[derive(Debug, Default)]
pub struct Lines {
    tables: HashMap<u64, Table>,
}

#[derive(Debug)]
struct Table {
    database: Json,
    name: Json,
    columns: Vec<(Column, Option<String>, bool)>,
}

impl Lines {
    /// The line of an event, without an end. An event that cannot be understood has a `fault`.
    pub fn line(&mut self, event: &Event<'_>) -> String {
        let header = &event.header;
        let mut line = Map::new();
        line.insert("position".into(), event.offset.into());
        line.insert("end".into(), event.end().into());
        line.insert("type".into(), header.kind.to_string().into());
        line.insert("time".into(), header.timestamp.into());
        line.insert("server_id".into(), header.server_id.into());
        match self.details(event) {
            Ok(Json::Object(details)) => line.extend(details),
            Ok(_) => {}
            Err(fault) => _ = line.insert("fault".into(), fault.to_string().into()),
        }
        Json::Object(line).to_string()
    }

    fn details(&mut self, event: &Event<'_>) -> Result<Json, Malformed> {
        let (kind, body) = (event.header.kind, event.body());
        Ok(match kind {
            EventType::FORMAT_DESCRIPTION => {
                let format = FormatDescription::parse(event.bytes)?;
                let checksum = match format.checksum {
                    Checksum::None => Json::Null,
                    Checksum::Crc32 => "crc32".into(),
                };
                json!({ "server_version": format.server_version, "checksum": checksum })
            }
            EventType::QUERY | EventType::QUERY_COMPRESSED => query(&Query::parse(body, kind)?),
            EventType::EXECUTE_LOAD_QUERY => {
                let load = ExecuteLoad::parse(body)?;
                let mut details = query(&load.query);
                details["file_id"] = load.file_id.into();
                details
            }
            EventType::BEGIN_LOAD_QUERY | EventType::APPEND_BLOCK | EventType::DELETE_FILE => {
                let block = Block::parse(body)?;
                json!({ "file_id": block.file_id, "bytes": block.data.len() })
            }
            EventType::GTID => {
                let gtid = GtidEvent::parse(body, event.header.server_id)?;
                json!({
                    "gtid": gtid.gtid.to_string(),
                    "flags": gtid.flags,
                    "extra_flags": gtid.extra_flags,
                    "commit_id": gtid.commit_id,
                    "xa": gtid.xa.map(|xa| xa.text()),
                    "start_alter": gtid.start_alter,
                    "thread_id": gtid.thread_id,
                })
            }
            EventType::GTID_LIST => {
                let list = GtidList::parse(body)?;
                let gtids: Vec<String> = list.entries.iter().map(ToString::to_string).collect();
                json!({ "gtids": gtids })
            }
            EventType::XID => json!({ "xid": Xid::parse(body)?.0 }),
            EventType::XA_PREPARE => json!({ "xa": XaPrepare::parse(body)?.name.text() }),
            EventType::ROTATE => {
                let rotate = Rotate::parse(body)?;
                json!({ "file": text(rotate.file), "file_position": rotate.position })
            }
            EventType::BINLOG_CHECKPOINT => json!({ "file": text(control::checkpoint(body)?) }),
            EventType::INTVAR => {
                let variable = IntVar::parse(body)?;
                json!({ "name": variable.name(), "value": variable.value })
            }
            EventType::RAND => {
                let Rand(first, second) = Rand::parse(body)?;
                json!({ "seeds": [first, second] })
            }
            EventType::USER_VAR => {
                let variable = UserVar::parse(body)?;
                json!({ "name": text(variable.name), "value": user_value(&variable.value) })
            }
            EventType::INCIDENT => {
                let incident = Incident::parse(body)?;
                json!({ "incident": incident.name(), "message": text(incident.message) })
            }
            EventType::ANNOTATE_ROWS => json!({ "statement": text(body) }),
            EventType::TABLE_MAP => self.table_map(body)?,
            _ if kind.rows().is_some() => self.rows(event)?,
            _ => Json::Null,
        })
    }

    fn table_map(&mut self, body: &[u8]) -> Result<Json, Malformed> {
        let map = TableMap::parse(body)?;
        let optional = Optional::parse(map.optional)?;
        let mut numbers = 0;
        let columns = map.columns.iter().enumerate().map(|(index, column)| {
            let name = optional.names.get(index);
            let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
            let mut unsigned = false;
            if column.is_numeric() {
                unsigned = optional.unsigned.is_some_and(|bits| {
                    bits.get(numbers / 8).is_some_and(|byte| byte >> (7 - numbers % 8) & 1 == 1)
                });
                numbers += 1;
            }
            (*column, name, unsigned)
        });
        let columns = columns.collect();
        let table = Table { database: text(map.database), name: text(map.name), columns };
        let details = json!({
            "table_id": map.table,
            "database": table.database,
            "table": table.name,
            "columns": table.columns.iter().map(|(_, name, _)| name.clone()).collect::<Vec<_>>(),
        });
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
        }
        self.tables.insert(map.table, table);
        Ok(details)
    }

    fn rows(&self, event: &Event<'_>) -> Result<Json, Malformed> {
        let mut plain = Vec::new();
        let mut event = *event;
        if event.header.kind.rows().is_some_and(|kind| kind.compressed) {
            rows::inflate(&event, &mut plain)?;
            event.header.kind = event.header.kind.plain();
            event.bytes = &plain;
        }
        let rows = Rows::parse(event.body(), event.header.kind)?;
        let operation = match rows.operation {
            Operation::Write => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        let mut details = json!({
            "table_id": rows.table,
            "operation": operation,
            "statement_end": rows.ends_statement(),
        });
        let Some(table) = self.tables.get(&rows.table) else { return Ok(details) };
        details["database"] = table.database.clone();
        details["table"] = table.name.clone();
        let list = row_list(table, &rows).map_err(|Misfit| Malformed("a row does not fit"))?;
        details["rows"] = list.into();
        Ok(details)
    }
}

fn row_list(table: &Table, rows: &Rows<'_>) -> Result<Vec<Json>, Misfit> {
    let columns: Vec<Column> = table.columns.iter().map(|(column, ..)| *column).collect();
    let mut list = Vec::new();
    let mut rest = rows.images;
    while !rest.is_empty() {
        let begin = rest.len();
        let mut next = |present| -> Result<Json, Misfit> {
            let mut image = Image::new(&columns, present, rest)?;
            let mut values = Map::new();
            while let Some((index, column, bytes)) = image.next_value()? {
                let (_, name, unsigned) = table.columns.get(index).ok_or(Misfit)?;
                let name = name.clone().unwrap_or_else(|| format!("@{}", index + 1));
                values.insert(name, bytes.map_or(Json::Null, |b| value(column, b, *unsigned)));
            }
            rest = image.rest()?;
            Ok(values.into())
        };
        let first = next(rows.columns)?;
        list.push(match rows.operation {
            Operation::Write => json!({ "after": first }),
            Operation::Delete => json!({ "before": first }),
            Operation::Update => json!({ "before": first, "after": next(rows.columns_after)? }),
        });
        if rest.len() == begin {
            return Err(Misfit);
        }
    }
    Ok(list)
}

fn query(query: &Query<'_>) -> Json {
    json!({
        "thread_id": query.thread_id,
        "error_code": query.error_code,
        "database": text(query.database),
        "statement": text(&query.text),
        "microseconds": query.session.microseconds,
    })
}

/// Text, or its bytes in base64.
fn text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Text that was made here.
fn made(write: impl FnOnce(&mut Vec<u8>)) -> Json {
    let mut made = Vec::new();
    write(&mut made);
    text(&made)
}

fn user_value(value: &UserValue<'_>) -> Json {
    match *value {
        UserValue::Null => Json::Null,
        UserValue::Text(bytes, _) => text(bytes),
        UserValue::Real(value) => value.into(),
        UserValue::Int { bits, unsigned: true } => bits.into(),
        UserValue::Int { bits, .. } => bits.cast_signed().into(),
        UserValue::Decimal { precision, scale, packed } => {
            made(|out| decimal::write(packed, precision, scale, out))
        }
    }
}

fn value(column: &Column, bytes: &[u8], unsigned: bool) -> Json {
    let Some(value) = Value::read(column, bytes) else { return Json::Null };
    match value {
        Value::Int(_, value) if unsigned => value.into(),
        Value::Int(value, _) => value.into(),
        // As short as the column's own precision allows: 3.4 and not 3.4000000953674316.
        Value::Float(value) => value.to_string().parse::<f64>().map_or(Json::Null, Json::from),
        Value::Double(value) => value.into(),
        Value::Decimal(packed, precision, scale) => {
            made(|out| decimal::write(packed, precision, scale, out))
        }
        Value::Bits(bytes, _) => crate::bytes::big_uint(bytes).into(),
        Value::Set(bytes) => crate::bytes::uint(bytes).into(),
        Value::Enum(number) => number.into(),
        Value::Year(0) => "0000".into(),
        Value::Year(year) => (1900 + u32::from(year)).to_string().into(),
        Value::Timestamp(seconds, micros, digits) => made(|out| {
            out.extend_from_slice(seconds.to_string().as_bytes());
            push_fraction(out, micros, digits);
        }),
        Value::Datetime(date, time, digits) => made(|out| {
            push_date(out, date, b'-');
            out.push(b' ');
            push_time(out, time, digits);
        }),
        Value::Time(time, digits) => made(|out| push_time(out, time, digits)),
        Value::Date(date) => made(|out| push_date(out, date, b'-')),
        Value::Text(bytes, false) => text(bytes),
        Value::Text(stored, true) => {
            let mut plain = Vec::new();
            match inflate_column(stored, &mut plain) {
                Ok(()) => text(&plain),
                Err(_) => json!({ "compressed": STANDARD.encode(stored) }),
            }
        }
        Value::Geometry(bytes) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}
