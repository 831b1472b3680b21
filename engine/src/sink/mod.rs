//! Where a backup goes: a folder or an xbstream.
