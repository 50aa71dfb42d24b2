//! Values by key, each for as long as a handle to it is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::base::mutex::{Mutex, MutexGuard};

pub(crate) struct Registry<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Registry(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V> Registry<K, V> {
    fn entries(&self) -> MutexGuard<'_, HashMap<K, Weak<V>>> {
        self.0.lock()
    }

    /// The value of that key that is still kept, or a new one.
    pub(crate) fn get_or_make(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.entries();
        if let Some(value) = entries.get(key).and_then(Weak::upgrade) {
            return value;
        }
        let value = Arc::new(make());
        entries.insert(key.clone(), Arc::downgrade(&value));
        value
    }

    /// Takes the entry of a value that has gone out, unless there is a new one.
    pub(crate) fn clear(&self, key: &K) {
        let mut entries = self.entries();
        if entries.get(key).is_some_and(|value| value.strong_count() == 0) {
            entries.remove(key);
        }
    }

    /// All that are still kept.
    pub(crate) fn all(&self) -> Vec<Arc<V>> {
        self.entries().values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shared_as_long_as_somebody_has_it() {
        let registry = Registry::default();
        let one = registry.get_or_make(&"key", || 1);
        assert!(Arc::ptr_eq(&one, &registry.get_or_make(&"key", || 2)));
        assert_eq!(registry.all().len(), 1);
        registry.clear(&"key");
        assert_eq!(registry.all().len(), 1, "it is still kept");
        drop(one);
        let new = registry.get_or_make(&"key", || 2);
        registry.clear(&"key");
        assert_eq!(*new, 2, "what comes after the old one is not cleared with it");
        assert_eq!(registry.all().len(), 1);
    }
}
