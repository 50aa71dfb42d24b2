//! The watchers that are told what is pushed: those of one thing, and of many things by their keys.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use crate::driver::push::{Pushed, Pusher};

/// The watchers of one thing. A watcher that has gone is forgotten with the next push, and when the next one comes.
#[derive(Default)]
pub struct Watchers(Vec<Pusher>);

impl Watchers {
    /// One more.
    pub fn add(&mut self, pusher: Pusher) {
        self.0.retain(|pusher| !pusher.is_closed());
        self.0.push(pusher);
    }

    /// Tells each of them.
    pub fn push(&mut self, pushed: &Pushed) {
        self.0.retain(|pusher| !pusher.is_closed());
        for pusher in &self.0 {
            pusher.push(pushed.clone());
        }
    }

    /// How many are there, without those that have gone.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|pusher| !pusher.is_closed()).count()
    }

    /// Whether none is there.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

/// The watchers of many things, each known by a key: a channel, a group, the key of a lock.
pub struct FanOut<K>(HashMap<K, Watchers>);

impl<K> Default for FanOut<K> {
    fn default() -> Self {
        FanOut(HashMap::new())
    }
}

impl<K: Eq + Hash> FanOut<K> {
    /// One more watcher of that key.
    pub fn add(&mut self, key: K, pusher: Pusher) {
        self.0.entry(key).or_default().add(pusher);
    }

    /// Tells the watchers of that key.
    pub fn push<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, pushed: &Pushed)
    where
        K: Borrow<Q>,
    {
        if let Some(watchers) = self.0.get_mut(key) {
            watchers.push(pushed);
        }
    }

    /// Tells all watchers of all keys.
    pub fn push_to_all(&mut self, pushed: &Pushed) {
        self.0.values_mut().for_each(|watchers| watchers.push(pushed));
    }

    /// Whether that key has been watched since [`take_unwatched`](Self::take_unwatched) was last asked.
    pub fn knows<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// The keys that were watched when [`take_unwatched`](Self::take_unwatched) was last asked, and those that came later.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// Forgets the keys whose watchers have all gone, and answers them: the backend need not tell of them any more.
    pub fn take_unwatched(&mut self) -> Vec<K> {
        self.0.extract_if(|_, watchers| watchers.is_empty()).map(|(key, _)| key).collect()
    }

    /// Whether there are no watchers.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Watchers::is_empty)
    }

    /// Ends all watches: core watches anew.
    pub fn end(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::push::{PushStream, next_push, push_channel};

    async fn told(stream: &mut PushStream) -> Option<Pushed> {
        next_push(stream).await.unwrap()
    }

    #[tokio::test]
    async fn each_key_has_watchers_of_its_own() {
        let mut fan_out = FanOut::default();
        let ((one, mut ones), (other, mut others)) = (push_channel(), push_channel());
        fan_out.add("one", one);
        fan_out.add("other", other);
        fan_out.push("one", &Pushed::Dirty);
        fan_out.push_to_all(&Pushed::Gone);
        assert!(matches!(told(&mut ones).await, Some(Pushed::Dirty)));
        assert!(matches!(told(&mut ones).await, Some(Pushed::Gone)));
        assert!(matches!(told(&mut others).await, Some(Pushed::Gone)));
        fan_out.end();
        assert!(told(&mut ones).await.is_none());
    }

    #[test]
    fn a_key_is_forgotten_with_its_last_watcher() {
        let mut fan_out = FanOut::default();
        let ((one, ones), (two, twos)) = (push_channel(), push_channel());
        fan_out.add("key", one);
        fan_out.add("key", two);
        drop(ones);
        let (three, threes) = push_channel();
        fan_out.add("key", three);
        drop(threes);
        assert_eq!(fan_out.0["key"].0.len(), 2, "one that has gone makes room for the next");
        assert!(fan_out.take_unwatched().is_empty() && fan_out.knows("key") && !fan_out.is_empty());
        drop(twos);
        assert!(fan_out.is_empty());
        assert_eq!(fan_out.take_unwatched(), ["key"]);
        assert!(!fan_out.knows("key"));
    }
}
