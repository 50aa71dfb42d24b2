//! Reads many nodes in few requests.
//!
//! A server takes each request of a connection by itself, with a round of its threads in between: a thousand readings that are
//! sent at once take it twenty times as long as the same readings in requests of a hundred.

use zookeeper_client::{Client, Error as Zk, MultiReadResult, Stat};

/// So many nodes in one request: nearly as fast as more, and an answer stays of a moderate size.
const MOST: usize = 100;

/// A node's data, where it was there.
pub(crate) type Content = Option<(Vec<u8>, Stat)>;

/// Reads the data of nodes below `parent`, in one round trip. Nothing is read before what was asked for earlier by the same client.
pub(crate) async fn read(client: &Client, parent: &str, nodes: &[String]) -> Result<Vec<Content>, Zk> {
    let paths: Vec<String> = nodes.iter().map(|node| format!("{parent}/{node}")).collect();
    read_all(client, &paths).await
}

/// The same for nodes anywhere.
pub(crate) async fn read_all(client: &Client, nodes: &[String]) -> Result<Vec<Content>, Zk> {
    let mut asked = Vec::with_capacity(nodes.len().div_ceil(MOST));
    for some in nodes.chunks(MOST) {
        let mut reader = client.new_multi_reader();
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
    if found.len() == nodes.len() { Ok(found) } else { Err(Zk::RuntimeInconsistent) }
}

fn content(answer: MultiReadResult) -> Result<Content, Zk> {
    match answer {
        MultiReadResult::Data { data, stat } => Ok(Some((data, stat))),
        MultiReadResult::Error { err: Zk::NoNode } => Ok(None),
        MultiReadResult::Error { err } => Err(err),
        _ => Err(Zk::RuntimeInconsistent),
    }
}
