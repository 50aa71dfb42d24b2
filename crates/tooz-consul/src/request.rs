//! What is asked of Consul's keys and what is answered: the operations of a transaction, its verdict, and pages of entries.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Serialize, Serializer};
use tooz_core::Result;

use crate::connection::HttpResponse;
use crate::error::{self, Failure};

/// How many operations one transaction may have: the least of all versions.
pub(crate) const BATCH: usize = 64;

/// One operation of a transaction.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Op {
    verb: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

fn op(verb: &'static str, key: &str) -> Op {
    Op { verb, key: key.to_owned(), ..Op::default() }
}

/// That the entry was last changed at that index.
pub(crate) fn check_index(key: &str, index: u64) -> Op {
    Op { index: Some(index), ..op("check-index", key) }
}

/// That the entry is locked by that session.
pub(crate) fn check_session(key: &str, session: &str) -> Op {
    Op { session: Some(session.to_owned()), ..op("check-session", key) }
}

/// That there is no such entry.
pub(crate) fn check_absent(key: &str) -> Op {
    op("check-not-exists", key)
}

/// The entry; it must be there.
pub(crate) fn get(key: &str) -> Op {
    op("get", key)
}

/// All entries that begin with this.
pub(crate) fn get_below(prefix: &str) -> Op {
    op("get-tree", prefix)
}

/// Writes the entry; if it is locked, it stays so.
pub(crate) fn set(key: &str, value: &[u8]) -> Op {
    Op { value: Some(BASE64_STANDARD.encode(value)), ..op("set", key) }
}

/// Writes the entry if it was last changed at that index; 0: if there is none.
pub(crate) fn set_at(key: &str, value: &[u8], index: u64) -> Op {
    Op { value: Some(BASE64_STANDARD.encode(value)), index: Some(index), ..op("cas", key) }
}

/// Writes the entry and locks it by that session, which must live.
pub(crate) fn lock(key: &str, value: &[u8], session: &str) -> Op {
    let value = Some(BASE64_STANDARD.encode(value));
    Op { value, session: Some(session.to_owned()), ..op("lock", key) }
}

/// Deletes the entry; it is fine if there is none.
pub(crate) fn delete(key: &str) -> Op {
    op("delete", key)
}

/// Deletes the entry if it was last changed at that index.
pub(crate) fn delete_at(key: &str, index: u64) -> Op {
    Op { index: Some(index), ..op("delete-cas", key) }
}

/// The body of a transaction.
pub(crate) struct Transaction<'a>(pub(crate) &'a [Op]);

impl Serialize for Transaction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct One<'a> {
            #[serde(rename = "KV")]
            kv: &'a Op,
        }
        let mut all = serializer.serialize_seq(Some(self.0.len()))?;
        for kv in self.0 {
            all.serialize_element(&One { kv })?;
        }
        all.end()
    }
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum TxnResult {
    /// All was done. The entries that its operations touched or read, in their order; without values where they were not read.
    Done(Vec<KeyEntry>),
    /// Nothing was done, since these operations failed.
    Refused(Vec<usize>),
}

impl TxnResult {
    /// Whether that operation is one of those that failed.
    pub(crate) fn fails(&self, op: usize) -> bool {
        matches!(self, TxnResult::Refused(failed) if failed.contains(&op))
    }
}

/// One key with what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    /// By which session it is locked.
    pub(crate) session: Option<String>,
    /// At which index it was made, and last changed.
    pub(crate) created: u64,
    pub(crate) modified: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireEntry {
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
}

impl WireEntry {
    fn read(self) -> Result<KeyEntry> {
        let value = BASE64_STANDARD.decode(self.value.unwrap_or_default());
        Ok(KeyEntry {
            key: self.key,
            value: value.map_err(|_| error::strange("a value that is no base64"))?,
            session: self.session.filter(|session| !session.is_empty()),
            created: self.create_index,
            modified: self.modify_index,
        })
    }
}

/// Reads what was answered to a transaction.
pub(crate) fn read_transaction(answer: &HttpResponse, address: &str) -> Result<TxnResult, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        results: Option<Vec<WireResult>>,
        errors: Option<Vec<WireError>>,
    }
    #[derive(Deserialize)]
    struct WireResult {
        #[serde(rename = "KV")]
        kv: Option<WireEntry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct WireError {
        op_index: usize,
        what: String,
    }
    let strange = |what: &str| Failure { error: error::strange(what), remedy: error::Remedy::None };
    let wire: Wire = serde_json::from_slice(&answer.body).map_err(|_| strange("that of a transaction"))?;
    let errors = wire.errors.unwrap_or_default();
    if let Some(refused) = errors.iter().find(|error| error::is_refusal(&error.what)) {
        return Err(error::not_allowed(address, &refused.what));
    }
    if answer.status != 200 || !errors.is_empty() {
        return Ok(TxnResult::Refused(errors.iter().map(|error| error.op_index).collect()));
    }
    let entries = wire.results.unwrap_or_default().into_iter().filter_map(|result| result.kv).map(WireEntry::read);
    let entries: Result<Vec<KeyEntry>> = entries.collect();
    entries.map(TxnResult::Done).map_err(|error| Failure { error, remedy: error::Remedy::None })
}

/// What was read of the keys.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// In the order of the keys; none where there is nothing.
    pub(crate) entries: Vec<KeyEntry>,
    /// Of what happened after this index nothing is in it.
    pub(crate) index: u64,
}

impl Page {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    pub(crate) fn read(answer: &HttpResponse) -> Result<Self> {
        if answer.status == 404 {
            return Ok(Page { entries: Vec::new(), index: answer.index });
        }
        let entries: Vec<WireEntry> =
            serde_json::from_slice(&answer.body).map_err(|_| error::strange("a list of entries"))?;
        let entries: Result<Vec<KeyEntry>> = entries.into_iter().map(WireEntry::read).collect();
        Ok(Page { entries: entries?, index: answer.index })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, body: &str) -> HttpResponse {
        HttpResponse { status, index: 7, body: body.to_owned().into() }
    }

    #[test]
    fn a_transaction_is_written_and_its_verdict_read() {
        let ops = [check_index("s", 3), lock("k", b"v", "id"), get_below("p/")];
        let body = serde_json::to_string(&Transaction(&ops)).unwrap();
        let expected = concat!(
            r#"[{"KV":{"Verb":"check-index","Key":"s","Index":3}},"#,
            r#"{"KV":{"Verb":"lock","Key":"k","Value":"dg==","Session":"id"}},{"KV":{"Verb":"get-tree","Key":"p/"}}]"#
        );
        assert_eq!(body, expected);
        let body = r#"{"Results":[{"KV":{"LockIndex":1,"Key":"k","Flags":0,"Value":"dg==","Session":"id","CreateIndex":5,"ModifyIndex":6}},
            {"KV":{"LockIndex":0,"Key":"l","Flags":0,"Value":null,"CreateIndex":8,"ModifyIndex":9}}],"Errors":null}"#;
        let Ok(TxnResult::Done(entries)) = read_transaction(&answer(200, body), "h") else { panic!("it was done") };
        assert_eq!((entries[0].value.as_slice(), entries[0].session.as_deref()), (b"v".as_slice(), Some("id")));
        assert_eq!((entries[1].created, entries[1].modified, entries[1].session.as_deref()), (8, 9, None));
        let body = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"key \"k\" is held"}]}"#;
        let refused = read_transaction(&answer(409, body), "h").unwrap();
        assert!(refused.fails(1) && !refused.fails(0));
        let body = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"Permission denied"}]}"#;
        let failure = read_transaction(&answer(409, body), "h").unwrap_err();
        assert_eq!(failure.error.kind(), tooz_core::ErrorKind::Unauthorized);
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100_u16..600, body: String) {
            let _ = read_transaction(&answer(status, &body), "h");
            let _ = Page::read(&answer(status, &body));
        }
    }
}
