//! The parts of a transaction: what it compares, reads, writes and deletes, and what its answer holds.

use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnResponse,
};
use crate::proto::mvccpb::KeyValue;

/// How many keys are read or deleted in one transaction; etcd allows 128 operations.
pub(crate) const BATCH: usize = 100;

/// All keys that begin with the same bytes: the first of them, and the first that does not.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl Prefix {
    /// All keys below `folder`, which ends in a slash.
    pub(crate) fn below(folder: &str) -> Self {
        debug_assert!(folder.ends_with('/'), "else a name that begins like another's would be among its keys");
        let mut to = folder.as_bytes().to_vec();
        // The byte after the slash: no key in the folder reaches it.
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Prefix { from: folder.into(), to }
    }

    /// All keys below `folder`, without the key that is the folder itself.
    pub(crate) fn inside(folder: &str) -> Self {
        let mut inside = Prefix::below(folder);
        inside.from.push(0);
        inside
    }

    /// All of these keys without some, in ranges. They are in order.
    pub(crate) fn without(&self, some: &[Vec<u8>]) -> Vec<Prefix> {
        let mut ranges = Vec::new();
        let mut from = self.from.clone();
        for one in some {
            let mut after = one.clone();
            after.push(0);
            let before = std::mem::replace(&mut from, after);
            if before < *one {
                ranges.push(Prefix { from: before, to: one.clone() });
            }
        }
        ranges.push(Prefix { from, to: self.to.clone() });
        ranges
    }

    /// Whether that key is one of them.
    #[cfg(test)]
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && key < self.to.as_slice()
    }
}

fn compare(key: &[u8], target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        range_end: Vec::new(),
    }
}

/// The key does not exist.
pub(crate) fn absent(key: &[u8]) -> Compare {
    created_at(key, 0)
}

/// The key exists.
pub(crate) fn exists(key: &[u8]) -> Compare {
    Compare { result: CompareResult::NotEqual.into(), ..absent(key) }
}

/// No key of these exists: etcd compares each key that does, and where there is none, one that was never created.
pub(crate) fn none_of(keys: &Prefix) -> Compare {
    Compare { range_end: keys.to.clone(), ..absent(&keys.from) }
}

/// The key exists and was created at that revision.
pub(crate) fn created_at(key: &[u8], revision: i64) -> Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(revision))
}

/// The key exists and was last written at that revision.
pub(crate) fn written_at(key: &[u8], revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

/// The key exists and was written so often since its creation.
pub(crate) fn version_is(key: &[u8], version: i64) -> Compare {
    compare(key, CompareTarget::Version, TargetUnion::Version(version))
}

pub(crate) fn put(key: &[u8], value: impl Into<Vec<u8>>, lease: i64) -> RequestOp {
    let request = PutRequest { key: key.into(), value: value.into(), lease };
    RequestOp { request: Some(Request::RequestPut(request)) }
}

pub(crate) fn delete(key: &[u8]) -> RequestOp {
    let request = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
    RequestOp { request: Some(Request::RequestDeleteRange(request)) }
}

pub(crate) fn get(range: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(range)) }
}

/// One key, with its value.
pub(crate) fn one(key: &[u8]) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

/// One key, without its value.
pub(crate) fn without_value(key: &[u8]) -> RangeRequest {
    RangeRequest { keys_only: true, ..one(key) }
}

/// All of these keys, with their values.
pub(crate) fn all(keys: &Prefix) -> RangeRequest {
    RangeRequest { key: keys.from.clone(), range_end: keys.to.clone(), ..RangeRequest::default() }
}

/// At most so many of these keys, without their values, the first by name, and how many there are.
///
/// In any other order etcd reads all of them first.
pub(crate) fn some(keys: &Prefix, limit: i64) -> RangeRequest {
    RangeRequest { limit, keys_only: true, ..all(keys) }
}

/// At most so many of these keys, without their values, the last created one first.
pub(crate) fn newest(keys: &Prefix, limit: i64) -> RangeRequest {
    RangeRequest {
        limit,
        keys_only: true,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Create.into(),
        ..all(keys)
    }
}

/// The first created one of these keys, with its value.
pub(crate) fn oldest(keys: &Prefix) -> RangeRequest {
    RangeRequest { limit: 1, sort_order: SortOrder::Ascend.into(), sort_target: SortTarget::Create.into(), ..all(keys) }
}

/// The revision at which a transaction was carried out.
pub(crate) fn revision_of(response: &TxnResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// The answers to the `get`s of a transaction, in their order.
pub(crate) fn ranges(response: TxnResponse) -> Vec<RangeResponse> {
    let answers = response.responses.into_iter().filter_map(|answer| match answer.response {
        Some(Response::ResponseRange(range)) => Some(range),
        _ => None,
    });
    answers.collect()
}

/// The first key that the first `get` of a transaction found.
pub(crate) fn first(response: TxnResponse) -> Option<KeyValue> {
    ranges(response).into_iter().next()?.kvs.into_iter().next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::etcdserverpb::{PutResponse, ResponseOp};

    proptest! {
        #[test]
        fn all_but_some_are_the_rest(keys: std::collections::BTreeSet<String>, asked: String) {
            let folder = Prefix::inside("/m/g/");
            let keys = keys.into_iter().filter(|key| !key.is_empty());
            let keys: Vec<_> = keys.map(|key| format!("/m/g/{key}").into_bytes()).collect();
            let rest = folder.without(&keys);
            prop_assert!(keys.iter().all(|key| !rest.iter().any(|range| range.has(key))));
            let asked = format!("/m/g/{asked}").into_bytes();
            let is_left = folder.has(&asked) && !keys.contains(&asked);
            prop_assert_eq!(rest.iter().any(|range| range.has(&asked)), is_left);
            prop_assert!(rest.iter().all(|range| range.from < range.to));
        }

        #[test]
        fn answers_of_any_shape_are_read(shapes: Vec<Option<bool>>) {
            let of = |shape: &Option<bool>| ResponseOp {
                response: shape.map(|is_range| {
                    let range = RangeResponse { count: 7, ..RangeResponse::default() };
                    if is_range { Response::ResponseRange(range) } else { Response::ResponsePut(PutResponse::default()) }
                }),
            };
            let response = TxnResponse { responses: shapes.iter().map(of).collect(), ..TxnResponse::default() };
            prop_assert_eq!(revision_of(&response), 0);
            prop_assert_eq!(first(response.clone()), None);
            prop_assert_eq!(ranges(response).len(), shapes.iter().filter(|shape| **shape == Some(true)).count());
        }
    }
}
