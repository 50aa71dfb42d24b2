//! Servers under faults: clusters of them, ways between them that can be cut, and a pooler in between.

pub(crate) mod cluster;
pub(crate) mod pgbouncer;
pub(crate) mod proxy;
