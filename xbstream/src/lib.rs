//! The xbstream container.
