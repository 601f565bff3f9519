//! Embeds asciinema-player, when npm has brought it; `make` and CI run `npm ci` first. Never touches the network.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const BUNDLE: &str = "web/node_modules/asciinema-player/dist/bundle";
const FILES: [(&str, &str); 2] =
    [("JS", "asciinema-player.min.js"), ("CSS", "asciinema-player.css")];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut out = String::new();
    println!("cargo::rerun-if-changed=build.rs");
    for (name, file) in FILES {
        let path = root.join(BUNDLE).join(file);
        // A path that does not exist counts as changed in every build; its nearest directory does not.
        println!("cargo::rerun-if-changed={}", existing(&path).display());
        let value = if path.is_file() {
            format!("Some(include_str!({path:?}))")
        } else {
            println!(
                "cargo::warning={BUNDLE}/{file} is missing, so no player is embedded: run `make`, or `npm ci` in web/"
            );
            "None".into()
        };
        writeln!(
            out,
            "/// `{file}` of asciinema-player.\npub(super) const {name}: Option<&str> = {value};"
        )
        .expect("a string takes everything");
    }
    let dir = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(dir.join("player.rs"), out).expect("writing into the build directory");
}

fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}
