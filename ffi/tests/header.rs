//! include/castkeep.h is what cbindgen makes of the sources, and compiles wherever it is included.
#![allow(clippy::disallowed_types)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn generated() -> String {
    let ffi = root().join("ffi");
    let config = cbindgen::Config::from_file(ffi.join("cbindgen.toml")).expect("ffi/cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["version.rs", "status.rs", "config.rs", "host.rs", "client.rs", "session.rs"] {
        builder = builder.with_src(ffi.join("src").join(file));
    }
    let mut text = Vec::new();
    builder.generate().expect("sources that cbindgen understands").write(&mut text);
    without_safety(&String::from_utf8(text).expect("text"))
}

/// What Rust's documentation says about safety goes without saying in C.
fn without_safety(header: &str) -> String {
    let mut out = String::new();
    let mut skipping = false;
    for line in header.lines() {
        skipping = (skipping || line.trim() == "# Safety") && line.trim() != "*/";
        if skipping {
            // The blank line before it goes as well.
            while out.ends_with("\n\n") {
                out.pop();
            }
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[test]
fn drift() {
    let path = root().join("include/castkeep.h");
    if std::env::var_os("CASTKEEP_WRITE_HEADER").is_some() {
        std::fs::write(&path, generated()).expect("writing the header");
        return;
    }
    let committed = std::fs::read_to_string(&path).expect("include/castkeep.h");
    assert!(committed == generated(), "include/castkeep.h is not what ffi/src says: run ci/header");
}

#[test]
fn every_export_is_in_the_header() {
    // A new file of exports that `generated` does not name would silently stay out of the header.
    let header = generated();
    for file in std::fs::read_dir(root().join("ffi/src")).expect("ffi/src") {
        let path = file.expect("a file").path();
        if path.is_dir() {
            continue; // No exports in there: the shell for the library without std.
        }
        let source = std::fs::read_to_string(path).expect("a source");
        for export in source.split("pub extern \"C\" fn ").skip(1) {
            let name = export.split('(').next().expect("a name");
            assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
        }
    }
}

#[test]
fn compiles_as_c_and_cpp() {
    for (compiler, language) in
        [("CC", "-std=c99"), ("CC", "-std=c11"), ("CXX", "-std=c++11"), ("CXX", "-std=c++17")]
    {
        let program = std::env::var(compiler)
            .unwrap_or_else(|_| if compiler == "CC" { "cc".into() } else { "c++".into() });
        let mut command = Command::new(&program);
        command.arg(language).args(["-x", if compiler == "CC" { "c" } else { "c++" }]);
        command.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"]);
        command.arg(root().join("include")).arg(root().join("ffi/ctest/header.c"));
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{program} {language}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
