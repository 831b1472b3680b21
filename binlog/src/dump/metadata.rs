//! Columns of a table, as far as its map tells them.

use super::text::{push_escaped, put};
use crate::bytes::Read;
use crate::collation::{BINARY, Collation};
use crate::event::table_map::{Optional, TableMap};
use crate::row::{Column, Kind, code};

/// What the stock tool takes for a number. The server also counts YEAR.
fn is_number(column: &Column) -> bool {
    matches!(column.kind, Kind::Int(_) | Kind::Decimal(..) | Kind::Float | Kind::Double)
}

/// Kinds of geometry.
const GEOMETRIES: [&str; 8] = [
    "GEOMETRY",
    "POINT",
    "LINESTRING",
    "POLYGON",
    "MULTIPOINT",
    "MULTILINESTRING",
    "MULTIPOLYGON",
    "GEOMETRYCOLLECTION",
];

/// Appends comments on the columns and on the primary key.
pub(super) fn push_columns(out: &mut Vec<u8>, map: &TableMap<'_>) -> Read<()> {
    let optional = Optional::parse(map.optional)?;
    out.extend_from_slice(b"# Columns(");
    let (mut numbers, mut texts, mut members) = (0, 0, 0);
    let (mut enums, mut sets, mut geometries) = (0, 0, 0);
    let last = map.columns.len().saturating_sub(1);
    for (index, column) in map.columns.iter().enumerate() {
        let is_member = matches!(column.kind, Kind::Enum(_) | Kind::Set(_));
        let is_text = matches!(
            column.code,
            code::STRING | code::VAR_STRING | code::VARCHAR | code::BLOB | code::GEOMETRY
        ) && !is_member;
        let mut collation = None;
        if is_text {
            collation = optional.collations.of(texts);
            texts += 1;
        } else if is_member {
            collation = optional.enum_collations.of(members);
            members += 1;
        }
        let is_binary = collation.is_none_or(|number| number == BINARY);
        let named = collation.and_then(Collation::of);
        if let Some(name) = optional.names.get(index) {
            push_escaped(out, name, b'`');
            out.push(b' ');
        }
        let geometry = match column.kind {
            Kind::Geometry(_) => {
                geometries += 1;
                optional.geometries.get(geometries - 1).copied().unwrap_or(0)
            }
            _ => 0,
        };
        if !push_type(out, column, named.as_ref().filter(|_| !is_binary), geometry) {
            put!(out, "INVALID_TYPE({})", column.code);
            continue;
        }
        if is_number(column)
            && let Some(unsigned) = optional.unsigned
        {
            if unsigned.get(numbers / 8).is_some_and(|byte| byte >> (7 - numbers % 8) & 1 == 1) {
                out.extend_from_slice(b" UNSIGNED");
            }
            numbers += 1;
        }
        if !column.nullable {
            out.extend_from_slice(b" NOT NULL");
        }
        let list = match column.kind {
            Kind::Enum(_) => {
                enums += 1;
                optional.enum_values.get(enums - 1)
            }
            Kind::Set(_) => {
                sets += 1;
                optional.set_values.get(sets - 1)
            }
            _ => None,
        };
        if let Some(list) = list {
            for (index, value) in list.iter().enumerate() {
                out.push(if index == 0 { b'(' } else { b',' });
                push_escaped(out, value, b'\'');
            }
            out.push(b')');
        }
        if let Some(collation) = named
            && (is_member || !is_binary)
        {
            put!(out, " CHARSET {} COLLATE {}", collation.charset, collation.name);
        }
        if index != last {
            out.extend_from_slice(b",\n#         ");
        }
    }
    out.extend_from_slice(b")\n");
    push_primary_key(out, &optional);
    Ok(())
}

fn push_primary_key(out: &mut Vec<u8>, optional: &Optional<'_>) {
    if optional.primary_key.is_empty() {
        return;
    }
    out.extend_from_slice(b"# Primary Key(");
    for (index, (column, prefix)) in optional.primary_key.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        let name = usize::try_from(*column).ok().and_then(|column| optional.names.get(column));
        match name {
            Some(name) => out.extend_from_slice(name),
            None => put!(out, "{column}"),
        }
        if *prefix != 0 {
            put!(out, "({prefix})");
        }
    }
    out.extend_from_slice(b")\n");
}

/// Appends the type of a column; `false` for types that the stock tool has no name for.
fn push_type(out: &mut Vec<u8>, column: &Column, text: Option<&Collation>, geometry: u64) -> bool {
    let fraction = |name: &str, digits: u8| match digits {
        0 => name.to_owned(),
        digits => format!("{name}({digits})"),
    };
    let characters = |max: u16| u32::from(max) / text.map_or(1, Collation::char_bytes);
    let name = match column.kind {
        Kind::Int(1) => "TINYINT".to_owned(),
        Kind::Int(2) => "SMALLINT".to_owned(),
        Kind::Int(3) => "MEDIUMINT".to_owned(),
        Kind::Int(4) => "INT".to_owned(),
        Kind::Int(_) => "BIGINT".to_owned(),
        Kind::Float => "FLOAT".to_owned(),
        Kind::Double => "DOUBLE".to_owned(),
        Kind::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
        Kind::Bit(bits) => format!("BIT({bits})"),
        Kind::Timestamp2(digits) => fraction("TIMESTAMP", digits),
        Kind::Datetime2(digits) => fraction("DATETIME", digits),
        Kind::Time2(digits) => fraction("TIME", digits),
        Kind::Date => "DATE".to_owned(),
        Kind::Year => "YEAR".to_owned(),
        Kind::Enum(_) => "ENUM".to_owned(),
        Kind::Set(_) => "SET".to_owned(),
        Kind::Blob { prefix, compressed: false } => {
            let size = ["", "TINY", "", "MEDIUM", "LONG"].get(usize::from(prefix)).unwrap_or(&"");
            format!("{size}{}", if text.is_some() { "TEXT" } else { "BLOB" })
        }
        Kind::Varchar { max, compressed: false } => match text {
            Some(_) => format!("VARCHAR({})", characters(max)),
            None => format!("VARBINARY({max})"),
        },
        Kind::Char(max) => match text {
            Some(_) => format!("CHAR({})", characters(max)),
            None => format!("BINARY({max})"),
        },
        Kind::Geometry(_) => match usize::try_from(geometry).ok().and_then(|g| GEOMETRIES.get(g)) {
            Some(name) => (*name).to_owned(),
            None => format!("INVALID_GEOMETRY_TYPE({geometry})"),
        },
        Kind::Timestamp
        | Kind::Datetime
        | Kind::Time
        | Kind::Blob { .. }
        | Kind::Varchar { .. }
        | Kind::Unknown => return false,
    };
    out.extend_from_slice(name.as_bytes());
    true
}
