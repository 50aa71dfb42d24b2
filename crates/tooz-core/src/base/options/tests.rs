//! What is read out of a URL, what is refused, and that nothing of a secret is ever repeated.

use std::fmt::Write;

use super::backend_url::BackendUrl;
use super::*;
use crate::base::credentials::CredentialSource;
use crate::handles::connect::ConnectOptions;

const SECRETIVE: &[OptionSpec] =
    &[PASSWORD_FILE, OptionSpec::new("token", OptionValue::Secret, "none", "a secret of this test's driver")];

#[test]
fn several_hosts_user_and_options_are_taken_apart() {
    let url = BackendUrl::parse("redis://bob:s%40cret@h1:6379,[::1]:7,h3/2?namespace=a%20b").unwrap();
    assert_eq!(url.username(), Some("bob"));
    assert_eq!(url.password(), Some("s@cret"));
    assert_eq!(url.to_string(), "redis://h1:6379,[::1]:7,h3/2");
    assert_eq!(url.options("redis", &[]).unwrap().text("namespace"), Some("a b"));
    let bare = BackendUrl::parse("file:").unwrap();
    assert_eq!((bare.hosts().len(), bare.path()), (0, ""));
    assert_eq!(BackendUrl::parse("file:///tmp/x%20y").unwrap().path(), "/tmp/x y");
    assert_eq!(BackendUrl::parse("file:////tmp/x%40y").unwrap().path(), "//tmp/x@y");
    assert_eq!(BackendUrl::parse("file:///tmp/my locks/é|[1]").unwrap().path(), "/tmp/my locks/é|[1]");
    assert_eq!(BackendUrl::parse("file:///tmp/./a/../b/").unwrap().path(), "/tmp/b/");
    assert!(BackendUrl::parse("file:///tmp/100%").unwrap_err().to_string().contains("write it as %25"));
    let address = BackendUrl::parse("redis://10.0.0.1:06379").unwrap();
    assert_eq!((address.hosts()[0].name.as_str(), address.hosts()[0].port), ("10.0.0.1", Some(6379)));
    for text in ["redis://[::1", "redis://[v1.a]:1", "redis://h\\x", "redis://h:70000", "redis://h:x", "redis://:1"] {
        assert!(BackendUrl::parse(text).is_err(), "{text}");
    }
    assert_eq!(BackendUrl::parse("memory://Name_1").unwrap().hosts()[0].name, "Name_1");
    let socket = BackendUrl::parse("postgres://bob@%2Frun%2Fpg:5432/db").unwrap();
    assert_eq!((socket.hosts()[0].name.as_str(), socket.hosts()[0].port), ("/run/pg", Some(5432)));
    assert_eq!(BackendUrl::parse("postgres://bob:a:b@/db?host=/run").unwrap().password(), Some("a:b"));
}

#[test]
fn wrong_options_are_told_with_what_would_be_right() {
    let error = |text: &str| BackendUrl::parse(text).unwrap().options("d", &[]).unwrap_err().to_string();
    assert!(error("d://h?nmespace=x").contains("namespace"));
    assert!(error("d://h?session_timeout=soon").contains("500ms"));
    assert!(error("d://h?password_file=/x").contains("takes no credentials"));
    assert!(BackendUrl::parse("file:relative").unwrap_err().to_string().contains("absolute"));
    assert!(BackendUrl::parse("d://h?a=1&a=2").unwrap_err().to_string().contains("twice"));
}

#[test]
fn what_could_be_a_part_of_a_password_is_refused_with_how_to_write_it() {
    for text in [
        "redis://u:a@b/secret@h",
        "redis://:p@ss/w0rd@h",
        "redis://:p@ss?secret@h",
        "redis://:p@ss#secret@h",
        "redis://u:p@ss@h",
        "redis:/:SECRET@h",
        "redis:///:SECRET@h",
        "redis://h/0?token=a@b",
        "etcd://u:p@h1,u2:p2@h2",
        "etcd://u:p@h1,u2@h2",
    ] {
        let error = BackendUrl::parse(text).unwrap_err().to_string();
        assert!(error.contains("encode it as %40"), "{text}: {error}");
    }
    for text in ["etcd://h1,u:p@h2", "etcd://h1:2379,u:p@h2:2379", "etcd://u,h1@h2"] {
        let error = BackendUrl::parse(text).unwrap_err().to_string();
        assert!(error.contains("%2C"), "{text}: {error}");
    }
    for text in ["redis://user:secret", "redis://user:secret/0", "redis://h1,user:secret", "redis://user:secret?x=1"] {
        let error = BackendUrl::parse(text).unwrap_err().to_string();
        assert!(error.contains("if that is a password"), "{text}: {error}");
    }
    // Encoded as a whole it would be a host's name, told to the servers that resolve names.
    assert!(BackendUrl::parse("redis://user%3Asecret%40h").is_err());
}

#[test]
fn control_characters_are_refused_in_every_part() {
    for one in ["%00", "%0a", "%0D%0A", "%1b", "%7F", "%C2%85", "\n", "\0", "\u{85}"] {
        for text in [
            format!("redis://u{one}x:p@h/0"),
            format!("redis://u:p{one}x@h/0"),
            format!("redis://u:p@h{one}x/0"),
            format!("redis://u:p@h1,h{one}x/0"),
            format!("redis://u:p@h/0{one}x"),
            format!("redis://h?name{one}space=x"),
            format!("redis://h?namespace=x{one}x"),
            format!("redis://h?token=x{one}"),
            format!("red{one}is://h"),
        ] {
            assert!(BackendUrl::parse(&text).is_err(), "{text:?}");
        }
        assert!(BackendUrl::parse(&format!("redis://h?namespace=%FF{one}")).is_err());
    }
    let built = ConnectOptions::new("d://h").unwrap().option("namespace", "a\r\nb");
    assert!(built.url().options("d", &[]).unwrap_err().to_string().contains("control character"));
    assert!(BackendUrl::parse("d://h?namespace=%FF").unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn options_that_may_be_the_rest_of_a_secret_are_not_shown() {
    let error = |text: &str| format!("{:?}", BackendUrl::parse(text).unwrap().options("d", SECRETIVE).unwrap_err());
    assert!(!error("d://h?token=open&sesame").contains("sesame"));
    assert!(!error("d://h?password=open&abcd").contains("abcd"));
    assert!(!error("d://h?token=open&connect_timeout=sesame").contains("sesame"));
    let text = "d://h?password_file=open-sesame";
    let url = BackendUrl::parse(text).unwrap();
    let source = CredentialSource::choose(&url, &url.options("d", SECRETIVE).unwrap(), None).unwrap();
    assert!(!format!("{source:?}").contains("sesame"));
}

/// Two parts that no URL, no message and no host of this test has, and whatever may stand between them.
const PARTS: [&str; 2] = ["qzxj", "vkwy"];

fn secrets() -> Vec<String> {
    let between = [
        "", "@", "/", "?", "#", ":", ",", "&", "=", "%", "+", ";", "!", "$", "\\", "[", "]", "(", "'", "\"", "`", "|",
        "^", "{", "<", " ", "@@", "//", "://", "@/", "/@", "?@", "@?", ":@", "@:", ",@", "@,", "#@", "&@", "=@", "%40",
        "%2F", "%00", "%", "%zz", "%ff", "\n", "\t", "é",
    ];
    let [one, other] = PARTS;
    let mut secrets = Vec::new();
    for between in between {
        secrets.push(format!("{one}{between}{other}"));
        secrets.push(format!("{between}{one}{other}"));
        secrets.push(format!("{one}{other}{between}"));
    }
    secrets
}

/// The shapes with a place for a secret. Whether a URL without a host can be told from one with a host is judged per secret below.
const SHAPES: [&str; 30] = [
    "redis://user:{}@host",
    "redis://user:{}@host:6379/0?namespace=x",
    "redis://:{}@host/0",
    "redis://{}@host",
    "redis://{}:{}@host",
    "redis://user:{}@h1,h2:7",
    "redis://user:{}@[::1]:7",
    "REDIS+TLS://user:{}@host",
    "etcd://u:{}@h1,u2:{}@h2",
    "etcd://h1,u:{}@h2",
    "etcd://h1:7,u:{}@h2:7",
    "redis://user:{}@host:99999",
    "redis://user:{}@host:port",
    "redis://user:{}@",
    "redis://user:{}@host#x",
    "redis://user:{}@host?nope=1",
    "redis://user:{}@host?session_timeout=soon",
    "redis://user:{}@host?x=1&x=2",
    "redis://user:{}@ho st",
    "redis:/:{}@host",
    "redis:/user:{}@host",
    "redis:///:{}@host",
    "redis:///user:{}@host/0",
    "redis:{}@host",
    "redis//user:{}@host",
    "user:{}@host",
    "redis://host?token={}",
    "redis://host/0?token={}&namespace=x",
    "redis://host?password_file={}",
    ":{}@host",
];

/// All that a reader may see of what became of this URL.
fn said_of(text: &str) -> String {
    let url = match BackendUrl::parse(text) {
        Ok(url) => url,
        Err(error) => return format!("{error} {error:?}"),
    };
    for host in url.hosts() {
        assert!(["host", "h1", "h2", "::1"].contains(&host.name.as_str()), "{text:?} leads to {host}");
    }
    let two = text.contains("h1");
    assert!(!two || url.hosts().len() == 2, "{text:?} has forgotten a host");
    let built = ConnectOptions::new(text).unwrap();
    let mut said = format!("{url} {url:?} {built:?}");
    match url.options("d", SECRETIVE).and_then(|options| {
        let source = CredentialSource::choose(&url, &options, None)?;
        Ok((options, source))
    }) {
        Err(error) => write!(said, "{error} {error:?}").unwrap(),
        Ok((options, source)) => {
            write!(said, "{options:?} {source:?}").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Err(error) = runtime.block_on(source.read()) {
                write!(said, "{error} {error:?}").unwrap();
            }
        }
    }
    said
}

#[test]
fn no_part_of_a_secret_is_shown_or_sent_to_another_host() {
    let mut tried = 0;
    for shape in SHAPES {
        for secret in secrets() {
            let text = shape.replace("{}", &secret);
            // An absolute path is a path, and shown.
            if shape.contains("password_file") && (secret.starts_with('/') || secret.starts_with("%2F")) {
                continue;
            }
            let said = said_of(&text).to_lowercase();
            for part in PARTS {
                let pieces = (0..=part.len() - 3).map(|at| &part[at..at + 3]);
                for piece in pieces {
                    assert!(!said.contains(piece), "{text:?} is told as {said}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 4000, "{tried}");
}

#[test]
fn a_secret_whose_host_was_forgotten_is_not_shown_unless_it_reads_as_a_host() {
    for secret in secrets() {
        // `redis://user:x@y` names the host y, whatever was meant.
        if secret.contains('@') || secret.is_empty() {
            continue;
        }
        for shape in
            ["redis://user:{}", "redis://user:{}/0", "redis://:{}", "redis://user:{}?namespace=x", "redis:{}", "{}"]
        {
            // Alone, it begins with a scheme.
            if shape == "{}" && secret.contains(':') {
                continue;
            }
            let text = shape.replace("{}", &secret);
            if let Ok(url) = BackendUrl::parse(&text) {
                // A secret that begins with a slash or question mark ends an authority that is well-formed without it.
                assert!(secret.starts_with(['/', '?', '#']), "{text:?} is read as {url}");
                continue;
            }
            let said = said_of(&text);
            assert!(PARTS.iter().all(|part| !said.contains(&part[..3])), "{text:?} is told as {said}");
        }
    }
}
