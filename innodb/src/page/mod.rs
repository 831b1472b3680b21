//! Pages: header, trailer, types, checksums, verification.
