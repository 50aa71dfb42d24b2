//! The subcommands that tell who owns a key: `partition`, `ring`.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;

use super::values::node;

#[derive(Args, Debug)]
#[command(
    override_usage = "tooz partition [OPTIONS] GROUP KEY...\n       tooz partition [OPTIONS] --group=GROUP KEY..."
)]
pub(crate) struct PartitionArguments {
    /// The group, where its name begins with a dash: --group=-x
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How many owners each key has
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) replicas: NonZeroUsize,
    /// The group (unless --group names it), then the keys
    #[arg(required = true, value_name = "GROUP KEY")]
    words: Vec<String>,
}

impl PartitionArguments {
    /// The group and the keys; `None` where no key is left.
    pub(crate) fn group_and_keys(&self) -> Option<(&str, &[String])> {
        let (group, keys) =
            if let Some(group) = &self.group { (group, self.words.as_slice()) } else { self.words.split_first()? };
        (!keys.is_empty()).then_some((group.as_str(), keys))
    }
}

#[derive(Args, Debug)]
pub(crate) struct RingArguments {
    /// A node and its weight [default weight: 1]
    #[arg(long = "node", required = true, value_name = "NAME[=WEIGHT]", value_parser = node)]
    pub(crate) nodes: Vec<(String, u32)>,
    /// Points on the ring per unit of weight; all rings that are to agree need the same
    #[arg(long, value_name = "N", default_value = "32")]
    pub(crate) points: NonZeroU32,
    /// How many owners each key has
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) replicas: NonZeroUsize,
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<String>,
}
