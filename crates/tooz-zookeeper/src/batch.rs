//! Many nodes read in few requests.
//!
//! A server takes each request of a connection by itself, with a round of its threads in between: a thousand readings that are
//! sent at once take it twenty times as long as the same readings in requests of a hundred.

use zookeeper_client::{Client as ZooKeeper, Error as ZkError, MultiReadResult, Stat};

/// So many nodes in one request: nearly as fast as more, and an answer stays of a moderate size.
const MOST: usize = 100;

/// A node's data, where it was there.
pub(crate) type Content = Option<(Vec<u8>, Stat)>;

/// Reads the data of nodes below `parent`, in one round trip. Nothing is read before what was asked for earlier by the same client.
pub(crate) async fn read(zookeeper: &ZooKeeper, parent: &str, nodes: &[String]) -> Result<Vec<Content>, ZkError> {
    let paths: Vec<String> = nodes.iter().map(|node| format!("{parent}/{node}")).collect();
    read_all(zookeeper, &paths).await
}

/// Reads the data of nodes anywhere, in one round trip.
pub(crate) async fn read_all(zookeeper: &ZooKeeper, nodes: &[String]) -> Result<Vec<Content>, ZkError> {
    let mut asked = Vec::with_capacity(nodes.len().div_ceil(MOST));
    for some in nodes.chunks(MOST) {
        let mut reader = zookeeper.new_multi_reader();
        for node in some {
            reader.add_get_data(node)?;
        }
        asked.push(reader.commit());
    }
    let mut found = Vec::with_capacity(nodes.len());
    for answers in asked {
        for answer in answers.await? {
            found.push(content(answer)?);
        }
    }
    // Each answer stands at the place of its question.
    if found.len() == nodes.len() { Ok(found) } else { Err(ZkError::RuntimeInconsistent) }
}

/// Lists the children of nodes below `parent`, each with how many it is thought to have, in one round trip; none for one that is gone.
pub(crate) async fn list(
    zookeeper: &ZooKeeper,
    parent: &str,
    nodes: &[(String, usize)],
) -> Result<Vec<Vec<String>>, ZkError> {
    let mut asked = Vec::new();
    for some in chunks(nodes) {
        let mut reader = zookeeper.new_multi_reader();
        for (node, _) in some {
            reader.add_get_children(&format!("{parent}/{node}"))?;
        }
        asked.push(reader.commit());
    }
    let mut found = Vec::with_capacity(nodes.len());
    for answers in asked {
        for answer in answers.await? {
            found.push(children(answer)?);
        }
    }
    if found.len() == nodes.len() { Ok(found) } else { Err(ZkError::RuntimeInconsistent) }
}

/// Up to so many nodes each, and up to a hundred times as many children.
fn chunks(mut nodes: &[(String, usize)]) -> impl Iterator<Item = &[(String, usize)]> {
    std::iter::from_fn(move || {
        let mut children = 0;
        let fits = nodes.iter().take(MOST).take_while(|(_, count)| {
            let fits = children == 0 || children + count <= MOST * 100;
            children += count;
            fits
        });
        let (chunk, rest) = nodes.split_at(fits.count());
        nodes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn content(answer: MultiReadResult) -> Result<Content, ZkError> {
    match answer {
        MultiReadResult::Data { data, stat } => Ok(Some((data, stat))),
        MultiReadResult::Error { err: ZkError::NoNode } => Ok(None),
        MultiReadResult::Error { err } => Err(err),
        _ => Err(ZkError::RuntimeInconsistent),
    }
}

fn children(answer: MultiReadResult) -> Result<Vec<String>, ZkError> {
    match answer {
        MultiReadResult::Children { children } => Ok(children),
        MultiReadResult::Error { err: ZkError::NoNode } => Ok(Vec::new()),
        MultiReadResult::Error { err } => Err(err),
        _ => Err(ZkError::RuntimeInconsistent),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_node_is_listed_once_and_no_answer_is_long(counts in prop::collection::vec(0usize..20_000, 0..500)) {
            let nodes: Vec<_> = counts.iter().map(|count| (count.to_string(), *count)).collect();
            let all: Vec<_> = chunks(&nodes).collect();
            prop_assert_eq!(all.concat(), &*nodes);
            for chunk in all {
                let children: usize = chunk.iter().map(|(_, count)| count).sum();
                let is_one = chunk.iter().filter(|(_, count)| *count > 0).count() == 1;
                prop_assert!(chunk.len() <= MOST && (children <= MOST * 100 || is_one));
            }
        }
    }
}
