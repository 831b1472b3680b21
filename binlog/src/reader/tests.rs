//! Where files end that were not closed.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::event::rows::stamp;

/// Bytes of an event between header and checksum.
const BODY: usize = 10_000;
const LENGTH: u64 = (HEADER_LEN + BODY + CHECKSUM_LEN) as u64;

/// A file of a server that crashed, with so many events behind the first one; where these begin.
fn crashed(events: usize) -> (Vec<u8>, u64) {
    let mut file = MAGIC.to_vec();
    let mut add = |kind: EventType, flags: u16, body: &[u8]| {
        let length = HEADER_LEN + body.len() + CHECKSUM_LEN;
        let end = (file.len() + length) as u32;
        let mut event = [&[0; 4], &[kind.0][..], &[1, 0, 0, 0]].concat();
        event.extend((length as u32).to_le_bytes());
        event.extend(end.to_le_bytes());
        event.extend(flags.to_le_bytes());
        event.extend(body);
        event.resize(length, 0);
        stamp(&mut event, true);
        file.extend(event);
        u64::from(end)
    };
    let mut version = [0; 50];
    version[..15].copy_from_slice(b"10.11.1-MariaDB");
    let format =
        [&4_u16.to_le_bytes()[..], &version, &[0; 4], &[HEADER_LEN as u8], &[0; 171], &[1]];
    let first = add(EventType::FORMAT_DESCRIPTION, flag::IN_USE, &format.concat());
    for _ in 0..events {
        add(EventType::QUERY, 0, &[0; BODY]);
    }
    (file, first)
}

/// How many events are read, and how it ends.
fn read(file: &[u8]) -> (u64, Result<Option<Torn>, Fault>) {
    let mut reader = Reader::new(file, "log", ReadOptions::default()).unwrap();
    let mut events = 0;
    loop {
        match reader.next_whole() {
            Ok(Some(_)) => events += 1,
            Ok(None) => return (events, Ok(reader.torn())),
            Err(error) => return (events, Err(error.fault)),
        }
    }
}

#[test]
fn damage_with_much_behind_it_is_no_end() {
    let (file, first) = crashed(300);
    assert!(matches!(read(&file), (301, Ok(None))));
    // In the body, and in a length: too large, too small, beyond the end.
    for (at, mask) in
        [(100, 1_u8), (at::LENGTH + 3, 0x80), (at::LENGTH + 1, 0xff), (at::LENGTH + 2, 0xf0)]
    {
        let mut damaged = file.clone();
        let offset = first + 30 * LENGTH;
        damaged[offset as usize + at] ^= mask;
        let (events, ended) = read(&damaged);
        assert_eq!(events, 31, "{at}");
        assert!(ended.is_err(), "{at}: {ended:?}");
        // Within what a server writes at once it is the end, and said to be.
        let mut torn = file.clone();
        let offset = first + 290 * LENGTH;
        torn[offset as usize + at] ^= mask;
        let (events, ended) = read(&torn);
        assert_eq!((events, ended.unwrap().unwrap().offset), (291, offset), "{at}");
    }
}

#[test]
fn a_torn_end_is_told() {
    let (file, first) = crashed(3);
    let cut = first + 2 * LENGTH + 70;
    let (events, ended) = read(&file[..cut as usize]);
    assert_eq!(events, 3);
    assert_eq!(ended.unwrap(), Some(Torn { offset: first + 2 * LENGTH, bytes: 70 }));
    // Zeros, as file systems leave them.
    let mut zeros = file.clone();
    zeros.extend([0; 5000]);
    let (events, ended) = read(&zeros);
    assert_eq!((events, ended.unwrap().unwrap().bytes), (4, 5000));
    zeros.resize(zeros.len() + TORN_MAX, 0);
    assert!(read(&zeros).1.is_err());
}

#[test]
fn a_long_event_that_was_being_written_is_the_end() {
    let (mut file, first) = crashed(2);
    let offset = first + LENGTH;
    let length = 3 * TORN_MAX as u32;
    file.truncate(offset as usize + HEADER_LEN);
    file[offset as usize + at::LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
    let end = offset as u32 + length;
    file[offset as usize + at::END_POSITION..][..4].copy_from_slice(&end.to_le_bytes());
    file.extend(vec![7; 2 * TORN_MAX]);
    let (events, ended) = read(&file);
    let bytes = (HEADER_LEN + 2 * TORN_MAX) as u64;
    assert_eq!((events, ended.unwrap()), (2, Some(Torn { offset, bytes })));
    // One bit more, and its length is not what it says.
    file[offset as usize + at::LENGTH + 3] ^= 1;
    assert!(read(&file).1.is_err());
}
