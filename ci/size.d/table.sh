# The tables of SMALL.md, from the figures of ci/size.
# shellcheck shell=bash
small_table() { # FIGURES
    echo
    echo "Measured on $(date -u +%Y-%m-%d) with castkeep $(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1), $(rustc --version | cut -d' ' -f1,2)."
    awk '
        { v[$1 " " $2 " " $3] = $4; if (!($1 in seen)) { seen[$1] = 1; target[++targets] = $1 }; have[$2] = 1 }
        function kb(n) { return sprintf("%.0f", n / 1000) }
        function cell(t, s, f) { return (t " " s " " f) in v ? kb(v[t " " s " " f]) : "-" }
        function goal(what, value, limit, unit) {
            printf "| %s | %s | %s | %s |\n", what, limit " " unit, sprintf(unit == "KiB" ? "%.1f" : "%.0f", value) " " unit, value <= limit ? "met" : "**not met**"
        }
        END {
            split("tiny tcp h2 tls", sets, " ")
            name["tiny"] = "tiny"; name["tcp"] = "std, TCP"; name["h2"] = "HTTP/2"; name["tls"] = "HTTP/2, TLS"
            split("120 380 600 1200", sizes, " "); split("8 0 24 64", heaps, " ")
            arm = "armv7-unknown-linux-gnueabihf"
            print "\n## Goals\n\nOn " arm ": text and data of the shared library, and heap of a session beside its ring.\n"
            print "| | goal | measured | |\n|---|---|---|---|"
            for (i = 1; i <= 4; i++) if (have[sets[i]]) goal(name[sets[i]] ": text+data", v[arm " " sets[i] " text_data"] / 1000, sizes[i], "kB")
            for (i = 1; i <= 4; i++) if (have[sets[i]] && heaps[i] > 0) goal(name[sets[i]] ": heap", v[arm " " sets[i] " heap_session"] / 1024, heaps[i], "KiB")
            print "\n## Size\n\nIn kB of 1000 bytes. *added* is what `libcastkeep.a` adds to a minimal C program.\n"
            print "| target | features | text+data | stripped | xz | added |\n|---|---|---|---|---|---|"
            for (t = 1; t <= targets; t++) for (i = 1; i <= 4; i++) if (have[sets[i]])
                printf "| %s | %s | %s | %s | %s | %s |\n", target[t], name[sets[i]], cell(target[t], sets[i], "text_data"), cell(target[t], sets[i], "stripped"),
                    cell(target[t], sets[i], "xz"), cell(target[t], sets[i], "added")
            print "\n## Memory\n\nIn KiB of 1024 bytes, with the polled driver and a ring of 256 KiB. *heap* is what the library asked for at its highest, the ring"
            print "left out. *dirty* is private memory that was written to, the ring included; a session is measured after 8 MiB of output.\n"
            print "| target | features | heap of a client | of a session | dirty of a client | of a session | threads |\n|---|---|---|---|---|---|---|"
            for (t = 1; t <= targets; t++) for (i = 1; i <= 4; i++) {
                k = target[t] " " sets[i]
                if (!((k " heap_client") in v)) continue
                native = (k " threads") in v
                printf "| %s | %s | %.1f | %.1f | %s | %s | %s |\n", target[t], name[sets[i]], v[k " heap_client"] / 1024, v[k " heap_session"] / 1024,
                    native ? v[k " client_dirty_kib"] : "-", native ? v[k " session_dirty_kib"] : "-", native ? v[k " threads"] : "-"
            }
        }' "$1"
}
