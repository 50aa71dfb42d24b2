//! Names of locks and groups. One that begins with a dash needs the long form, so that a mistyped flag is no name.

use clap::Args;

/// A lock's name, either way.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct LockArgument {
    /// The lock
    #[arg(value_name = "NAME")]
    positional: Option<String>,
    /// The lock, where its name begins with a dash: --name=-x
    #[arg(long = "name", value_name = "NAME")]
    option: Option<String>,
}

impl LockArgument {
    pub(crate) fn name(&self) -> &str {
        self.positional.as_deref().or(self.option.as_deref()).unwrap_or_default()
    }
}

/// A group's name, either way.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct GroupArgument {
    /// The group
    #[arg(value_name = "GROUP")]
    positional: Option<String>,
    /// The group, where its name begins with a dash: --group=-x
    #[arg(long = "group", value_name = "GROUP")]
    option: Option<String>,
}

impl GroupArgument {
    pub(crate) fn name(&self) -> &str {
        self.positional.as_deref().or(self.option.as_deref()).unwrap_or_default()
    }
}

/// A group's name, either way, or none: all groups.
#[derive(Args, Debug)]
#[group(required = false, multiple = false)]
pub(crate) struct AnyGroupArgument {
    /// The group; without one, all groups
    #[arg(value_name = "GROUP")]
    positional: Option<String>,
    /// The group, where its name begins with a dash: --group=-x
    #[arg(long = "group", value_name = "GROUP")]
    option: Option<String>,
}

impl AnyGroupArgument {
    pub(crate) fn name(&self) -> Option<&str> {
        self.positional.as_deref().or(self.option.as_deref())
    }
}
