//! How deep JSON is nested, before it is parsed: the parser calls itself for each level, and the threads of connections have
//! small stacks.
#![forbid(unsafe_code)]

/// Whether there is a place deeper than `levels`. Text that is no JSON has some answer too.
pub(crate) fn is_deeper(json: &[u8], levels: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    json.iter().any(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth = depth.saturating_add(1),
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > levels
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_outside_of_strings() {
        assert!(!is_deeper(b"", 0));
        assert!(!is_deeper("[]".repeat(1000).as_bytes(), 1));
        assert!(!is_deeper(format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(1000)).as_bytes(), 1));
        assert!(!is_deeper("[".repeat(16).as_bytes(), 16));
        assert!(is_deeper("[".repeat(17).as_bytes(), 16));
        assert!(is_deeper("{\"\\\\\":".repeat(17).as_bytes(), 16));
    }
}
