//! What reads text of others: it never panics, never shows a secret, and reads back what was written.

use proptest::prelude::*;
use tooz_core::driver::{BackendUrl, RequestId, decode_name, encode_name};
use tooz_core::{Capabilities, ConnectOptions, ErrorKind, LockName};

/// Text as a user may type it or a broken program may send it: anything, and much that looks nearly right.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        "(redis|memory|x\\+y)?:?/{0,3}([a-z%:@\\[\\]]{0,12})(:[0-9]{0,6})?(,[a-z0-9:]{0,8})?(/[^?]{0,8})?(\\?[a-z_]{0,8}=?[^&]{0,8}(&[a-z]{0,4})?)?",
    ]
}

fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("names have 1 to 255 bytes", |name| LockName::new(name.as_str()).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_url_is_read_or_refused(url in text()) {
        if let Err(error) = ConnectOptions::new(&url) {
            prop_assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Unsupported), "{error:?}");
        }
        let _ = BackendUrl::parse(&url);
    }

    #[test]
    fn no_part_of_a_password_is_shown(secret in "[a-zA-Z0-9!$%^*()]{8,20}", rest in "[a-z,:/?=&%]{0,20}") {
        let url = format!("redis://user:{secret}@host{rest}");
        let shown = match ConnectOptions::new(&url) {
            Ok(options) => format!("{options:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(&secret), "{shown}");
    }

    #[test]
    fn a_url_is_what_its_parts_are(
        hosts in prop::collection::vec(("[a-z][a-z0-9-]{0,10}", prop::option::of(1u16..)), 1..4),
        path in "[a-z0-9]{0,8}",
    ) {
        let written: Vec<_> = hosts.iter().map(|(name, port)| match port {
            Some(port) => format!("{name}:{port}"),
            None => name.clone(),
        }).collect();
        let url = BackendUrl::parse(&format!("chalk://{}/{path}", written.join(","))).unwrap();
        let read: Vec<_> = url.hosts().iter().map(|host| (host.name.clone(), host.port)).collect();
        prop_assert_eq!(read, hosts);
    }

    #[test]
    fn a_name_comes_back_from_its_safe_form(name in name()) {
        let safe = encode_name(&name, 765);
        prop_assert!(safe.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'), "{safe}");
        let back = decode_name(&safe);
        prop_assert_eq!(back.as_deref(), Some(name.as_str()));
    }

    #[test]
    fn what_others_wrote_is_a_name_or_none(text in text()) {
        // A name that is read can be used as one, or is refused with a reason.
        if let Some(name) = decode_name(&text)
            && let Err(error) = LockName::new(&name)
        {
            prop_assert_eq!(error.kind(), ErrorKind::Config);
        }
    }

    #[test]
    fn capabilities_are_json_or_refused(json in text()) {
        match Capabilities::from_json(&json) {
            Ok(capabilities) => {
                let value: serde_json::Value = capabilities.get().unwrap();
                prop_assert_eq!(Capabilities::new(&value).unwrap().get::<serde_json::Value>().unwrap(), value);
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Config),
        }
    }

    #[test]
    fn a_request_id_comes_back(id in any::<u128>(), other in text()) {
        prop_assert_eq!(RequestId(id).to_string().parse::<RequestId>().ok(), Some(RequestId(id)));
        let _ = other.parse::<RequestId>();
    }
}
