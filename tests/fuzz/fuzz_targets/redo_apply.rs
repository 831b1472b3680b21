//! Arbitrary records on an arbitrary page.
//!
//! Layout of the input: 1 byte page size and kind, 2 bytes length of the page's start, that many
//! bytes, which the page repeats or begins with, then records. Records can initialise the page
//! themselves, so the fuzzer can get to valid index and undo pages and grow them.

#![no_main]

use innodb::redo::apply::{ApplyTarget, apply};
use innodb::redo::record::Bodies;
use innodb::{PageId, PageNo, SpaceId};
use libfuzzer_sys::fuzz_target;

const SIZES: [usize; 6] = [1024, 4096, 8192, 16384, 32768, 65536];

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Some((&start_len, rest)) = rest.split_first_chunk() else { return };
    let start_len = usize::from(u16::from_be_bytes(start_len)).min(rest.len());
    let (start, records) = rest.split_at(start_len);
    let size = SIZES[usize::from(choice & 7) % SIZES.len()];
    let target = ApplyTarget {
        page: PageId { space: SpaceId(5), page: PageNo(u32::from(choice >> 5)) },
        zip: choice & 8 != 0,
    };

    let mut page = first_page(start, size, choice & 16 != 0);
    let steps = replay(&mut page, target, records);
    let mut again = first_page(start, size, choice & 16 != 0);
    assert_eq!(steps, replay(&mut again, target, records));
    assert!(page == again, "the same records had two effects");
});

fn first_page(start: &[u8], size: usize, repeat: bool) -> Vec<u8> {
    let mut page: Vec<u8> = if repeat {
        start.iter().copied().cycle().take(size).collect()
    } else {
        start.iter().copied().take(size).collect()
    };
    page.resize(size, 0);
    page
}

/// How many records were applied before one did not fit.
fn replay(page: &mut [u8], target: ApplyTarget, records: &[u8]) -> usize {
    let mut steps = 0;
    for body in Bodies::new(records) {
        let Ok(body) = body else { break };
        if apply(page, target, &body).is_err() {
            break;
        }
        steps += 1;
    }
    steps
}
