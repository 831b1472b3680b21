//! Binary log positions and GTIDs.
