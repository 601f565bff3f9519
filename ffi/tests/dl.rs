//! include/castkeep_dl.h is made from include/castkeep.h: every function of it, reached through a table that is filled when
//! libcastkeep.so is found. ci/header writes it, ci/link runs it.
#![allow(clippy::disallowed_types)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

struct Function {
    returns: String,
    name: String,
    parameters: Vec<(String, String)>,
}

impl Function {
    /// What is answered while there is no library: a failure with its reason, no handle, no room, nothing.
    fn absent(&self) -> String {
        let mut body = String::new();
        for (kind, name) in &self.parameters {
            if kind.ends_with("**") {
                body += &format!("    if ({name}) *{name} = NULL;\n");
            }
        }
        if self.parameters.iter().any(|(_, name)| name == "why") {
            body += "    if (why && cap > 0) snprintf(why, cap, \"%s\", \"castkeep is not installed\");\n";
        }
        body += match self.returns.as_str() {
            "void" => "",
            "const char *" => "    return \"castkeep is not installed\";\n",
            pointer if pointer.ends_with('*') => "    return NULL;\n",
            // A descriptor would be valid as 0.
            "int" => "    return -1;\n",
            // A status: 0 would be success.
            "int32_t" if self.name != "castkeep_has" => "    return CASTKEEP_STATUS_UNSUPPORTED;\n",
            "int32_t" | "uint32_t" | "uint64_t" | "size_t" => "    return 0;\n",
            other => panic!("{}: what does {other} answer without a library?", self.name),
        };
        body
    }

    fn parameters(&self) -> String {
        let each: Vec<_> =
            self.parameters.iter().map(|(kind, name)| format!("{kind}{name}")).collect();
        if each.is_empty() { "void".into() } else { each.join(", ") }
    }
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../include")
}

fn functions(header: &str) -> Vec<Function> {
    let body = header.split("extern \"C\" {").nth(1).expect("the functions stand behind extern C");
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, comment)) = rest.split_once("/*") {
        text.push_str(before);
        rest = comment.split_once("*/").expect("comments end").1;
    }
    text.push_str(rest);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    lines.join(" ").split(';').filter_map(function).collect()
}

fn function(statement: &str) -> Option<Function> {
    let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let (front, back) = statement.split_once('(')?;
    let (returns, name) = split_name(front);
    assert!(name.starts_with("castkeep_"), "not understood: {statement}");
    let inner = back.strip_suffix(')').unwrap_or_else(|| panic!("not understood: {statement}"));
    assert!(!inner.contains('('), "a parameter needs a typedef: {statement}");
    let parameters = match inner.trim() {
        "" | "void" => Vec::new(),
        list => list.split(',').map(|each| split_name(each.trim())).collect(),
    };
    Some(Function { returns: returns.trim_end().into(), name, parameters })
}

/// "const char *text" is "const char *" and "text".
fn split_name(text: &str) -> (String, String) {
    let text = text.trim();
    let at = text
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or_else(|| panic!("no name: {text}"));
    (text[..=at].into(), text[at + 1..].into())
}

fn generated() -> String {
    let header = std::fs::read_to_string(include().join("castkeep.h")).expect("include/castkeep.h");
    let functions = functions(&header);
    let version = env!("CARGO_PKG_VERSION");
    let soname = version.rsplit_once('.').expect("three numbers").0;
    let (mut table, mut macros, mut absent, mut fill, mut find) =
        (String::new(), String::new(), String::new(), String::new(), String::new());
    for function in &functions {
        let Function { returns, name, parameters } = function;
        let list = function.parameters();
        let space = if returns.ends_with('*') { "" } else { " " };
        writeln!(table, "    {returns}{space}(*{name})({list});").expect("a string");
        writeln!(macros, "#define {name} castkeep_dl_calls.{name}").expect("a string");
        writeln!(absent, "static {returns}{space}castkeep_dl_no_{}({list})\n{{", &name[9..])
            .expect("a string");
        for (_, parameter) in parameters {
            writeln!(absent, "    (void){parameter};").expect("a string");
        }
        writeln!(absent, "{}}}\n", function.absent()).expect("a string");
        writeln!(fill, "    castkeep_dl_no_{},", &name[9..]).expect("a string");
        writeln!(find, "    CASTKEEP_DL_FIND({name});").expect("a string");
    }
    TEMPLATE
        .replace("@SONAME@", &format!("libcastkeep.so.{soname}"))
        .replace("@TABLE@\n", &table)
        .replace("@MACROS@\n", &macros)
        .replace("@ABSENT@\n", &absent)
        .replace("@FILL@\n", &fill)
        .replace("@FIND@\n", &find)
}

#[test]
fn drift() {
    let path = include().join("castkeep_dl.h");
    if std::env::var_os("CASTKEEP_WRITE_HEADER").is_some() {
        std::fs::write(&path, generated()).expect("writing the header");
        return;
    }
    let committed = std::fs::read_to_string(&path).expect("include/castkeep_dl.h");
    assert!(committed == generated(), "castkeep_dl.h is not what castkeep.h says: run ci/header");
}

#[test]
fn every_function_is_in_the_table() {
    let header = std::fs::read_to_string(include().join("castkeep.h")).expect("include/castkeep.h");
    let dl = generated();
    let functions = functions(&header);
    assert!(functions.len() >= 4, "only {} functions were understood", functions.len());
    for export in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("ffi/src")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.is_file())
        .map(|path| std::fs::read_to_string(path).expect("a source"))
        .flat_map(|source| {
            source
                .split("pub extern \"C\" fn ")
                .chain(source.split("pub unsafe extern \"C\" fn "))
                .map(|rest| rest.split('(').next().unwrap_or_default().to_owned())
                .filter(|name| name.starts_with("castkeep_"))
                .collect::<Vec<_>>()
        })
    {
        assert!(dl.contains(&format!("CASTKEEP_DL_FIND({export});")), "{export} is missing");
    }
}

const TEMPLATE: &str = r##"/* castkeep, found at run time: a program that includes this needs neither Rust nor libcastkeep to be built, and uses
 * libcastkeep.so when it is installed where the program runs.
 *
 * Generated from castkeep.h by ci/header; changes belong there.
 *
 * Include this in place of castkeep.h, in every file; in one of them, write `#define CASTKEEP_DL_IMPLEMENTATION` before it.
 * Call castkeep_dl_load once at start, before there are threads. Then every function of castkeep.h is called as it is
 * documented there. Link with -ldl where the C library wants that.
 *
 * Until the library is loaded, and when it cannot be, each function answers as a failure: a status is UNSUPPORTED, a handle is
 * NULL, room is 0, a descriptor is -1. So a program that must record and treats every failure as a refusal refuses, without a
 * line for this case; one that may go on without recording looks at what castkeep_dl_load returned.
 */
#ifndef CASTKEEP_DL_H
#define CASTKEEP_DL_H

#include <stddef.h>
#include "castkeep.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The library that this header describes. */
#define CASTKEEP_DL_SONAME "@SONAME@"

/* Finds the library and every function in it.
 * path     : the file; NULL for CASTKEEP_DL_SONAME in the system's directories
 * Returns  : OK; UNSUPPORTED: it is not there, is of another version, or lacks a function; castkeep_dl_error says which
 * Threads  : one, before all other calls.   Blocks: for reading a file.   Since: 0.1 */
castkeep_status castkeep_dl_load(const char *path);

/* Why castkeep_dl_load failed, in one line.
 * Returns  : a static string, empty when it did not
 * Threads  : as castkeep_dl_load.   Blocks: never.   Since: 0.1 */
const char *castkeep_dl_error(void);

/* Filled by castkeep_dl_load; of no use to others. */
struct castkeep_dl_table {
@TABLE@
};
extern struct castkeep_dl_table castkeep_dl_calls;

#ifdef CASTKEEP_DL_IMPLEMENTATION

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

@ABSENT@
struct castkeep_dl_table castkeep_dl_calls = {
@FILL@
};

static char castkeep_dl_why[256];

const char *castkeep_dl_error(void)
{
    return castkeep_dl_why;
}

static castkeep_status castkeep_dl_fail(void *library, const char *what, const char *more)
{
    snprintf(castkeep_dl_why, sizeof castkeep_dl_why, "%s%s%s", what, *more ? ": " : "", more);
    if (library != NULL)
        dlclose(library);
    return CASTKEEP_STATUS_UNSUPPORTED;
}

/* C has no cast between the two kinds of pointer. */
#define CASTKEEP_DL_FIND(name)                                              \
    do {                                                                    \
        void *found = dlsym(library, #name);                                \
        if (found == NULL)                                                  \
            return castkeep_dl_fail(library, "the library lacks " #name, ""); \
        memcpy(&calls.name, &found, sizeof found);                          \
    } while (0)

castkeep_status castkeep_dl_load(const char *path)
{
    struct castkeep_dl_table calls;
    void *library = dlopen(path != NULL ? path : CASTKEEP_DL_SONAME, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        const char *why = dlerror();
        return castkeep_dl_fail(NULL, "the library cannot be loaded", why != NULL ? why : "");
    }
@FIND@
    if (calls.castkeep_version_num() >> 8 != CASTKEEP_VERSION_NUM >> 8)
        return castkeep_dl_fail(library, "the library is of another version", calls.castkeep_version());
    castkeep_dl_calls = calls;
    castkeep_dl_why[0] = '\0';
    return CASTKEEP_STATUS_OK;
}

#undef CASTKEEP_DL_FIND
#endif /* CASTKEEP_DL_IMPLEMENTATION */

#ifdef __cplusplus
}
#endif

@MACROS@
#endif /* CASTKEEP_DL_H */
"##;
