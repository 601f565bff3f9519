#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| castkeep::fuzzing::fuzz_ask_answer(data));
