#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// As the stock tool of 10.5.23 copied it from an idle server.
const REAL: &[u8] = include_bytes!("../../../testdata/redo/10.5-idle/ib_logfile0");
const START: Lsn = Lsn(45079);

fn framing(encrypted: bool) -> Framing {
    BlockLogHeader { creator: String::new(), encrypted }.framing()
}

/// Cuts `payload` into blocks, the first of which `from` is in.
fn wrap(framing: Framing, from: Lsn, mut payload: &[u8]) -> Vec<u8> {
    let (mut out, mut lsn, mut skip) = (Vec::new(), block_start(from), offset_in_block(from));
    loop {
        let start = skip.max(block::PAYLOAD);
        let here = payload.len().min(framing.payload_end - start);
        let full = start + here == framing.payload_end;
        let mut block = [0; BLOCK_SIZE];
        block[..4].copy_from_slice(&number(lsn).to_be_bytes());
        let used = if full { BLOCK_SIZE } else { start + here };
        block[4..6].copy_from_slice(&(used as u16).to_be_bytes());
        block[start..start + here].copy_from_slice(&payload[..here]);
        let crc = crc32c(&block[..CRC]);
        block[CRC..].copy_from_slice(&crc.to_be_bytes());
        out.extend(block);
        if !full {
            return out;
        }
        payload = &payload[here..];
        (lsn, skip) = (lsn.advanced(BLOCK_SIZE as u64), 0);
    }
}

#[test]
fn a_real_copy_is_read_and_its_header_rebuilt() {
    let header = BlockLogHeader::parse(REAL).unwrap();
    assert_eq!(header.creator, "Backup 10.5.23-MariaDB");
    let checkpoint = BlockCheckpoint::newest(&REAL[..HEADER_SIZE]).unwrap();
    assert_eq!((checkpoint.number, checkpoint.lsn), (6, START));
    assert!(header.backup(&header.creator, &checkpoint) == REAL[..HEADER_SIZE]);

    let layout = Layout::new(&checkpoint, REAL.len() as u64, 1).unwrap();
    let place = layout.place(block_start(START));
    assert_eq!((place.offset, place.left), (2048, 512));
    let (framing, mut payload) = (header.framing(), Vec::new());
    let stop = framing.unwrap(&REAL[HEADER_SIZE..], START, &NotEncrypted, &mut payload);
    assert_eq!(stop, Stop::NoRecord);
    let mtr = framing.next(&payload, START).unwrap();
    // FILE_CHECKPOINT(45079).
    assert_eq!(mtr.records, b"\xfa\0\0\0\0\0\0\0\0\xb0\x17");
    assert_eq!(mtr.end, Lsn(45091));
    assert_eq!(framing.next(&payload[12..], mtr.end), Err(Stop::NeedMore));
}

#[test]
fn every_flipped_bit_is_noticed() {
    for bit in 0..REAL.len() * 8 {
        let mut log = REAL.to_vec();
        log[bit / 8] ^= 1 << (bit % 8);
        // Whether a block is the first of a write is nobody's business, but it is in the CRC.
        let read = BlockLogHeader::parse(&log).is_ok()
            && BlockCheckpoint::newest(&log[..HEADER_SIZE]).is_ok()
            && check(log[HEADER_SIZE..].first_chunk().unwrap(), START).is_ok();
        let meant = (512..1024).contains(&(bit / 8)) || bit / 8 < 512 || bit / 8 >= HEADER_SIZE;
        assert_eq!(read, !meant, "bit {bit}");
    }
}

#[test]
fn the_checkpoint_with_the_larger_number_wins() {
    let mut header = REAL[..HEADER_SIZE].to_vec();
    let (older, newer) = header.split_at_mut(CHECKPOINT_OFFSETS[1]);
    let slot = &older[CHECKPOINT_OFFSETS[0]..][..BLOCK_SIZE];
    newer.copy_from_slice(slot);
    newer[7] = 7;
    // The LSN does not decide.
    newer[15] -= 1;
    assert_eq!(BlockCheckpoint::newest(&header).unwrap().number, 6, "a damaged one counts");
    let crc = crc32c(&header[CHECKPOINT_OFFSETS[1]..][..CRC]);
    header[CHECKPOINT_OFFSETS[1] + CRC..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(BlockCheckpoint::newest(&header).unwrap().number, 7);
}

#[test]
fn a_log_that_ends_inside_a_block_is_cut_there() {
    let framing = framing(false);
    let payload = [vec![0x32, 1, 1, 0, 0x32, 2, 2, 0, 0x3f], vec![9; 600]].concat();
    let log = wrap(framing, START, &payload);
    let end = framing.advanced(START, 8);
    let last = framing.last_block(log.first_chunk().unwrap(), end);
    let mut found = Vec::new();
    assert_eq!(framing.unwrap(&last, START, &NotEncrypted, &mut found), Stop::NoRecord);
    assert_eq!(found, &payload[..8]);
}

#[test]
fn several_files_are_filled_one_after_the_other() {
    let mut checkpoint = BlockCheckpoint::newest(&REAL[..HEADER_SIZE]).unwrap();
    const BLOCKS: u64 = 10;
    let size = HEADER_SIZE as u64 + BLOCKS * 512;
    // Block 8 of the second of three files.
    checkpoint.offset = size + HEADER_SIZE as u64 + 8 * 512 + START.0 % 512;
    let layout = Layout::new(&checkpoint, size, 3).unwrap();
    assert_eq!(layout.capacity(), 3 * BLOCKS * 512);
    let start = block_start(START);
    for (blocks, file, block) in
        [(0, 1, 8), (1, 1, 9), (2, 2, 0), (12, 0, 0), (29, 1, 7), (30, 1, 8)]
    {
        let place = layout.place(start.advanced(blocks * 512));
        assert_eq!(place.file, file, "{blocks}");
        assert_eq!(place.offset, HEADER_SIZE as u64 + block * 512, "{blocks}");
        assert_eq!(place.left, (BLOCKS - block) * 512, "{blocks}");
    }
    assert!(Layout::new(&checkpoint, size, 1).is_err());
    checkpoint.offset += 1;
    assert!(Layout::new(&checkpoint, size, 3).is_err());
}

proptest! {
    #[test]
    fn payload_survives_being_cut_into_blocks(
        payload in proptest::collection::vec(any::<u8>(), 0..3000),
        first in 12u64..500,
        encrypted: bool,
    ) {
        let framing = framing(encrypted);
        let from = Lsn(512 * 1000 + first);
        let log = wrap(framing, from, &payload);
        let mut found = Vec::new();
        prop_assert_eq!(framing.unwrap(&log, from, &NotEncrypted, &mut found), Stop::NoRecord);
        prop_assert!(found == payload);
        // The end that arithmetic gives is where the last block says it is.
        let end = framing.advanced(from, payload.len() as u64);
        let last = block_start(from).advanced(log.len() as u64 - 512);
        let used = u16_at(&log[log.len() - 512..], block::DATA_LENGTH).unwrap();
        prop_assert_eq!(end, last.advanced(u64::from(used)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, lsn: u64, offset: u64, size in 0u64..1 << 40) {
        let mut log = bytes.clone();
        log.resize(HEADER_SIZE, 7);
        let _ = BlockLogHeader::parse(&log);
        let _ = BlockCheckpoint::newest(&log);
        let stored = [0; BLOCK_SIZE];
        let checkpoint =
            BlockCheckpoint { number: 1, lsn: Lsn(lsn), end_lsn: Lsn(0), offset, stored };
        if let Ok(layout) = Layout::new(&checkpoint, size, 2) {
            let _ = layout.place(Lsn(!lsn));
        }
        let framing = framing(lsn % 2 == 0);
        let mut payload = Vec::new();
        let _ = framing.unwrap(&log, Lsn(lsn), &NotEncrypted, &mut payload);
        let _ = framing.next(&bytes, Lsn(lsn));
        let _ = framing.last_block(log.first_chunk().unwrap(), Lsn(lsn));
    }
}
