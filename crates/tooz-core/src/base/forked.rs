//! What belongs to the process that made it: a forked child has the memory of its parent but none of its threads, so that a drop there
//! could wait for ever for a mutex that no thread unlocks, or wake the parent's heart.

use std::ops::{Deref, DerefMut};

/// A value whose drop has an effect only in the process that made it. A forked child forgets it.
pub(crate) struct Ours<T> {
    /// `None` only while it is dropped.
    value: Option<T>,
    pid: u32,
}

impl<T> Ours<T> {
    pub(crate) fn new(value: T) -> Self {
        Ours { value: Some(value), pid: std::process::id() }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }
}

impl<T: Clone> Clone for Ours<T> {
    fn clone(&self) -> Self {
        Ours { value: self.value.clone(), pid: self.pid }
    }
}

impl<T> Deref for Ours<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("taken only by the drop")
    }
}

impl<T> DerefMut for Ours<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("taken only by the drop")
    }
}

impl<T> Drop for Ours<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take()
            && !self.is_ours()
        {
            std::mem::forget(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_forked_child_drops_nothing_of_its_parents() {
        let value = Arc::new(());
        let mut ours = Ours::new(Arc::clone(&value));
        drop(ours.clone());
        assert_eq!(Arc::strong_count(&value), 2);
        // As it looks from another process.
        ours.pid += 1;
        drop(ours);
        assert_eq!(Arc::strong_count(&value), 2, "it is forgotten");
        drop(Ours::new(Arc::clone(&value)));
        assert_eq!(Arc::strong_count(&value), 2);
    }
}
