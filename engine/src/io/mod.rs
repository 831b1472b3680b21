//! Files, buffers and `io_uring`; the only `unsafe` of the project.
