//! The checked-in code under `src/proto/` is what `proto/*.proto` makes: by pure Rust, no protoc on any machine.
//!
//! With `TOOZ_CODEGEN=write` it is written instead (`cargo xtask codegen`).

use std::path::{Path, PathBuf};

/// One file for each protobuf package.
const GENERATED: &[&str] = &["etcdserverpb.rs", "mvccpb.rs"];

fn generate(into: &Path) {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile([protos.join("etcdserverpb.proto")], [&protos]).expect("the .proto files are right");
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .out_dir(into)
        .compile_fds(files)
        .expect("code can be made of the .proto files");
}

#[test]
fn the_generated_code_is_up_to_date() {
    let here: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto");
    if std::env::var("TOOZ_CODEGEN").is_ok_and(|wish| wish == "write") {
        generate(&here);
        return;
    }
    let fresh = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("codegen");
    std::fs::create_dir_all(&fresh).expect("a folder in the target folder can be made");
    generate(&fresh);
    for name in GENERATED {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            read(&fresh) == read(&here),
            "src/proto/{name} is not what proto/*.proto makes: run `cargo xtask codegen`"
        );
    }
}
