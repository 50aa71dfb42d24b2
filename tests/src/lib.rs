//! Nothing here: the package is for its tests.
