//! Arbitrary bytes as a stream: the reader and the rules between chunks.
//!
//! The first byte chooses how the payload is read. What is found must hold together: positions
//! only advance, no more payload bytes come out than went in, and no path leads outside.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xbstream::{Chunk, StreamPath, StreamReader, StreamState};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, stream)) = data.split_first() else { return };
    let mut buffer = vec![0; 1 + usize::from(choice) * 8];
    let mut reader = StreamReader::new(stream);
    let mut state = StreamState::new();
    let mut payload_bytes = 0;
    let mut position = 0;
    while let Ok(Some(chunk)) = reader.next_chunk() {
        assert!(reader.position() > position && reader.position() <= stream.len() as u64);
        position = reader.position();
        assert_confined(chunk.path());
        let accepted = match &chunk {
            Chunk::Payload { path, offset, len, rewrite, .. } => {
                state.payload(path, *offset, *len, *rewrite).map(drop)
            }
            Chunk::End { path, rewrite } => state.end(path, *rewrite).map(drop),
            Chunk::Seek { path, offset, rewrite } => state.seek(path, *offset, *rewrite).map(drop),
            Chunk::Rename { from, to } => {
                assert_confined(to);
                state.rename(from, to).map(drop)
            }
            Chunk::Remove { target } => state.remove(target).map(|gone| {
                assert!(gone.iter().all(|path| target.covers(path)));
                assert!(gone.iter().all(|path| !state.contains(path.as_bytes())));
            }),
            Chunk::Ignorable { .. } => Ok(()),
        };
        // Odd choices leave payloads to the reader to skip.
        while choice % 2 == 0 {
            match reader.read_payload(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(got) => payload_bytes += got,
            }
        }
        assert!(payload_bytes <= stream.len());
        if accepted.is_err() {
            return;
        }
    }
    let _ = state.finish();
});

fn assert_confined(path: &StreamPath) {
    for component in path.components() {
        assert!(!component.is_empty() && component != b"." && component != b"..");
        assert!(!component.contains(&0) && !component.contains(&b'/'));
    }
}
