//! One HTML file that plays a recording in a browser, without a server and without the network: asciinema-player, which
//! `build.rs` embeds, and the cast inside it.

include!(concat!(env!("OUT_DIR"), "/player.rs"));

/// The page, or none when this build has no player in it. `title` and `cast` may hold anything.
pub(crate) fn page(title: &str, cast: &str) -> Option<String> {
    Some(PAGE.iter().map(|piece| match piece {
        Piece::Text(text) => (*text).to_owned(),
        Piece::Title => escape_text(title),
        Piece::Css => CSS.unwrap_or_default().replace("</", "<\\/"),
        Piece::Js => JS.unwrap_or_default().replace("</script", "<\\/script"),
        Piece::Cast => escape_script(cast),
    }).collect::<String>()).filter(|_| JS.is_some() && CSS.is_some())
}

enum Piece {
    Text(&'static str),
    Title,
    Css,
    Js,
    Cast,
}

/// The policy lets nothing in and nothing out: what was shown in a session must not reach another host, whatever it holds.
const PAGE: [Piece; 9] = [
    Piece::Text(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; \
         style-src 'unsafe-inline'; font-src data:; img-src data:\">\n<title>",
    ),
    Piece::Title,
    Piece::Text("</title>\n<style>\nbody { margin: 0; background: #121314 }\n#player { height: 100vh }\n"),
    Piece::Css,
    Piece::Text("</style>\n<div id=\"player\"></div>\n<script>\n"),
    Piece::Js,
    Piece::Text("\n</script>\n<script id=\"cast\" type=\"application/json\">"),
    Piece::Cast,
    Piece::Text(
        "</script>\n<script>\nAsciinemaPlayer.create({ data: JSON.parse(document.getElementById('cast').textContent) }, \
         document.getElementById('player'), { fit: 'both', idleTimeLimit: 5 });\n</script>\n</html>\n",
    ),
];

fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A JSON string in which nothing can end the script element that holds it.
fn escape_script(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_recording_leaves_its_place() {
        let hostile = "</script><script>alert(1)</script><!--";
        assert!(!escape_script(hostile).contains('<'));
        assert_eq!(serde_json::from_str::<String>(&escape_script(hostile)).ok().as_deref(), Some(hostile));
        let Some(page) = page("</title><script>alert(2)</script>", hostile) else {
            return;
        };
        assert!(!page.contains("<script>alert"));
        // Three scripts of ours, each with one beginning and one end.
        assert_eq!(page.matches("</script").count(), 3);
    }

    #[test]
    fn the_player_is_in_the_page_when_it_is_in_the_build() {
        assert_eq!(page("t", "{}").is_some(), JS.is_some() && CSS.is_some());
    }
}
