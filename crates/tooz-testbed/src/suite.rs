//! The `main` of a driver's `tests/conformance.rs`: one server for all cases, and what the suite may do to it.

/// Makes the `main` of a driver's `tests/conformance.rs`, on a server of that kind that all cases share, each in a namespace of its own.
///
/// `options` are added to each URL. `rig` makes a `Rig` of the suite from what makes URLs; `end_session` ends the sessions of a member:
/// `fn(&Bed, url, member)`. The caller has `tooz-conformance` among its dependencies: the testbed knows servers, and no suite.
#[macro_export]
macro_rules! conformance {
    ($kind:expr, $options:expr, $rig:path, $end_session:path) => {
        fn main() -> ::std::process::ExitCode {
            ::tooz_conformance::serve_worker();
            match $crate::for_tests($kind) {
                $crate::Provided::MayStart => ::tooz_conformance::main(|| {
                    let bed: &'static $crate::Bed =
                        ::std::boxed::Box::leak(Box::new($crate::Bed::new($kind, $options)));
                    $rig(|tag: &str| bed.url(tag))
                        .path(|url, member| bed.path(url, member))
                        .cut(|url, member| bed.proxy(url, member).stall())
                        .heal(|url, member| bed.proxy(url, member).heal())
                        .end_session(|url, member| $end_session(bed, url, member))
                        .own_server(|tag| bed.own(tag))
                        .restart(|url| bed.restart(url))
                }),
                $crate::Provided::Own(url) => {
                    ::tooz_conformance::main(|| $rig(move |tag: &str| $crate::in_namespace(&url, tag)))
                }
                $crate::Provided::Missing(reason) => ::tooz_conformance::ignore_all(&reason),
            }
        }
    };
}
