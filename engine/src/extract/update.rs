//! Writing what differs into a file that exists.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is compared, and written or not, as a whole.
const BLOCK: usize = 4096;

/// Makes `file` hold `bytes` at `offset`; how many bytes had to be written.
pub fn update(file: &File, offset: u64, bytes: &[u8]) -> io::Result<u64> {
    let mut old = vec![0; bytes.len()];
    let there = read_up_to(file, offset, &mut old)?;
    let mut written = 0;
    let mut start = 0;
    while start < bytes.len() {
        let differs = |at: usize| {
            let end = (at + BLOCK).min(bytes.len());
            end > there || bytes.get(at..end) != old.get(at..end)
        };
        if !differs(start) {
            start += BLOCK;
            continue;
        }
        let mut end = start;
        while end < bytes.len() && differs(end) {
            end += BLOCK;
        }
        let run = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
        file.write_all_at(run, offset + start as u64)?;
        written += run.len() as u64;
        start = end;
    }
    Ok(written)
}

fn read_up_to(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest @ [_, ..]) = buffer.get_mut(done..) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let file = tempfile::tempfile().unwrap();
        let mut content = vec![1; 5 * BLOCK + 100];
        assert_eq!(update(&file, 0, &content).unwrap(), content.len() as u64);
        assert_eq!(update(&file, 0, &content).unwrap(), 0);
        content[2 * BLOCK + 7] = 2;
        content[3 * BLOCK] = 2;
        assert_eq!(update(&file, 0, &content).unwrap(), 2 * BLOCK as u64);
        // Zeros behind the end are content, too.
        content.extend([0; 10]);
        assert_eq!(update(&file, 0, &content).unwrap(), 110);
        let mut found = vec![0; content.len() + 1];
        assert_eq!(read_up_to(&file, 0, &mut found).unwrap(), content.len());
        assert_eq!(found[..content.len()], content);
        assert_eq!(update(&file, BLOCK as u64, &content[BLOCK..]).unwrap(), 0);
    }
}
