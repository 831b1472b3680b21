//! Tablespaces: flags, page 0, extents, file names.
