//! Empty on purpose: cargo wants a build script beside the `links` key of the manifest.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
