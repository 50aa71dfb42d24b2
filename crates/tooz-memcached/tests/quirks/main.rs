//! What is memcached's own.
fn main() {}
