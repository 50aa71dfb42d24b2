//! Which layout a namespace is kept in: a record beside its keys, so that two versions of tooz never hold one lock by two layouts.
//!
//! The record is read when a session connects, written by the first who owns something, and compared in the same transaction that makes
//! a session or a group. A namespace without one was made before there were records, and is kept in layout 1.

use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
use tooz_core::{Error, Namespace, Result};

use crate::keys::{Keys, read, write};
use crate::proto::etcdserverpb::{Compare, RequestOp};
use crate::proto::mvccpb::KeyValue;
use crate::request::{get, one, put, written_at};

/// The layout that is described in `keys.rs`. It grows with every change by which two versions would not see each other's keys.
const SPOKEN: u32 = 1;

#[derive(Serialize, Deserialize)]
struct LayoutRecord {
    layout: u32,
}

/// The record of one namespace, as this session knows it.
pub(crate) struct Layout {
    namespace: Namespace,
    key: Vec<u8>,
    record: Vec<u8>,
    /// The revision at which it was written; 0: there is none yet.
    written: AtomicI64,
}

impl Layout {
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        Ok(Layout {
            namespace: namespace.clone(),
            key: Keys::new(namespace).layout(),
            record: write(&LayoutRecord { layout: SPOKEN })?,
            written: AtomicI64::new(0),
        })
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Takes note of what stands there, and refuses what is not this layout.
    pub(crate) fn learn(&self, found: Option<&KeyValue>) -> Result<()> {
        let Some(found) = found else {
            self.written.store(0, Ordering::Relaxed);
            return Ok(());
        };
        match read::<LayoutRecord>(&found.value) {
            Some(record) if record.layout == SPOKEN => {
                self.written.store(found.mod_revision, Ordering::Relaxed);
                Ok(())
            }
            Some(record) => Err(Error::foreign_layout(&self.namespace, record.layout, SPOKEN)),
            None => {
                let key = String::from_utf8_lossy(&self.key);
                let found = format!("that can't be read (what stands at {key} is no record of one)");
                Err(Error::foreign_layout(&self.namespace, found, SPOKEN))
            }
        }
    }

    /// That the record is as it was learned; together with [`record`](Self::record) on success and [`look`](Self::look) on failure.
    pub(crate) fn unchanged(&self) -> Compare {
        written_at(&self.key, self.written.load(Ordering::Relaxed))
    }

    /// What writes the record where there was none.
    pub(crate) fn record(&self) -> Option<RequestOp> {
        (self.written.load(Ordering::Relaxed) == 0).then(|| put(&self.key, self.record.clone(), 0))
    }

    pub(crate) fn look(&self) -> RequestOp {
        get(one(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_of_this_layout_is_accepted() {
        let layout = Layout::new(&"x".parse().unwrap()).unwrap();
        let there = |value: &str| KeyValue { value: value.into(), mod_revision: 7, ..KeyValue::default() };
        assert!(layout.learn(None).is_ok() && layout.record().is_some());
        assert!(layout.learn(Some(&there("{\"layout\": 1, \"since\": \"0.1\"}"))).is_ok());
        assert!(layout.record().is_none(), "it is not written twice");
        for (value, words) in [("{\"layout\":2}", "layout 2"), ("garbage", "can't be read"), ("", "can't be read")] {
            let error = layout.learn(Some(&there(value))).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("layout 1"), "{error}");
        }
    }
}
