//! etcd's wire protocol as far as this driver speaks it. The code beside this file is made from `proto/*.proto` by
//! `cargo xtask codegen` and checked in, so that a build needs no protobuf compiler.

// What a generator writes follows its own rules, and etcd's names are etcd's.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    non_snake_case,
    clippy::all,
    clippy::pedantic,
    clippy::nursery
)]

pub(crate) mod etcdserverpb {
    include!("etcdserverpb.rs");
}

pub(crate) mod mvccpb {
    include!("mvccpb.rs");
}
