//! The consistent hash ring that decides which member owns which key.
//!
//! The construction is that of Python's tooz, so that a fleet which runs both agrees on every owner. A node of
//! weight `w` has `32 × w` points; point `r`, counted from 0, is the MD5 digest of the node's name repeated `r + 2`
//! times, read as a big-endian number. A key belongs to the first point that is greater than the key's own MD5 digest;
//! after the greatest point the ring begins again. MD5 is there to spread and for compatibility, it protects nothing.
//!
//! [`HashRing::assign`] adds consistent hashing with bounded loads, after Mirrokni, Thorup and Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads" (2016, arXiv:1608.01350).

// Long because half of it is tests, and the ring and its index are one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter;
use std::num::NonZeroU32;

use md5::{Digest, Md5};

/// A consistent hash ring with weighted nodes, which agrees on every owner with the ring of Python's tooz.
///
/// A ring is a plain value: cheap to ask, `Send + Sync`, without I/O. Two rings with the same nodes and weights answer
/// the same, on every machine and whatever the order in which the nodes were added. When a node comes or goes, only
/// keys of that node move; the others stay where they were.
///
/// # Examples
///
/// ```
/// use tooz_core::HashRing;
///
/// let ring = HashRing::from_iter([("foo", 1), ("bar", 1), ("baz", 1)]);
/// assert_eq!(ring.node_for("k0"), Some("foo"));
/// assert_eq!(ring.nodes_for("k0", 2), ["foo", "bar"]);
/// ```
///
/// # Weights
///
/// A node's share of the keys is proportional to its weight. Weight 0 means no share: such a node is on the list but
/// owns nothing. A weight that would give a node more than [`MAX_POINTS_PER_NODE`](Self::MAX_POINTS_PER_NODE) points
/// (10,000 with the usual 32 points) counts as the greatest that does not; [`nodes`](Self::nodes) shows the weight that
/// counts. All rings of this library limit alike and go on agreeing; only a Python ring with such a weight differs.
///
/// # Cost
///
/// A point takes about 30 bytes, so a node of weight 1 takes about one kilobyte and one of the greatest weight about
/// 10 MB, and twice that for the moment in which the ring is built. Every change builds the ring anew, one MD5 step per
/// point: one or two milliseconds for 200 nodes of weight 1. To change many nodes use [`add_nodes`](Self::add_nodes) or
/// `collect`, which build once. A lookup is one MD5 of the key and one or two steps in an index, whatever the number of
/// nodes.
///
/// # Where two nodes share a point
///
/// Names of which one repeats the other share points: `1` repeated four times is `11` repeated twice. Such a point
/// belongs to the node whose name is the greater in byte order. A Python ring gives it to the node added last, so it
/// agrees if its nodes were added in sorted order. Because the longer of two such names is the greater, no node loses
/// all of its points that way. When the owner of a shared point goes, the other node gets the point, whichever node
/// came second in [`nodes_for`](Self::nodes_for).
#[derive(Clone, PartialEq, Eq)]
pub struct HashRing {
    points_per_weight: u32,
    /// Sorted by name, without duplicates.
    nodes: Vec<Node>,
    /// Always in step with `nodes`.
    index: Index,
}

impl HashRing {
    /// The number of points per unit of weight that Python's tooz has too.
    pub const DEFAULT_POINTS_PER_WEIGHT: NonZeroU32 = NonZeroU32::new(32).unwrap();

    /// No node has more points than this; a greater weight counts as the greatest that stays within it.
    ///
    /// Weights often come from other members, and one of them must not be able to exhaust the memory of all.
    pub const MAX_POINTS_PER_NODE: u32 = 320_000;

    /// An empty ring with 32 points per unit of weight.
    pub fn new() -> Self {
        Self::with_points(Self::DEFAULT_POINTS_PER_WEIGHT)
    }

    /// An empty ring with that many points per unit of weight.
    ///
    /// More points share the keys more evenly and cost more memory. Rings agree only with rings that have the same
    /// number; the usual one is [`DEFAULT_POINTS_PER_WEIGHT`](Self::DEFAULT_POINTS_PER_WEIGHT). A number above
    /// [`MAX_POINTS_PER_NODE`](Self::MAX_POINTS_PER_NODE) counts as that.
    pub fn with_points(points_per_weight: NonZeroU32) -> Self {
        let points_per_weight = points_per_weight.get().min(Self::MAX_POINTS_PER_NODE);
        Self { points_per_weight, nodes: Vec::new(), index: Index::build(&[], points_per_weight) }
    }

    /// Adds a node, or gives a node of that name a new weight.
    ///
    /// Adding a node again with the weight it has changes nothing. Each change builds the ring anew; to add several
    /// nodes use [`add_nodes`](Self::add_nodes).
    pub fn add_node(&mut self, name: impl Into<String>, weight: u32) {
        self.add_nodes(iter::once((name, weight)));
    }

    /// Adds nodes, or gives nodes of those names new weights, and builds the ring once.
    ///
    /// Where a name comes more than once, its last weight counts.
    pub fn add_nodes<N: Into<String>>(&mut self, nodes: impl IntoIterator<Item = (N, u32)>) {
        let greatest = Self::MAX_POINTS_PER_NODE / self.points_per_weight;
        let mut weights: BTreeMap<String, u32> =
            nodes.into_iter().map(|(name, weight)| (name.into(), weight.min(greatest))).collect();
        let mut changed = false;
        for node in &mut self.nodes {
            if let Some(weight) = weights.remove(&node.name) {
                changed |= node.weight != weight;
                node.weight = weight;
            }
        }
        if !weights.is_empty() {
            changed = true;
            self.nodes.extend(weights.into_iter().map(|(name, weight)| Node { name, weight }));
            self.nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        if changed {
            self.rebuild();
        }
    }

    /// Removes a node with all its points; tells whether there was one of that name.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let Ok(position) = self.position(name) else {
            return false;
        };
        self.nodes.remove(position);
        self.rebuild();
        true
    }

    /// Whether there is a node of that name, whatever its weight.
    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// The nodes and their weights, sorted by name in byte order, those of weight 0 included.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&str, u32)> + DoubleEndedIterator + Clone + '_ {
        self.nodes.iter().map(|node| (node.name.as_str(), node.weight))
    }

    /// The number of nodes, those of weight 0 included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes at all. A ring whose nodes all have weight 0 isn't empty, yet owns no key.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of points on the ring. A point that two nodes share counts once.
    pub fn points(&self) -> usize {
        self.index.positions.len()
    }

    /// The node that owns a key; `None` if no node has a weight.
    pub fn node_for(&self, key: impl AsRef<[u8]>) -> Option<&str> {
        let owner = *self.index.owners.get(self.index.first_point(key.as_ref())?)?;
        Some(&self.nodes[owner as usize].name)
    }

    /// The nodes for a key with several replicas: its owner first, then the others as they follow on the ring.
    ///
    /// All are distinct. There are fewer than `replicas` if fewer nodes have a weight. The order is one of preference:
    /// when the owner goes, the second becomes the owner.
    pub fn nodes_for(&self, key: impl AsRef<[u8]>, replicas: usize) -> Vec<&str> {
        self.nodes_for_ignoring(key, replicas, |_| false)
    }

    /// Like [`nodes_for`](Self::nodes_for), but passes over the nodes for which `ignoring` says `true`.
    ///
    /// Meant for nodes that are known to be down but not gone yet: the keys go to those who would own them without
    /// these nodes. `ignoring` is asked at most once for each node.
    ///
    /// ```
    /// # use tooz_core::HashRing;
    /// let ring = HashRing::from_iter([("foo", 1), ("bar", 1), ("baz", 1)]);
    /// let down = ["foo"];
    /// assert_eq!(ring.nodes_for_ignoring("k0", 1, |node| down.contains(&node)), ["bar"]);
    /// ```
    pub fn nodes_for_ignoring(
        &self,
        key: impl AsRef<[u8]>,
        replicas: usize,
        mut ignoring: impl FnMut(&str) -> bool,
    ) -> Vec<&str> {
        let mut found = Vec::with_capacity(replicas.min(self.index.sharing));
        let mut seen = BTreeSet::new();
        for owner in self.index.owners_from(key.as_ref()) {
            // Without counting the nodes seen, a request for more replicas than there are would walk the whole ring.
            if found.len() >= replicas || seen.len() >= self.index.sharing {
                break;
            }
            let name = self.nodes[owner].name.as_str();
            if seen.insert(owner) && !ignoring(name) {
                found.push(name);
            }
        }
        found
    }

    /// Shares out a known set of keys, so that no node gets more than 1.25 times its fair share.
    ///
    /// Exactly: of `k` distinct keys a node of weight `w` gets at most `⌈1.25 × k × w / W⌉`, where `W` is the weight of
    /// all nodes. A key whose owner is full goes to the next node on the ring with room. Most keys stay with the owner
    /// that [`node_for`](Self::node_for) names, but not all: a caller that asks where a key is must ask the same way as
    /// the caller that shared out, with the same keys. When nodes or keys come and go, a few keys move between nodes that
    /// stayed, too; that is the price of the bound.
    ///
    /// The answer depends on the nodes and on the set of keys alone. Keys are taken in the order of their bytes, a key
    /// given twice counts once, and all arithmetic is on integers, so every member computes the same. If no node has a
    /// weight, the answer is empty.
    ///
    /// The cost is that of sorting the keys and about one lookup for each.
    ///
    /// ```
    /// # use tooz_core::HashRing;
    /// let ring = HashRing::from_iter([("foo", 1), ("bar", 1)]);
    /// let shares = ring.assign(["a", "b", "c", "d"]);
    /// assert_eq!(shares.len(), 4);
    /// assert!(shares.values().filter(|node| **node == "foo").count() <= 3);
    /// ```
    pub fn assign<K: AsRef<[u8]> + Ord>(&self, keys: impl IntoIterator<Item = K>) -> BTreeMap<K, &str> {
        let distinct: BTreeSet<K> = keys.into_iter().collect();
        let mut room = self.capacities(distinct.len());
        // The order of `K` may be its own; that of the bytes is the same for every type of key and in every language.
        let mut keys = Vec::from_iter(distinct);
        keys.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        keys.into_iter()
            .filter_map(|key| {
                let mut owners = self.index.owners_from(key.as_ref());
                let first = owners.next()?;
                // Together the nodes have room for more than all keys. Only an attacker who forges digests could leave a
                // node without a point, and its room out of reach; the key then stays with its owner.
                let owner = iter::once(first).chain(owners).find(|owner| room[*owner] > 0).unwrap_or(first);
                room[owner] = room[owner].saturating_sub(1);
                Some((key, self.nodes[owner].name.as_str()))
            })
            .collect()
    }

    /// How many of so many keys each node may get. In `u128` no product of a count and a weight can overflow.
    fn capacities(&self, keys: usize) -> Vec<u128> {
        let total: u128 = self.nodes.iter().map(|node| u128::from(node.weight)).sum();
        self.nodes
            .iter()
            .map(|node| (5 * keys as u128 * u128::from(node.weight)).div_ceil((4 * total).max(1)))
            .collect()
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.name.as_str().cmp(name))
    }

    fn rebuild(&mut self) {
        self.index = Index::build(&self.nodes, self.points_per_weight);
    }
}

impl Default for HashRing {
    fn default() -> Self {
        Self::new()
    }
}

impl<N: Into<String>> Extend<(N, u32)> for HashRing {
    /// Adds the nodes, like [`HashRing::add_nodes`].
    fn extend<I: IntoIterator<Item = (N, u32)>>(&mut self, nodes: I) {
        self.add_nodes(nodes);
    }
}

impl<N: Into<String>> FromIterator<(N, u32)> for HashRing {
    /// A ring of these nodes and weights, with 32 points per unit of weight.
    fn from_iter<I: IntoIterator<Item = (N, u32)>>(nodes: I) -> Self {
        let mut ring = Self::new();
        ring.add_nodes(nodes);
        ring
    }
}

impl fmt::Debug for HashRing {
    /// Thousands of points would say nothing that the nodes don't.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashRing")
            .field("points_per_weight", &self.points_per_weight)
            .field("nodes", &fmt::from_fn(|f| f.debug_map().entries(self.nodes()).finish()))
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Node {
    name: String,
    weight: u32,
}

/// The points in ring order, made for lookups.
///
/// Positions and owners lie apart so that a search reads nothing but positions. A node is a small number, its place in
/// the sorted list of nodes.
#[derive(Clone, PartialEq, Eq)]
struct Index {
    positions: Vec<u128>,
    owners: Vec<u32>,
    /// The number of nodes with a weight.
    sharing: usize,
    /// `buckets[b]` is the first point whose top bits are `b` or more, with one more entry for the end. Digests spread
    /// evenly, so a bucket holds about one point, and a search within it ends at once.
    buckets: Vec<usize>,
    /// How far a digest is shifted to get its top bits.
    shift: u32,
}

impl Index {
    fn build(nodes: &[Node], points_per_weight: u32) -> Self {
        let mut points = Vec::new();
        for (owner, node) in (0_u32..).zip(nodes) {
            // The running digest goes from each point to the next, so that a point costs one name, not `r` of them.
            let mut digest = Md5::new_with_prefix(&node.name);
            for _ in 0..node.weight.saturating_mul(points_per_weight) {
                digest.update(&node.name);
                points.push((number(digest.clone()), owner));
            }
        }
        // Nodes are sorted by name, so the first of equal points is that of the greatest name, and it stays.
        points.sort_unstable_by(|(a, first), (b, second)| a.cmp(b).then(second.cmp(first)));
        points.dedup_by_key(|(position, _)| *position);
        let (positions, owners): (Vec<_>, Vec<_>) = points.into_iter().unzip();

        let sharing = nodes.iter().filter(|node| node.weight > 0).count();
        // One bit at least, for a shift by all 128 bits is none.
        let bits = positions.len().next_power_of_two().ilog2().max(1);
        let shift = u128::BITS - bits;
        let mut buckets = Vec::with_capacity((1 << bits) + 1);
        for (point, position) in positions.iter().enumerate() {
            let bucket = top_bits(*position, shift);
            while buckets.len() <= bucket {
                buckets.push(point);
            }
        }
        buckets.resize((1 << bits) + 1, positions.len());
        Self { positions, owners, sharing, buckets, shift }
    }

    /// The place of the point that owns the key; `None` if there are no points.
    fn first_point(&self, key: &[u8]) -> Option<usize> {
        if self.positions.is_empty() {
            return None;
        }
        let digest = number(Md5::new_with_prefix(key));
        let bucket = top_bits(digest, self.shift);
        let (start, end) = (self.buckets[bucket], self.buckets[bucket + 1]);
        let point = start + self.positions[start..end].partition_point(|position| *position <= digest);
        Some(if point == self.positions.len() { 0 } else { point })
    }

    /// The owners of all points, once round the ring from the point that owns the key.
    fn owners_from(&self, key: &[u8]) -> impl Iterator<Item = usize> + '_ {
        let (before, after) = self.owners.split_at(self.first_point(key).unwrap_or(0));
        after.iter().chain(before).map(|owner| *owner as usize)
    }
}

fn number(digest: Md5) -> u128 {
    u128::from_be_bytes(digest.finalize().into())
}

/// The shift leaves no more bits than a length in memory has.
fn top_bits(position: u128, shift: u32) -> usize {
    (position >> shift) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Owners, replicas and owners without the first node, as the Python library computes them.
    fn vectors() -> Vec<(HashRing, Value)> {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/data/hashring.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        cases
            .iter()
            .map(|case| {
                let points = u32::try_from(case["points_per_weight"].as_u64().unwrap()).unwrap();
                let mut ring = HashRing::with_points(NonZeroU32::new(points).unwrap());
                ring.add_nodes(case["nodes"].as_array().unwrap().iter().map(|node| {
                    let weight = u32::try_from(node["weight"].as_u64().unwrap()).unwrap();
                    (node["name"].as_str().unwrap(), weight)
                }));
                (ring, case.clone())
            })
            .collect()
    }

    fn ring(nodes: &[(&str, u32)]) -> HashRing {
        nodes.iter().copied().collect()
    }

    fn keys(count: u32) -> impl Iterator<Item = String> {
        (0..count).map(|key| format!("key {key}"))
    }

    fn loads<'a>(owners: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, u128> {
        let mut loads = BTreeMap::new();
        for owner in owners {
            *loads.entry(owner).or_default() += 1;
        }
        loads
    }

    /// The definition, with neither index nor shortcuts: the nodes of all points in ring order from a key on.
    fn walk_by_definition<'a>(nodes: &[(&'a str, u32)], key: &str) -> Vec<&'a str> {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        let mut points = BTreeMap::new();
        for (name, weight) in nodes {
            for point in 0..weight as usize * 32 {
                points.insert(number(Md5::new_with_prefix(name.repeat(point + 2))), name);
            }
        }
        let digest = number(Md5::new_with_prefix(key));
        let (before, after): (Vec<_>, Vec<_>) = points.into_iter().partition(|(point, _)| *point <= digest);
        let mut walk = Vec::new();
        for (_, name) in after.into_iter().chain(before) {
            if !walk.contains(&name) {
                walk.push(name);
            }
        }
        walk
    }

    #[test]
    fn owners_are_those_of_the_python_library() {
        for (ring, case) in vectors() {
            assert_eq!(ring.points() as u64, case["points"].as_u64().unwrap());
            for (key, owner) in case["owners"].as_object().unwrap() {
                assert_eq!(ring.node_for(key), owner.as_str(), "{key} in {ring:?}");
            }
        }
    }

    #[test]
    fn replicas_are_those_of_the_python_library_with_the_owner_first() {
        for (ring, case) in vectors() {
            for (key, expected) in case["two_replicas"].as_object().unwrap() {
                let mut replicas = ring.nodes_for(key, 2);
                assert_eq!(replicas.first().copied(), ring.node_for(key));
                replicas.sort_unstable();
                assert_eq!(serde_json::to_value(replicas).unwrap(), *expected, "{key} in {ring:?}");
            }
        }
    }

    #[test]
    fn passing_over_a_node_is_as_in_the_python_library() {
        for (ring, case) in vectors() {
            let first = case["nodes"][0]["name"].as_str().unwrap();
            for (key, expected) in case["ignoring_first_node"].as_object().unwrap() {
                let found = ring.nodes_for_ignoring(key, 1, |node| node == first);
                assert_eq!(found.first().copied(), expected.as_str(), "{key} in {ring:?}");
            }
        }
    }

    #[test]
    fn every_lookup_agrees_with_the_definition() {
        let nodes = [("a", 1), ("b", 3), ("1", 2), ("11", 1), ("1111", 1), ("Ä ö", 1), ("", 1), ("zero", 0)];
        let ring = ring(&nodes);
        for key in keys(500) {
            let walk = walk_by_definition(&nodes, &key);
            assert_eq!(ring.node_for(&key), walk.first().copied());
            assert_eq!(ring.nodes_for(&key, usize::MAX), walk);
            assert_eq!(ring.nodes_for(&key, 3), walk[..3]);
        }
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let ring = HashRing::default();
        assert!(ring.is_empty());
        assert_eq!((ring.len(), ring.points()), (0, 0));
        assert_eq!(ring.node_for("key"), None);
        assert!(ring.nodes_for("key", 2).is_empty());
        assert!(ring.assign(["key"]).is_empty());
    }

    #[test]
    fn one_node_owns_everything() {
        let ring = ring(&[("only", 1)]);
        for key in keys(200) {
            assert_eq!(ring.nodes_for(&key, 5), ["only"]);
        }
    }

    #[test]
    fn a_ring_of_a_single_point_works() {
        let mut ring = HashRing::with_points(NonZeroU32::MIN);
        ring.add_node("only", 1);
        assert_eq!(ring.points(), 1);
        for key in keys(200) {
            assert_eq!(ring.node_for(&key), Some("only"));
        }
    }

    #[test]
    fn weight_zero_means_no_share() {
        let mut ring = ring(&[("none", 0)]);
        assert!(ring.contains("none"));
        assert!(!ring.is_empty());
        assert_eq!(ring.node_for("key"), None);
        assert!(ring.nodes_for("key", 2).is_empty());
        assert!(ring.assign(keys(9)).is_empty());

        ring.add_node("all", 1);
        for key in keys(200) {
            assert_eq!(ring.nodes_for(&key, 2), ["all"]);
        }
        assert!(ring.assign(keys(9)).values().all(|node| *node == "all"));
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let forwards = ring(&[("1", 1), ("11", 2), ("foo", 3)]);
        let mut backwards = HashRing::new();
        for (name, weight) in forwards.nodes().rev() {
            backwards.add_node(name, weight);
        }
        assert_eq!(forwards, backwards);
    }

    #[test]
    fn adding_twice_is_adding_once() {
        let once = ring(&[("foo", 1), ("bar", 2)]);
        let mut twice = once.clone();
        twice.add_node("bar", 2);
        assert_eq!(once, twice);
        assert_eq!(once, ring(&[("foo", 7), ("bar", 2), ("foo", 1)]));
    }

    #[test]
    fn a_new_weight_leaves_no_ghost_points() {
        let mut changed = ring(&[("foo", 9), ("bar", 1)]);
        changed.extend([("foo", 1)]);
        assert_eq!(changed, ring(&[("foo", 1), ("bar", 1)]));
        assert_eq!(changed.points(), 64);
    }

    #[test]
    fn a_removed_node_leaves_nothing() {
        let mut shrinking = ring(&[("foo", 2), ("bar", 1)]);
        assert!(shrinking.remove_node("foo"));
        assert!(!shrinking.remove_node("foo"));
        assert!(!shrinking.contains("foo"));
        assert_eq!(shrinking, ring(&[("bar", 1)]));
        assert!(shrinking.remove_node("bar"));
        assert_eq!(shrinking, HashRing::new());
    }

    #[test]
    fn shared_points_go_to_the_greater_name_and_come_back() {
        let mut both = ring(&[("1", 1), ("11", 1)]);
        // "1" repeated 4, 6, … 32 times is "11" repeated 2, 3, … 16 times.
        assert_eq!(both.points(), 64 - 15);
        assert_eq!(both.index.owners.iter().filter(|owner| **owner == 1).count(), 32);
        let mut other = both.clone();
        assert!(both.remove_node("11"));
        assert_eq!(both, ring(&[("1", 1)]));
        assert!(other.remove_node("1"));
        assert_eq!(other, ring(&[("11", 1)]));
    }

    #[test]
    fn only_keys_of_a_node_that_went_move() {
        let before = ring(&[("a", 1), ("b", 2), ("c", 1), ("d", 3)]);
        let mut after = before.clone();
        after.remove_node("b");
        for key in keys(1_000) {
            let replicas = before.nodes_for(&key, 2);
            let heir = if replicas[0] == "b" { replicas[1] } else { replicas[0] };
            assert_eq!(after.node_for(&key), Some(heir));
            assert_eq!(before.nodes_for_ignoring(&key, 3, |node| node == "b"), after.nodes_for(&key, 3));
        }
    }

    #[test]
    fn ignoring_all_nodes_finds_none() {
        let ring = ring(&[("foo", 1), ("bar", 1)]);
        assert!(ring.nodes_for_ignoring("key", 2, |_| true).is_empty());
        assert!(ring.nodes_for("key", 0).is_empty());
    }

    #[test]
    fn absurd_weights_are_limited() {
        let ring = ring(&[("foo", u32::MAX), ("bar", 1)]);
        assert_eq!(ring.nodes().collect::<Vec<_>>(), [("bar", 1), ("foo", 10_000)]);
        assert_eq!(ring.points(), 320_032);
        assert_eq!(HashRing::with_points(NonZeroU32::MAX).points_per_weight, 320_000);
    }

    #[test]
    fn no_node_is_assigned_more_than_the_bound() {
        let ring = ring(&[("a", 1), ("b", 2), ("c", 5), ("d", 1), ("zero", 0)]);
        for count in [1, 2, 3, 10, 100, 999, 5_000] {
            let shares = ring.assign(keys(count));
            assert_eq!(shares.len(), count as usize);
            for (node, load) in loads(shares.into_values()) {
                let (_, weight) = ring.nodes().find(|(name, _)| *name == node).unwrap();
                let bound = (u128::from(count) * 5 * u128::from(weight)).div_ceil(4 * 9);
                assert!(load <= bound, "{node} has {load} of {count} keys, the bound is {bound}");
            }
        }
    }

    #[test]
    fn assigning_goes_by_the_ring_until_a_node_is_full() {
        let nodes = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| (name, 1));
        let ring = ring(&nodes);
        let mut shares = loads([]);
        for (key, node) in ring.assign(keys(800)) {
            let expected = ring.nodes_for_ignoring(&key, 1, |node| shares.get(node) == Some(&125));
            assert_eq!([node], *expected);
            *shares.entry(node).or_default() += 1;
        }
        assert!(shares.values().any(|load| *load == 125), "no node was ever full: {shares:?}");
    }

    #[test]
    fn assigning_depends_on_the_set_of_keys_alone() {
        let ring = ring(&[("a", 1), ("b", 1), ("c", 1)]);
        let mut shuffled: Vec<String> = keys(300).collect();
        shuffled.reverse();
        shuffled.extend(keys(150));
        assert_eq!(ring.assign(keys(300)), ring.assign(shuffled));
    }

    #[test]
    fn assigning_does_not_depend_on_how_a_type_of_key_is_ordered() {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        struct ByLength(usize, String);
        impl AsRef<[u8]> for ByLength {
            fn as_ref(&self) -> &[u8] {
                self.1.as_bytes()
            }
        }
        let ring = ring(&[("a", 1), ("b", 1), ("c", 1)]);
        let other = ring.assign(keys(300).map(|key| ByLength(key.len(), key)));
        let other: BTreeMap<_, _> = other.into_iter().map(|(key, node)| (key.1, node)).collect();
        assert_eq!(ring.assign(keys(300)), other);
    }

    #[test]
    fn debug_shows_nodes_and_not_thousands_of_points() {
        let text = format!("{:?}", ring(&[("foo", 2)]));
        assert_eq!(text, r#"HashRing { points_per_weight: 32, nodes: {"foo": 2}, .. }"#);
    }

    #[test]
    fn a_ring_can_go_anywhere() {
        fn anywhere<T: Send + Sync + Clone + Unpin + 'static>() {}
        anywhere::<HashRing>();
    }
}
