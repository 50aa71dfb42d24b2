//! From the URL to a folder and how it is used.

use std::path::PathBuf;

use etcetera::BaseStrategy as _;
use tooz_core::driver::{BackendUrl, ConnectArgs};
use tooz_core::{Error, Result};

/// What a URL asks for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The folder that all namespaces are in.
    pub(crate) folder: PathBuf,
    /// Whose folder it is.
    pub(crate) owner: Owner,
    /// Whether the kernel may be asked to tell changes.
    pub(crate) inotify: bool,
}

/// Whose folder it is, if it has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The user's alone: it is the user's state folder.
    User,
    /// That of all users that the umask allows: the folder was named, it may be a meeting place of several users.
    AsUmask,
}

/// Reads what this driver's part of the connect arguments says.
pub(crate) fn read(args: &ConnectArgs) -> Result<Settings> {
    let inotify = args.options.boolean("inotify")?.unwrap_or(true);
    let (folder, owner) = folder(&args.url)?;
    Ok(Settings { folder, owner, inotify })
}

fn folder(url: &BackendUrl) -> Result<(PathBuf, Owner)> {
    if let Some(host) = url.hosts().first() {
        return Err(Error::config(format!(
            "file://{host}… names a host, but a folder is on this one: write three slashes, file:///{host}…"
        )));
    }
    if url.username().is_some() || url.password().is_some() {
        return Err(Error::config("a folder takes no user and no password: write file:///FOLDER"));
    }
    match url.path() {
        "" => Ok((state_folder()?, Owner::User)),
        path if path.contains('\0') => {
            Err(Error::config("the folder in the URL has a NUL (%00) in it: no path can have one"))
        }
        path if path.chars().all(|c| c == '/') => Err(Error::config(
            "the URL names the root of the disk: name a folder (file:///FOLDER), or write file: for the user's state folder",
        )),
        path => Ok((PathBuf::from(path), Owner::AsUmask)),
    }
}

fn state_folder() -> Result<PathBuf> {
    let none = || {
        Error::config(
            "file: alone means the user's state folder, but neither XDG_STATE_HOME nor HOME says where it is: \
             set one, or name a folder (file:///FOLDER)",
        )
    };
    // Both variables may be set to something useless; only an absolute path means one place for all processes.
    let strategy = etcetera::choose_base_strategy().map_err(|_| none())?;
    let state = strategy.state_dir().filter(|path| path.is_absolute()).ok_or_else(none)?;
    Ok(state.join("tooz"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_url_is_an_absolute_folder_or_an_error(text in "(file:/{0,3})?[a-zA-Z0-9/%:@.?&=~ü -]{0,40}") {
            if let Ok(url) = BackendUrl::parse(&text)
                && let Ok((folder, Owner::AsUmask)) = folder(&url)
            {
                prop_assert!(folder.is_absolute() && folder.parent().is_some(), "{:?} is {:?}", text, folder);
            }
        }
    }

    #[test]
    fn a_url_is_a_folder_or_an_error_that_says_how_to_write_one() {
        let folder = |text: &str| folder(&BackendUrl::parse(text).unwrap());
        assert_eq!(folder("file:///var/lib/x%20y").unwrap(), (PathBuf::from("/var/lib/x y"), Owner::AsUmask));
        assert_eq!(folder("file:/var").unwrap().0, PathBuf::from("/var"));
        for (text, words) in [("file://tmp/x", "file:///tmp"), ("file:///", "root")] {
            let error = folder(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = BackendUrl::parse("file:///a%00b").unwrap_err().to_string();
        assert!(error.contains("control character"), "{error}");
    }
}
