#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| castkeep::fuzzing::fuzz_policy_file(data));
